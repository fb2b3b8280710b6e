"""Fold every BatchNormalization that mathematics allows into the weights around it, and prove it.

::

    import bnfold

    report = bnfold.optimize("model.onnx")  # writes model.folded.onnx, or raises NotEquivalentError
    folded = bnfold.fold(proto)             # in memory: the same type back, without a proof
    report = bnfold.inspect("model.onnx")   # what would fold, and why the rest stays
    checks = bnfold.check("model.onnx", "model.folded.onnx")
    report = bnfold.bench(["model.onnx", "model.folded.onnx"])
    report = bnfold.recalibrate("model.onnx", "better.onnx", data="samples.npz")
    folded, report = bnfold.torch.fold(module, args)     # a PyTorch module of the same class
    report = bnfold.export(module, args, "model.onnx")   # PyTorch in, ONNX out

Importing this package imports none of its dependencies; a public name is loaded when first used.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING

from bnfold._version import __version__

if TYPE_CHECKING:
    from bnfold.benchmark import bench
    from bnfold.check import check
    from bnfold.errors import (
        BnfoldError,
        InputError,
        MissingPackageError,
        ModelError,
        NotEquivalentError,
        ProviderError,
    )
    from bnfold.neighbours.onnx_ir import FoldBatchNormPass
    from bnfold.pipeline import fold, inspect, optimize
    from bnfold.recalibrate import RecalibrationReport, recalibrate
    from bnfold.report import CheckReport, FoldReport, OutputComparison, Reason, Verdict
    from bnfold.torch import export

__all__ = [
    "BnfoldError",
    "CheckReport",
    "FoldBatchNormPass",
    "FoldReport",
    "InputError",
    "MissingPackageError",
    "ModelError",
    "NotEquivalentError",
    "OutputComparison",
    "ProviderError",
    "Reason",
    "RecalibrationReport",
    "Verdict",
    "__version__",
    "bench",
    "check",
    "export",
    "fold",
    "inspect",
    "optimize",
    "recalibrate",
    "torch",
]

_HOMES = {
    "bnfold.benchmark": ("bench",),
    "bnfold.check": ("check",),
    "bnfold.errors": (
        "BnfoldError",
        "InputError",
        "MissingPackageError",
        "ModelError",
        "NotEquivalentError",
        "ProviderError",
    ),
    "bnfold.neighbours.onnx_ir": ("FoldBatchNormPass",),
    "bnfold.pipeline": ("fold", "inspect", "optimize"),
    "bnfold.recalibrate": ("RecalibrationReport", "recalibrate"),
    "bnfold.torch": ("export",),
    "bnfold.report": ("CheckReport", "FoldReport", "OutputComparison", "Reason", "Verdict"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name == "torch":
        return importlib.import_module("bnfold.torch")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted(set(globals()) | set(__all__))


class _Package(types.ModuleType):
    """This module: a public function keeps its name against a subpackage that is called alike.

    Importing ``bnfold.check`` would otherwise put the subpackage in the place of `check`.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME_OF and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
