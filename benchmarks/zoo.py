"""The networks of the benchmarks, built from the structure in their papers with random weights.

Statistics are random too, around those of a trained network. Every network is exported with its
batch normalizations alive.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["NETWORKS", "Network", "activated", "export"]


def conv_bn(c: int, m: int, k: int, s: int = 1, g: int = 1, *, act: bool = True) -> nn.Sequential:
    """Conv, BN and perhaps ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(c, m, k, s, k // 2, groups=g, bias=False),
        nn.BatchNorm2d(m),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if act else []))


class Bottleneck(nn.Module):
    """He et al. 2015."""

    def __init__(self, c: int, m: int, s: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(c, m, 1), conv_bn(m, m, 3, s), conv_bn(m, 4 * m, 1, act=False)
        )
        self.skip = conv_bn(c, 4 * m, 1, s, act=False) if s > 1 or c != 4 * m else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def resnet50() -> nn.Module:
    """ResNet-50."""
    layers: list[nn.Module] = [conv_bn(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    c = 64
    for m, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for at in range(count):
            layers.append(Bottleneck(c, m, stride if at == 0 else 1))
            c = 4 * m
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 1000))


class PreActivation(nn.Module):
    """He et al. 2016: BN and ReLU come before the convolution."""

    def __init__(self, c: int, m: int, s: int) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(c), nn.BatchNorm2d(m)
        self.conv1 = nn.Conv2d(c, m, 3, s, 1, bias=False)
        self.conv2 = nn.Conv2d(m, m, 3, 1, 1, bias=False)
        self.skip = nn.Conv2d(c, m, 1, s, bias=False) if s > 1 or c != m else None

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.first(x))
        skip = x if self.skip is None else self.skip(a)
        return skip + self.conv2(torch.relu(self.second(self.conv1(a))))


def preactivation18() -> nn.Module:
    """Pre-activation ResNet-18."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1)]
    c = 64
    for m, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        layers.append(PreActivation(c, m, stride))
        c = m
    layers += [nn.BatchNorm2d(c), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(c, 1000))


class Dense(nn.Module):
    """Huang et al. 2016."""

    def __init__(self, c: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(c), nn.ReLU(), conv_bn(c, 4 * growth, 1),
            nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet121() -> nn.Module:
    """DenseNet-121."""
    layers: list[nn.Module] = [conv_bn(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    c = 64
    for count in (6, 12, 24, 16):
        for _ in range(count):
            layers.append(Dense(c, 32))
            c += 32
        layers += [nn.BatchNorm2d(c), nn.ReLU()]
        if count != 16:
            layers += [nn.Conv2d(c, c // 2, 1, bias=False), nn.AvgPool2d(2)]
            c //= 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 1000))


class Inverted(nn.Module):
    """Sandler et al. 2018."""

    def __init__(self, c: int, m: int, s: int, t: int) -> None:
        super().__init__()
        wide = c * t
        layers = [conv_bn(c, wide, 1)] if t > 1 else []
        self.body = nn.Sequential(
            *layers, conv_bn(wide, wide, 3, s, wide), conv_bn(wide, m, 1, act=False)
        )
        self.same = s == 1 and c == m

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


def mobilenet_v2() -> nn.Module:
    """MobileNetV2."""
    layers: list[nn.Module] = [conv_bn(3, 32, 3, 2)]
    c = 32
    plan = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
    for t, m, count, stride in (*plan, (6, 160, 3, 2), (6, 320, 1, 1)):
        for at in range(count):
            layers.append(Inverted(c, m, stride if at == 0 else 1, t))
            c = m
    layers += [conv_bn(c, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1280, 1000))


class Detector(nn.Module):
    """A small backbone, a top-down neck, and heads on two scales."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 32, 3, 2), conv_bn(32, 64, 3, 2))
        self.low, self.high = Bottleneck(64, 32, 2), Bottleneck(128, 64, 2)
        self.lateral, self.top = conv_bn(128, 64, 1, act=False), conv_bn(256, 64, 1, act=False)
        self.up = nn.Upsample(scale_factor=2.0, mode="nearest")
        self.mix = nn.Sequential(nn.BatchNorm2d(128), conv_bn(128, 64, 3))
        self.heads = nn.ModuleList(
            nn.Sequential(conv_bn(64, 64, 3), nn.Conv2d(64, 24, 1)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.low(self.stem(x))
        top = self.top(self.high(low))
        joined = self.mix(torch.cat([self.lateral(low), self.up(top)], 1))
        return self.heads[0](joined), self.heads[1](top)


def generator() -> nn.Module:
    """Radford et al. 2015: transposed convolutions, from noise to an image."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(100, 512, 4, 1, 0, bias=False)]
    c = 512
    for m in (256, 128, 64):
        layers += [nn.BatchNorm2d(c), nn.ReLU(), nn.ConvTranspose2d(c, m, 4, 2, 1, bias=False)]
        c = m
    layers += [nn.BatchNorm2d(c), nn.ReLU(), nn.ConvTranspose2d(c, 3, 4, 2, 1), nn.Tanh()]
    return nn.Sequential(*layers)


class PointNet(nn.Module):
    """Qi et al. 2016, without its transforms."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (3, 64, 64, 128, 1024)
        self.points = nn.Sequential(
            *(
                nn.Sequential(nn.Conv1d(a, b, 1), nn.BatchNorm1d(b), nn.ReLU())
                for a, b in itertools.pairwise(sizes)
            )
        )
        self.head = nn.Sequential(
            nn.Linear(1024, 512), nn.BatchNorm1d(512), nn.ReLU(),
            nn.Linear(512, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 40),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.points(x).amax(2))


class Separable(nn.Module):
    """Kriman et al. 2019: five separable convolutions over time, with a residual."""

    def __init__(self, c: int, m: int, k: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        at = c
        for last in (False, False, False, False, True):
            layers += [
                nn.Conv1d(at, at, k, 1, k // 2, groups=at, bias=False),
                nn.Conv1d(at, m, 1, bias=False),
                nn.BatchNorm1d(m),
            ]
            layers += [] if last else [nn.ReLU()]
            at = m
        self.body = nn.Sequential(*layers)
        self.skip = nn.Sequential(nn.Conv1d(c, m, 1, bias=False), nn.BatchNorm1d(m))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def quartznet() -> nn.Module:
    """QuartzNet 5x5."""
    layers: list[nn.Module] = [
        nn.Conv1d(64, 256, 33, 2, 16, bias=False), nn.BatchNorm1d(256), nn.ReLU()
    ]  # fmt: skip
    c = 256
    for m, k in ((256, 33), (256, 39), (512, 51), (512, 63), (512, 75)):
        layers.append(Separable(c, m, k))
        c = m
    return nn.Sequential(*layers, nn.Conv1d(c, 29, 1))


def mlp() -> nn.Module:
    """Linear layers with BN before and behind the activation."""
    layers: list[nn.Module] = [nn.BatchNorm1d(512)]
    for _ in range(4):
        layers += [nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.BatchNorm1d(512)]
    return nn.Sequential(*layers, nn.Linear(512, 10))


def activated(count: int, channels: int) -> nn.Module:
    """Convolutions with their normalization behind the activation."""
    layers: list[nn.Module] = []
    for _ in range(count):
        conv = nn.Conv2d(channels, channels, 3, padding=1)
        layers += [conv, nn.ReLU(), nn.BatchNorm2d(channels)]
    return nn.Sequential(*layers, nn.Conv2d(channels, channels, 3, padding=1))


@dataclass(frozen=True)
class Network:
    """One network of the zoo.

    Attributes:
        make: Builds the module.
        shape: Shape of one sample.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]


NETWORKS = {
    "ResNet-50": Network(resnet50, (3, 224, 224)),
    "pre-activation ResNet-18": Network(preactivation18, (3, 224, 224)),
    "DenseNet-121": Network(densenet121, (3, 224, 224)),
    "MobileNetV2": Network(mobilenet_v2, (3, 224, 224)),
    "detector": Network(Detector, (3, 320, 320)),
    "generator": Network(generator, (100, 1, 1)),
    "PointNet": Network(PointNet, (3, 1024)),
    "QuartzNet": Network(quartznet, (64, 256)),
    "MLP": Network(mlp, (512,)),
}


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give the batch normalizations of a module statistics as after training; return it for use."""
    random = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            for values, low, high in (
                (norm.weight, 0.5, 1.5),
                (norm.bias, -0.5, 0.5),
                (norm.running_mean, -0.5, 0.5),
                (norm.running_var, 0.5, 2.0),
            ):
                assert values is not None
                values.data.uniform_(low, high, generator=random)
    return module.eval()


def export(network: Network, path: Path) -> None:
    """Write a network as ONNX, its batch normalizations alive, the batch size open."""
    torch.manual_seed(0)
    module = randomised(network.make())
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.randn(2, *network.shape),),
            str(path),
            dynamo=False,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            input_names=["x"],
            dynamic_axes={"x": {0: "N"}},
        )
