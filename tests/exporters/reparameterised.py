"""Networks that are trained with parallel branches and deployed without them, from their papers.

Each is built from the structure that its paper publishes, with random statistics. ``BLOCKS`` says
what each block becomes: one convolution.

Sources: Ding et al. 2021 (RepVGG, arXiv 2101.03697), Vasu et al. 2022 (MobileOne, arXiv
2206.04040), Ding et al. 2019 (ACNet, arXiv 1908.03930), Ding et al. 2021 (Diverse Branch Block,
arXiv 2103.13425), Wang et al. 2022 (YOLOv7, arXiv 2207.02696).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

__all__ = ["NETWORKS", "Network", "build_network", "deployed", "randomised"]


class ConvNorm(nn.Sequential):
    """A convolution without bias and its batch normalization."""

    def __init__(
        self, i: int, o: int, k: int | tuple[int, int], s: int = 1,
        p: int | tuple[int, int] = 0, g: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(nn.Conv2d(i, o, k, s, p, groups=g, bias=False), nn.BatchNorm2d(o))


class RepVggBlock(nn.Module):
    """3x3, 1x1, and a normalization of the input where shape allows; then ReLU."""

    def __init__(self, i: int, o: int, s: int) -> None:
        super().__init__()
        self.dense, self.pointwise = ConvNorm(i, o, 3, s, 1), ConvNorm(i, o, 1, s)
        self.identity = nn.BatchNorm2d(i) if i == o and s == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.dense(x) + self.pointwise(x)
        return F.relu(y if self.identity is None else y + self.identity(x))


def repvgg(depths: list[int], widths: list[int], classes: int) -> nn.Module:
    layers: list[nn.Module] = [RepVggBlock(3, min(64, widths[0]), 2)]
    channels = min(64, widths[0])
    for depth, width in zip(depths, widths, strict=True):
        for number in range(depth):
            layers.append(RepVggBlock(channels, width, 2 if number == 0 else 1))
            channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    )


class MobileOneBlock(nn.Module):
    """k branches of the same convolution, a 1x1 scale branch, a normalization of the input."""

    def __init__(self, i: int, o: int, k: int, s: int, g: int, branches: int) -> None:
        super().__init__()
        self.skip = nn.BatchNorm2d(i) if i == o and s == 1 else None
        self.scale = ConvNorm(i, o, 1, s, 0, g) if k > 1 else None
        self.convs = nn.ModuleList(ConvNorm(i, o, k, s, k // 2, g) for _ in range(branches))

    def forward(self, x: Tensor) -> Tensor:
        y = 0 if self.scale is None else self.scale(x)
        y = y + (0 if self.skip is None else self.skip(x))
        for conv in self.convs:
            y = y + conv(x)
        return F.relu(y)


def mobileone(widths: list[int], depths: list[int], branches: int, classes: int) -> nn.Module:
    layers: list[nn.Module] = [MobileOneBlock(3, min(64, widths[0]), 3, 2, 1, 1)]
    channels = min(64, widths[0])
    for depth, width in zip(depths, widths, strict=True):
        for number in range(depth):
            stride = 2 if number == 0 else 1
            layers.append(MobileOneBlock(channels, channels, 3, stride, channels, branches))
            layers.append(MobileOneBlock(channels, width, 1, 1, 1, branches))
            channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    )


class AsymmetricBlock(nn.Module):
    """3x3, 3x1 and 1x3."""

    def __init__(self, i: int, o: int, s: int = 1) -> None:
        super().__init__()
        self.square = ConvNorm(i, o, 3, s, 1)
        self.vertical = ConvNorm(i, o, (3, 1), s, (1, 0))
        self.horizontal = ConvNorm(i, o, (1, 3), s, (0, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.square(x) + self.vertical(x) + self.horizontal(x))


class Padded(nn.Module):
    """1x1 convolution and normalization that see a padded input: their bias stands at the border."""

    def __init__(self, i: int, o: int, pad: int) -> None:
        super().__init__()
        self.body = ConvNorm(i, o, 1, 1, pad)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class DiverseBranchBlock(nn.Module):
    """k x k, 1x1, 1x1 then k x k, 1x1 then average pool."""

    def __init__(self, i: int, o: int, k: int = 3) -> None:
        super().__init__()
        self.origin, self.point = ConvNorm(i, o, k, 1, k // 2), ConvNorm(i, o, 1)
        self.deep = nn.Sequential(Padded(i, i, k // 2), ConvNorm(i, o, k))
        self.average = nn.Sequential(Padded(i, o, k // 2), nn.AvgPool2d(k, 1), nn.BatchNorm2d(o))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.origin(x) + self.point(x) + self.deep(x) + self.average(x))


class RepConv(nn.Module):
    """The re-parameterised convolution of YOLO heads: 3x3, 1x1, and identity where it fits."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.dense, self.pointwise = ConvNorm(i, o, 3, 1, 1), ConvNorm(i, o, 1)
        self.identity = nn.BatchNorm2d(i) if i == o else None

    def forward(self, x: Tensor) -> Tensor:
        extra = 0 if self.identity is None else self.identity(x)
        return F.silu(self.dense(x) + self.pointwise(x) + extra)


class Neck(nn.Module):
    """Two scales that meet, each with RepConv, as in the neck of a YOLO."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, c, 3, 2, 1), nn.SiLU())
        self.down = nn.Sequential(ConvNorm(c, 2 * c, 3, 2, 1), nn.SiLU())
        self.high, self.low = RepConv(3 * c, c), RepConv(2 * c, 2 * c)
        self.out = RepConv(c, 2 * c)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = self.stem(x)
        b = self.low(self.down(a))
        a = self.high(torch.cat([a, F.interpolate(b, scale_factor=2.0)], 1))
        return self.out(a), b


@dataclass(frozen=True)
class Network:
    """One network.

    Attributes:
        make: Builds it.
        sample: Shape of one input.
        norms: Batch normalizations that it has.
        convolutions: What is left of it: one for each block.
    """

    make: Callable[[], nn.Module]
    sample: tuple[int, ...]
    norms: int
    convolutions: int


NETWORKS: dict[str, Network] = {
    "repvgg-a0": Network(
        lambda: repvgg([2, 4, 14, 1], [48, 96, 192, 1280], 1000), (3, 224, 224), 61, 22
    ),
    "mobileone-s0": Network(
        lambda: mobileone([48, 128, 256, 1024], [2, 8, 10, 1], 4, 1000), (3, 224, 224), 226, 43
    ),
    "repvgg-small": Network(lambda: repvgg([1, 2], [8, 16], 5), (3, 16, 16), 9, 4),
    "mobileone-small": Network(lambda: mobileone([8, 16], [2, 1], 3, 5), (3, 16, 16), 26, 7),
    "acnet": Network(
        lambda: nn.Sequential(AsymmetricBlock(3, 16, 2), AsymmetricBlock(16, 16)), (3, 32, 32), 6, 2
    ),
    "dbb": Network(
        lambda: nn.Sequential(DiverseBranchBlock(3, 16), DiverseBranchBlock(16, 16)), (3, 32, 32), 12, 2
    ),
    "yolo-repconv": Network(lambda: Neck(8), (3, 32, 32), 9, 5),
}  # fmt: skip


def build_network(name: str, batch: int = 1) -> tuple[nn.Module, Tensor]:
    """The network in eval mode with random statistics, and an input."""
    network = NETWORKS[name]
    torch.manual_seed(0)
    return randomised(network.make()), torch.randn(batch, *network.sample)


def randomised(module: nn.Module) -> nn.Module:
    """A module in eval mode, its normalizations with random statistics."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(norm.weight, 0.3, 0.7)
            nn.init.normal_(norm.bias, 0, 0.2)
    return module.eval()


def deployed(module: nn.Module) -> nn.Module:
    """The form that the authors deploy: each block one convolution with a bias."""
    for name, child in module.named_children():
        block = _plain(child)
        setattr(module, name, deployed(child) if block is None else block)
    return module.eval()


def _plain(block: nn.Module) -> nn.Module | None:
    match block:
        case RepVggBlock() | AsymmetricBlock():
            conv = (block.dense if isinstance(block, RepVggBlock) else block.square)[0]
        case MobileOneBlock():
            conv = block.convs[0][0]
        case DiverseBranchBlock():
            conv = block.origin[0]
        case RepConv():
            conv = block.dense[0]
        case ConvNorm():
            conv = block[0]
        case _:
            return None
    assert isinstance(conv, nn.Conv2d)
    plain = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding,
        groups=conv.groups,
    )  # fmt: skip
    if isinstance(block, ConvNorm):
        return plain
    return nn.Sequential(plain, nn.SiLU() if isinstance(block, RepConv) else nn.ReLU())
