"""What PyTorch's own fusions leave of modules, and what ``bnfold.torch.fold`` leaves."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import bnfold

__all__ = ["MODULES", "module_table", "norms"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.first(x) + self.second(torch.relu(x)))


class _Twice(nn.Module):
    """One convolution, two uses: only one of them is normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.conv(torch.relu(x))


class _Branching(nn.Module):
    """Code that decides by a shape, which symbolic tracing cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return torch.relu(y) if y.mean() > 0 else y


# Name -> (module, True if no fold of it is right).
MODULES: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "Conv2d, BatchNorm2d": (
        lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)),
        False,
    ),
    "ConvTranspose2d, BatchNorm2d": (
        lambda: nn.Sequential(nn.ConvTranspose2d(8, 8, 2, groups=2), nn.BatchNorm2d(8)),
        False,
    ),
    "Flatten, Linear, BatchNorm1d": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(8 * 81, 8), nn.BatchNorm1d(8)),
        False,
    ),
    "BatchNorm2d, Conv2d without padding": (
        lambda: nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)),
        False,
    ),
    "Conv2d, AvgPool2d, BatchNorm2d": (
        lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.AvgPool2d(2), nn.BatchNorm2d(8)),
        False,
    ),
    "sum of two Conv2d, BatchNorm2d": (_Residual, False),
    "Conv2d, BatchNorm2d, then a decision by data": (_Branching, False),
    "a Conv2d that is used twice, BatchNorm2d": (_Twice, True),
}


def _trained(module: nn.Module) -> nn.Module:
    """Give normalizations statistics and parameters that are not those of a new module."""
    torch.manual_seed(0)
    for each in module.modules():
        if isinstance(each, _NORMS):
            for tensor in (each.running_mean, each.weight, each.bias):
                assert tensor is not None
                nn.init.normal_(tensor)
            assert each.running_var is not None
            nn.init.uniform_(each.running_var, 0.5, 2.0)
    return module.eval()


def _fx(module: nn.Module, _: Tensor) -> nn.Module:
    from torch.fx.experimental.optimization import fuse

    return fuse(copy.deepcopy(module))


def _quantization(module: nn.Module, _: Tensor) -> nn.Module:
    from torch.ao.quantization.quantize_fx import fuse_fx

    return fuse_fx(copy.deepcopy(module))


def _bnfold(module: nn.Module, images: Tensor) -> nn.Module:
    folded, _ = bnfold.torch.fold(module, images)
    return folded


_FUSIONS = {
    "`bnfold.torch.fold`": _bnfold,
    "`torch.fx ... fuse`": _fx,
    "`fuse_fx` of torch.ao": _quantization,
}


def norms(module: nn.Module) -> int:
    """Count the normalizations of a module."""
    return sum(isinstance(each, _NORMS) for each in module.modules())


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")
        yield


def _cell(make: Callable[[], nn.Module], fuse: Callable[[nn.Module, Tensor], nn.Module]) -> str:
    module, images = _trained(make()), torch.randn(2, 8, 9, 9)
    with _quietly():
        try:
            fused = fuse(module, images)
        except Exception as error:  # noqa: BLE001 - whatever a tool raises is its answer
            return f"fails ({type(error).__name__})"
        expected, found = module.double()(images.double()), fused.double()(images.double())
    wrong = float((found - expected).abs().max() / expected.abs().max()) > 1e-5
    return f"{norms(fused)}, **wrong**" if wrong else str(norms(fused))


def module_table() -> str:
    """Run all fusions on all modules."""
    lines = [f"| module | {' | '.join(_FUSIONS)} |", "|---|" + "---|" * len(_FUSIONS)]
    for what, (make, must_stay) in MODULES.items():
        cells = " | ".join(_cell(make, fuse) for fuse in _FUSIONS.values())
        lines.append(f"| {what}{' (has to stay)' if must_stay else ''} | {cells} |")
    return "\n".join(lines)
