"""PyTorch models: modules, exported programs and checkpoints.

::

    folded, report = bnfold.torch.fold(module, example_inputs)  # the same class, BN gone

Nothing here is imported before it is used: importing ``bnfold`` or ``bnfold.torch`` does not import
torch. Without torch, the first use says what to install.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from bnfold.errors import MissingPackageError

if TYPE_CHECKING:
    from bnfold.torch.module import fold

__all__ = ["fold"]

_HOME_OF = {"fold": "bnfold.torch.module"}


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
            f"bnfold.torch.{name} needs the package '{error.name}', which is not installed",
            hint="pip install 'bnfold[torch]'",
        ) from error
    value = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted(set(globals()) | set(__all__))
