"""PyTorch models: modules, exported programs and checkpoints.

::

    folded, report = bnfold.torch.fold(module, example_inputs)   # the same class, BN gone
    folded, report = bnfold.torch.fold_program(program)          # an ExportedProgram
    model = bnfold.torch.load("weights.pth", arch="timm:resnet50")
    report = bnfold.torch.optimize("model.pt2", "folded.pt2")    # files
    renewed, report = bnfold.torch.recalibrate(module, loader)   # statistics again, from data
    report = bnfold.export(module, args, "model.onnx")           # PyTorch in, ONNX out

Nothing here is imported before it is used: importing ``bnfold`` or ``bnfold.torch`` does not import
torch. Without torch, the first use says what to install.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING

from bnfold.errors import MissingPackageError

if TYPE_CHECKING:
    from bnfold.torch.convert import optimize
    from bnfold.torch.export import export
    from bnfold.torch.load import load
    from bnfold.torch.module import fold
    from bnfold.torch.program import fold_program
    from bnfold.torch.recalibrate import recalibrate

__all__ = ["export", "fold", "fold_program", "load", "optimize", "recalibrate"]

_HOME_OF = {
    "export": "bnfold.torch.export",
    "fold": "bnfold.torch.module",
    "fold_program": "bnfold.torch.program",
    "load": "bnfold.torch.load",
    "optimize": "bnfold.torch.convert",
    "recalibrate": "bnfold.torch.recalibrate",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = importlib.import_module(_HOME_OF[name])
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "bnfold":
            raise
        raise MissingPackageError(
            f"PyTorch models need the package '{error.name}', which is not installed",
            hint="pip install 'bnfold[torch]'",
        ) from error
    value = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted(set(globals()) | set(__all__))


class _Package(types.ModuleType):
    """This module: a public function keeps its name against a submodule that is called alike."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME_OF and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
