"""Opens PyTorch files of every kind, on the CPU, and runs no code from them unless trusted.

A file of ``torch.save`` is a pickle, and a pickle can run any code. So only tensors and plain
containers are read; objects of other classes (the arguments of a training script, say) are read as
inert placeholders. A whole pickled module needs ``trust_pickle``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from bnfold.errors import InputError, MissingPackageError, ModelError
from bnfold.targets import StrPath
from bnfold.torch.archive import require_harmless, require_sound, without_pickled_code
from bnfold.torch.checkpoint import fill, find_state
from bnfold.torch.files import Kind, kind_of
from bnfold.torch.pickled import globals_of
from bnfold.torch.reasons import reason_of
from bnfold.torch.script_archive import require_harmless_script

__all__ = ["build", "load"]

log = logging.getLogger(__name__)
MAX_PLACEHOLDERS = 100
TRUST = (
    "loading a pickled module runs the code that its file names, as you: only for files you trust"
)


class Inert:
    """Stands for an object of a class that was not trusted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.arguments = args, kwargs

    def __setstate__(self, state: Any) -> None:
        self.state = state


def load(
    path: StrPath,
    *,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    ema: bool = False,
    trust_pickle: bool = False,
) -> ExportedProgram | nn.Module:
    """Open a PyTorch file of any kind, told by its content.

    Args:
        path: An exported program, a TorchScript archive, a state dict or checkpoint (of
            ``torch.save`` or safetensors), or a pickled module.
        arch: What a state dict belongs to: ``package.module:factory``, ``file.py:factory`` or
            ``timm:name``.
        arch_args: Keyword arguments of the factory.
        ema: Take the averaged weights of a checkpoint.
        trust_pickle: Load whole pickled modules, which runs code that the file names.

    Returns:
        An ``ExportedProgram``, a ``torch.jit.ScriptModule``, or an ``nn.Module`` in eval mode.

    Raises:
        ModelError: The file is no PyTorch file, or damaged.
        InputError: An option is missing or does not fit the file.
        MissingPackageError: A package that the file needs is not installed.
    """
    file = Path(path)
    kind = kind_of(file)
    if kind is None:
        _no_torch_file(file)
    if zipfile.is_zipfile(file):
        require_sound(file)
    if kind in (Kind.PROGRAM, Kind.SCRIPT):
        if arch is not None or ema:
            raise InputError(
                f"{file}: it is {kind.value}, which needs no --arch and has no --ema",
                hint="leave these options away",
            )
        read = _program if kind is Kind.PROGRAM else _script
        return read(file, trust=trust_pickle)
    content = _safetensors(file) if kind is Kind.SAFETENSORS else _pickle(file, trust=trust_pickle)
    if isinstance(content, nn.Module) and arch is None:
        return content
    inner = content.get("model") if isinstance(content, Mapping) else None
    if arch is None and isinstance(inner, nn.Module):
        return inner
    if arch is None:
        raise InputError(
            f"{file}: a state dict holds weights only, not the model that they belong to",
            hint="name it: --arch package.module:factory, or --arch timm:resnet50",
        )
    state = find_state(content, str(file), ema=ema)
    module = build(arch, arch_args or {})
    fill(module, state, str(file))
    return module.eval()


def _no_torch_file(file: Path) -> None:
    if not file.is_file():
        raise ModelError(f"{file}: no such file", hint="check the path")
    raise ModelError(
        f"{file}: this is no PyTorch file",
        hint="expected a .pt2, TorchScript, torch.save or safetensors file",
    )


# --- kinds


def _program(file: Path, *, trust: bool) -> ExportedProgram:
    guard: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if not trust:
        require_harmless(file)
        guard = without_pickled_code()
    with guard:
        program: ExportedProgram = _read(file, Kind.PROGRAM, lambda: _compiled(file))
    return program


def _compiled(file: Path) -> ExportedProgram:
    program: ExportedProgram = torch.export.load(file)
    program.graph_module.recompile()  # arguments that cannot be written as code come out here
    return program


def _script(file: Path, *, trust: bool) -> torch.jit.ScriptModule:
    if not trust:
        require_harmless_script(file)
    read: Any = torch.jit.load  # without annotations
    script: torch.jit.ScriptModule = _read(
        file, Kind.SCRIPT, lambda: read(str(file), map_location="cpu")
    )
    return script


def _safetensors(file: Path) -> Any:
    try:
        from safetensors.torch import load_file  # noqa: PLC0415 - an optional package
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{file}: reading it needs the package 'safetensors', which is not installed",
            hint="pip install 'bnfold[torch]'",
        ) from error
    return _read(file, Kind.SAFETENSORS, lambda: load_file(file, device="cpu"))


def _pickle(file: Path, *, trust: bool) -> Any:
    if trust:
        return _read(
            file, Kind.PICKLE, lambda: torch.load(file, map_location="cpu", weights_only=False)
        )
    content = _read(file, Kind.PICKLE, lambda: _without_code(file))
    whole = content.get("model") if isinstance(content, Mapping) else None
    if isinstance(content, Inert) or isinstance(whole, Inert):
        raise InputError(
            f"{file}: it holds a pickled module, not only weights",
            hint=f"--trust-pickle loads it; {TRUST}",
        )
    return content


def _without_code(file: Path) -> Any:
    """Load with placeholders for every class that torch does not know as harmless."""
    with file.open("rb") as stream:
        inert: list[Any] = [_placeholder(name) for name in globals_of(stream)]
    for _ in range(MAX_PLACEHOLDERS):
        with torch.serialization.safe_globals(inert):
            try:
                return torch.load(file, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError as error:
                found = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
                if found is None:
                    raise
                name = found.group(1)
                if any(name == known for _, known in inert):
                    raise pickle.UnpicklingError(
                        f"it calls {name}, which needs --trust-pickle"
                    ) from error
                log.debug("%s: %s is read as a placeholder", file, name)
                inert.append(_placeholder(name))
    raise pickle.UnpicklingError("too many classes of its own")


def _placeholder(name: str) -> tuple[type, str]:
    """What ``torch.load`` takes for a class that it does not know; those that it knows stay."""
    return type(name.rpartition(".")[2], (Inert,), {}), name


def _read(file: Path, kind: Kind, read: Callable[[], Any]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{file}: it needs the package '{error.name}', which is not installed",
            hint="install what the model was written with",
        ) from error
    except Exception as error:
        log.debug("%s", file, exc_info=True)
        raise ModelError(
            f"{file}: {kind.value} that cannot be read: {reason_of(error)}",
            hint="it may be damaged, or of another version of PyTorch; -v shows the whole message",
        ) from error


# --- architectures


def build(arch: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Build the module that a state dict belongs to.

    Args:
        arch: ``package.module:factory``, ``file.py:factory`` or ``timm:name``.
        arguments: Keyword arguments of the factory.

    Raises:
        InputError: It cannot be found, or does not make a module.
        MissingPackageError: A package is not installed.
    """
    home, _, name = arch.rpartition(":")
    if not home or not name:
        raise InputError(
            f"--arch: '{arch}' does not name a factory",
            hint="give package.module:factory, file.py:factory or timm:name",
        )
    try:
        if home == "timm":
            timm = importlib.import_module("timm")
            module = timm.create_model(name, pretrained=False, **arguments)
        else:
            factory: Any = _import(home)
            for part in name.split("."):
                factory = getattr(factory, part)
            module = factory(**arguments)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"--arch: '{arch}' needs the package '{error.name}', which is not found",
            hint="install it, or run bnfold where it can be imported",
        ) from error
    except Exception as error:
        log.debug("--arch %s", arch, exc_info=True)
        raise InputError(
            f"--arch: '{arch}' fails: {reason_of(error)}",
            hint="--arch-args key=value gives it arguments; -v shows where it fails",
        ) from error
    if not isinstance(module, nn.Module):
        raise InputError(
            f"--arch: '{arch}' makes a {type(module).__name__}, not a torch.nn.Module",
            hint="name a class of a module, or a function that returns one",
        )
    return module


def _import(home: str) -> ModuleType:
    """Import a module, also from the current directory, or a Python file by its path."""
    if home.endswith(".py"):
        file = Path(home)
        spec = importlib.util.spec_from_file_location(file.stem, file)
        if spec is None or spec.loader is None or not file.is_file():
            raise FileNotFoundError(f"no file '{home}'")
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(file.stem, module)
        _search_first(file.parent)
        spec.loader.exec_module(module)
        return module
    _search_first(Path.cwd())
    return importlib.import_module(home)


def _search_first(folder: Path) -> None:
    """Let code find its neighbours, as it does where it is run."""
    path = str(folder.resolve())
    if path not in sys.path:
        sys.path.insert(0, path)
