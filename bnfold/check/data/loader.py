"""Inputs from a caller's own function: ``file.py:function``."""

from __future__ import annotations

import contextlib
import sys
import traceback
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnfold.check.data.raw import Raw
from bnfold.check.models.model import ValueSpec
from bnfold.check.runtimes.sessions import Value
from bnfold.errors import InputError

__all__ = ["read_loader"]

_DEFAULT = "load_data"
_END = object()
_FORMS = "return or yield dicts by input name, tuples in the order of the inputs, or arrays"


def read_loader(loader: str, specs: Sequence[ValueSpec]) -> Iterator[Raw]:
    """Yield what the function gives, as it gives it.

    Args:
        loader: ``file.py:function``; without a function ``load_data`` is called.
        specs: The inputs as declared.

    Raises:
        InputError: There is no such file or function, it raises, or gives something else.
    """
    path, name = _parts(loader)
    with _user_code(path):
        function = _function(path, name)
    if not callable(function):
        raise InputError(
            f"{path}: it has no function '{name}'", hint="name it with --data-loader FILE.py:NAME"
        )
    with _user_code(path):
        result = function()
    items = iter(_items(result, specs))
    index = 0
    while True:
        with _user_code(path):
            item = next(items, _END)
        if item is _END:
            break
        with _user_code(path):
            values = _values(f"{loader} [{index}]", item, specs)
        yield Raw(f"{loader} [{index}]", values)
        index += 1
    if index == 0:
        raise InputError(f"{loader}: it gives no inputs", hint=_FORMS)


def _parts(loader: str) -> tuple[Path, str]:
    file, colon, name = loader.rpartition(":")
    if not colon or loader.endswith(".py"):
        file, name = loader, _DEFAULT
    path = Path(file)
    if not path.is_file():
        raise InputError(
            f"{file or loader}: no such file", hint="write --data-loader FILE.py:FUNCTION"
        )
    return path, name


def _function(path: Path, name: str) -> object:
    module = types.ModuleType(f"bnfold_data_loader_{path.stem}")
    module.__file__ = str(path.resolve())
    sys.modules[module.__name__] = module
    code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    exec(code, module.__dict__)  # noqa: S102 - to run it is what the caller asks for
    return getattr(module, name, None)


@contextlib.contextmanager
def _user_code(path: Path) -> Iterator[None]:
    """Run a caller's code: with its folder to import from, and its errors as one line."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        line = f":{number}" if (number := _line(error, path)) is not None else ""
        why = " ".join(str(error).split())
        kind = type(error).__name__
        raise InputError(
            f"{path}{line}: {kind}{f': {why}' if why else ''}", hint="this is the data loader"
        ) from error
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _line(error: BaseException, path: Path) -> int | None:
    """Return the line of the caller's file that was running when an error came up."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno for f in reversed(frames) if f.filename == str(path)), None)


def _items(result: object, specs: Sequence[ValueSpec]) -> Iterable[Any]:
    """Return the feeds in what a function returned."""
    if isinstance(result, Mapping | np.ndarray) or hasattr(result, "numpy"):
        return [result]
    if isinstance(result, list | tuple):
        inner = all(isinstance(item, Mapping | list | tuple) for item in result)
        # Arrays are one feed in the order of the inputs, or for the only input a feed each.
        if result and not inner and len(specs) > 1:
            return [result]
        return result
    if isinstance(result, Iterable):
        return result
    raise InputError(f"the data loader gives {type(result).__name__}", hint=_FORMS)


def _values(label: str, item: Any, specs: Sequence[ValueSpec]) -> dict[str, Value]:
    if isinstance(item, Mapping):
        return {str(name): _plain(value) for name, value in item.items()}
    if isinstance(item, list | tuple):
        if len(specs) == 1 and specs[0].kind == "sequence" and len(item) != 1:
            return {"": _plain(item)}
        if len(item) != len(specs):
            raise InputError(
                f"{label}: {len(item)} values, but the model has {len(specs)} inputs",
                hint="yield a dict by input name, which may hold more",
            )
        return {spec.name: _plain(value) for spec, value in zip(specs, item, strict=True)}
    return {"": _plain(item)}


def _plain(value: Any) -> Value:
    """Return a value without the classes of a framework."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | Mapping) or value is None:
        return value
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            # NumPy has no such type; float32 holds all of its values.
            value = value.float()
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)
