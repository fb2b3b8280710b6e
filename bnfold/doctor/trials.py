"""Packages and providers, tried in child processes: what crashes or hangs there is a finding."""

from __future__ import annotations

import contextlib
import importlib
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bnfold.errors import ProviderError
from bnfold.isolation import run_fresh
from bnfold.progress import Progress

__all__ = ["Imported", "Runtime", "Tried", "find_runtime", "try_imports", "try_provider"]

_SECONDS = 120.0


@dataclass(frozen=True)
class Imported:
    """What came of importing a module.

    Attributes:
        module: Its name.
        version: What it says of itself, or None.
        file: Where it was found, or None.
        error: Why it could not be imported, in one line, or None.
    """

    module: str
    version: str | None = None
    file: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Runtime:
    """ONNX Runtime as it is installed.

    Attributes:
        version: What it says of itself.
        providers: What it was built with, best first.
    """

    version: str
    providers: tuple[str, ...]


@dataclass(frozen=True)
class Tried:
    """What came of a session on a provider.

    Attributes:
        provider: Its full name, with a device if one was asked for.
        problem: Why it cannot be used, or None.
        hint: What to do about that, or None.
    """

    provider: str
    problem: str | None = None
    hint: str | None = None


def try_imports(modules: Sequence[str], progress: Progress) -> list[Imported]:
    """Import modules, each even if one before it ends the process."""
    found: list[Imported] = []
    while len(found) < len(modules):
        left = tuple(modules[len(found) :])
        try:
            found += run_fresh(_Imports(left), _SECONDS)
        except ProviderError as error:
            found += (each for each in error.learned if isinstance(each, Imported))
            found.append(Imported(modules[len(found)], error=error.message))
        progress("importing packages")
    return found


def find_runtime() -> Runtime:
    """Return the installed runtime.

    Raises:
        ProviderError: It is missing or damaged, or there are two in one place.
    """
    try:
        return run_fresh(_FindRuntime(), _SECONDS)[0]
    except RuntimeError as error:
        raise ProviderError(f"ONNX Runtime cannot be loaded: {_last_line(error)}") from error


def try_provider(provider: str) -> Tried:
    """Run a small model on a provider and compare what comes out.

    Raises:
        InputError: No runtime has such a provider.
    """
    try:
        return run_fresh(_TryProvider(provider), _SECONDS)[0]
    except ProviderError as error:
        return Tried(provider, error.message, error.hint)
    except RuntimeError as error:  # what NumPy and onnx raise that cannot be imported
        return Tried(provider, _last_line(error), "repair the packages first")


@dataclass(frozen=True)
class _Imports:
    modules: tuple[str, ...]

    def run(self, *, progress: Progress, learned: Callable[[Imported], None]) -> None:
        for name in self.modules:
            progress(f"importing {name}")
            learned(_import(name))


def _import(name: str) -> Imported:
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, warnings.catch_warnings():  # noqa: PTH123 - no path
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                module = importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001 - whatever its code raises, SystemExit too
        return Imported(name, error=f"{type(error).__name__}: {_one_line(error)}")
    version = vars(module).get("__version__")  # as an attribute, it is deprecated here and there
    return Imported(name, version if isinstance(version, str) else None, _file(module))


def _file(module: Any) -> str | None:
    file = getattr(module, "__file__", None)
    return file or next(iter(getattr(module, "__path__", ())), None)


@dataclass(frozen=True)
class _FindRuntime:
    def run(self, *, progress: Progress, learned: Callable[[Runtime], None]) -> None:
        from bnfold.check.runtimes.installed import require_runtime  # noqa: PLC0415 - in the child

        progress("loading ONNX Runtime")
        runtime = require_runtime()
        learned(Runtime(runtime.__version__, tuple(runtime.get_available_providers())))


@dataclass(frozen=True)
class _TryProvider:
    provider: str

    def run(self, *, progress: Progress, learned: Callable[[Tried], None]) -> None:
        import numpy as np  # noqa: PLC0415 - in the child
        import onnx  # noqa: PLC0415

        from bnfold.check.models.model import open_model  # noqa: PLC0415
        from bnfold.check.runtimes.providers import resolve_provider  # noqa: PLC0415
        from bnfold.check.runtimes.sessions import OrtRunner, RunError  # noqa: PLC0415

        provider = resolve_provider(self.provider)
        progress(f"starting {provider}")
        model = onnx.parser.parse_model(_MODEL)
        image = np.arange(-8, 8, dtype=np.float32).reshape(1, 1, 4, 4)
        try:
            (result,) = OrtRunner(open_model(model, "trial model"), provider, "default").run(
                {"x": image}
            )
        except RunError as error:
            raise ProviderError(
                str(error), hint="try another provider, or another build"
            ) from error
        problem = None
        if not np.array_equal(result, np.maximum(2 * image, 0)):
            problem = "it computes something else than it should"
        hint = "try another version of the runtime" if problem else None
        learned(Tried(provider, problem, hint))


# A convolution, because on CUDA that is what needs a library of its own.
_MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    trial (float[1,1,4,4] x) => (float[1,1,4,4] y)
    <float[1,1,1,1] w = {2.0}> { c = Conv(x, w)  y = Relu(c) }
"""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]


def _last_line(error: BaseException) -> str:
    """Return what was raised in the child, without its traceback."""
    return str(error).strip().splitlines()[-1][:400]
