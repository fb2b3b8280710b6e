"""Small networks in the layouts of well-known architectures, with random statistics.

``LEFT`` is the least number of batch normalizations that can remain, counted by hand: those before
an activation whose input is needed elsewhere, or before a zero-padded convolution.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

__all__ = ["ARCHITECTURES", "build"]


def conv(i: int, o: int, k: int = 3, s: int = 1, g: int = 1) -> nn.Sequential:
    layers = [nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


class Residual(nn.Module):
    def __init__(self, i: int, o: int, s: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(i, o, 3, s), nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        )
        self.skip = nn.Sequential(nn.Conv2d(i, o, 1, s, bias=False), nn.BatchNorm2d(o))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


class PreActivation(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(c), nn.BatchNorm2d(c)
        self.conv1 = nn.Conv2d(c, c, 3, 1, 1, bias=False)
        self.conv2 = nn.Conv2d(c, c, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))


class Dense(nn.Module):
    def __init__(self, c: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(c), nn.Conv2d(c, 8, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], 1)


class Shuffle(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        h = c // 2
        depthwise = [nn.Conv2d(h, h, 3, 1, 1, groups=h, bias=False), nn.BatchNorm2d(h)]
        self.branch = nn.Sequential(conv(h, h, 1), *depthwise, conv(h, h, 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        x = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class Gate(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, 4, 1), nn.ReLU(), nn.Conv2d(4, c, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Inverted(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        wide = 3 * c
        self.body = nn.Sequential(
            nn.Conv2d(c, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.SiLU(),
            nn.Conv2d(wide, wide, 3, 1, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.SiLU(),
            Gate(wide), nn.Conv2d(wide, c, 1, bias=False), nn.BatchNorm2d(c),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Ghost(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.out, half = o, (o + 1) // 2
        self.primary, self.cheap = conv(i, half, 1), conv(half, half, 3, 1, half)

    def forward(self, x: Tensor) -> Tensor:
        a = self.primary(x)
        return torch.cat([a, self.cheap(a)], 1)[:, : self.out]


class HighResolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.high, self.low = conv(3, 8), conv(8, 8, 3, 2)
        self.down = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.up = nn.Sequential(
            nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Upsample(scale_factor=2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = self.high(x)
        b = self.low(a)
        return F.relu(a + self.up(b)), F.relu(self.down(a) + b)


class LinearNorm(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(i, o, bias=False), nn.BatchNorm1d(o)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return self.norm(x.flatten(0, 1)).reshape_as(x)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = LinearNorm(32, 96), LinearNorm(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 4, 24).split([8, 8, 8], 3)
        q, k, v = q.permute(0, 2, 1, 3), k.permute(0, 2, 3, 1), v.permute(0, 2, 1, 3)
        y = ((q @ k * 0.3).softmax(-1) @ v).transpose(1, 2).reshape(b, n, c)
        return x + self.out(F.hardswish(y))


class Points(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16)
        self.conv2, self.norm2 = nn.Conv1d(16, 32, 1), nn.BatchNorm1d(32)
        self.linear, self.norm3 = nn.Linear(32, 8), nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(self.norm3(self.linear(torch.max(x, 2)[0])))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.out = conv(3, 8), conv(8, 16), conv(16, 4)
        self.up, self.norm = nn.ConvTranspose2d(16, 8, 2, 2), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        return self.out(torch.cat([a, self.norm(self.up(b))], 1))


class Shortcut(nn.Module):
    """The parameter-free shortcut of CIFAR ResNets: subsample, then pad channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.norm = (
            conv(3, 4),
            nn.Conv2d(4, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return F.relu(self.norm(self.conv(x)) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))


class SpeechBlock(nn.Module):
    """Time-channel separable convolutions with a residual, as in QuartzNet."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.depth, self.point = (
            nn.Conv1d(c, c, 5, 1, 2, groups=c, bias=False),
            nn.Conv1d(c, c, 1, bias=False),
        )
        self.norm, self.skip, self.norm2 = (
            nn.BatchNorm1d(c),
            nn.Conv1d(c, c, 1, bias=False),
            nn.BatchNorm1d(c),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.point(self.depth(x))) + self.norm2(self.skip(x)))


class Recurrent(nn.Module):
    """Convolutions in front of an LSTM, as in CRNN."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv(1, 8), nn.MaxPool2d(2), conv(8, 8), nn.AdaptiveAvgPool2d((1, 8))
        )
        self.rnn, self.head = nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.features(x).squeeze(2).permute(0, 2, 1))[0])


class HandNorm(nn.Module):
    """Batch normalization written by hand on (batch, channels, positions)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.scale, self.shift = (
            nn.Parameter(torch.rand(channels) + 0.5),
            nn.Parameter(torch.randn(channels)),
        )
        self.register_buffer("exp_mean", torch.randn(channels))
        self.register_buffer("exp_var", torch.rand(channels) + 0.3)

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape
        x = x.view(shape[0], self.channels, -1)
        y = (x - self.exp_mean.view(1, -1, 1)) / torch.sqrt(self.exp_var + 1e-5).view(1, -1, 1)
        return (self.scale.view(1, -1, 1) * y + self.shift.view(1, -1, 1)).view(shape)


class HandWritten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm1 = nn.Conv2d(1, 6, 5), HandNorm(6)
        self.linear, self.norm2, self.head = (
            nn.Linear(6 * 6 * 6, 12),
            HandNorm(12),
            nn.Linear(12, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm1(self.conv(x))), 2)
        return self.head(F.relu(self.norm2(self.linear(x.view(-1, 6 * 6 * 6)))))


class WrongAxis(nn.Module):
    """BatchNorm1d over (N, C, L) behind a Linear: its channel is not the Linear's column."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(8, 6), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


def head(c: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(c), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 5))


def generator() -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(8, 16, 4, bias=False), nn.BatchNorm2d(16), nn.ReLU(True),
        nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(True),
        nn.ConvTranspose2d(8, 3, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip


IMAGE = (3, 12, 12)
# name: (module, shape of one sample, batch normalizations left)
ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "resnet": (lambda: nn.Sequential(conv(3, 8), Residual(8, 8, 1), Residual(8, 16, 2)), IMAGE, 0),
    "preact-resnet": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), PreActivation(8), PreActivation(8), head(8)), IMAGE, 2),
    "densenet": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), Dense(8, 4), Dense(12, 4), head(16)), IMAGE, 2),
    "shufflenet": (lambda: nn.Sequential(conv(3, 8), Shuffle(8), Shuffle(8)), IMAGE, 0),
    "mobilenet": (lambda: nn.Sequential(conv(3, 8), conv(8, 8, 3, 1, 8), conv(8, 16, 1)), IMAGE, 0),
    "efficientnet": (lambda: nn.Sequential(conv(3, 8), Inverted(8), Inverted(8)), IMAGE, 0),
    "ghostnet": (lambda: nn.Sequential(conv(3, 8), Ghost(8, 9)), IMAGE, 0),
    "hrnet": (HighResolution, IMAGE, 0),
    "levit": (Attention, (10, 32), 0),
    "pointnet": (Points, (3, 20), 0),
    "unet": (UNet, IMAGE, 0),
    "dcgan": (generator, (8, 1, 1), 0),
    "quartznet": (lambda: nn.Sequential(SpeechBlock(6), SpeechBlock(6)), (6, 30), 0),
    "crnn": (Recurrent, (1, 16, 32), 0),
    "resnet-3d": (
        lambda: nn.Sequential(nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4), nn.ReLU(), nn.BatchNorm3d(4), nn.Conv3d(4, 3, 3)),
        (2, 9, 9, 9), 0),
    "cifar-resnet": (Shortcut, IMAGE, 0),
    "pixel-shuffle": (lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.PixelShuffle(2), nn.BatchNorm2d(4)), IMAGE, 0),
    "hand-written": (HandWritten, (1, 16, 16), 0),
    "mlp": (lambda: nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 4)), (8,), 0),
    "wrong-axis": (WrongAxis, (6, 8), 1),
}  # fmt: skip


def build(name: str) -> tuple[nn.Module, Tensor, int]:
    """The module in eval mode with random statistics, a batch of two samples, what must be left."""
    make, sample, left = ARCHITECTURES[name]
    torch.manual_seed(0)
    module = make()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.3, 2)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return module.eval(), torch.randn(2, *sample), left
