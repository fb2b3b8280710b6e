"""What options take: how it is parsed, how a file may write it, and how a shell completes it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _Type = click.ParamType[Any]
else:
    _Type = click.ParamType

__all__ = [
    "DIMENSION",
    "FILE",
    "FILE_FUNCTION",
    "FOLDER",
    "KEY_VALUE",
    "MODEL",
    "PATH_COMPLETION",
    "PROVIDER",
    "SHAPE",
    "TOLERANCES",
    "completions",
]

PATH_COMPLETION = "path"
"""Type of a completion that is a path: a shell quotes it, and goes on after a folder."""

_MODEL_SUFFIXES = (".onnx", ".pt2", ".pt", ".pth", ".safetensors", ".ckpt", ".bin")
_PROVIDERS = ("cpu", "cuda", "tensorrt", "openvino", "coreml", "dml", "migraphx", "qnn", "xnnpack")


class _File(click.Path):
    """A path, whether or not something is there: what reads it says what is wrong with it."""

    def __init__(self, *, folder: bool = False) -> None:
        super().__init__(readable=False, file_okay=not folder)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path as it is."""
        return os.fspath(value)


class _Model(_File):
    """The path of a model."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the folders and the files that can be models."""
        return _paths(incomplete, _MODEL_SUFFIXES)


class _FileFunction(_Type):
    """A function in a file or a module, after a colon."""

    name = "file:function"

    def relative_to(self, value: str, folder: str) -> str:
        """Return a value of a file as seen from here; a module is no path."""
        from bnfold.config.values import relative_path

        path, colon, function = value.rpartition(":")
        return relative_path(path, folder) + colon + function if path.endswith(".py") else value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the folders and Python files."""
        return _paths(incomplete, (".py",))


class _Provider(_Type):
    """The name of an execution provider; which there are, the runtime knows."""

    name = "provider"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the usual names, without loading a runtime."""
        return completions(_PROVIDERS, incomplete)


class _Shape(_Type):
    """``NAME:1x3x224x224`` or ``1,3,224,224``: the name, empty if left out, and the sizes."""

    name = "shape"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        """Parse a shape."""
        name, _, sizes = value.rpartition(":")
        parts = sizes.replace(",", "x").split("x") if sizes else []
        if not all(_is_size(part) for part in parts):
            self.fail(f"{value!r} is not a shape such as 'images:1x3x224x224'.")
        return name, tuple(int(part) for part in parts)

    def from_table(self, table: dict[str, Any]) -> list[str]:
        """Return shapes from ``{images = [1, 3, 224, 224]}``."""
        return [
            f"{name}:{'x'.join(map(str, size)) if isinstance(size, list) else size}"
            for name, size in table.items()
        ]


class _Pair(_Type):
    """``NAME=VALUE``, as text."""

    name = "pair"

    def from_table(self, table: dict[str, Any]) -> list[str]:
        """Return pairs from ``{N = 4}``."""
        return [f"{name}={value}" for name, value in table.items()]


class _Dimension(_Pair):
    """``N=4``: the name of a symbolic dimension and its size."""

    name = "dimension"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Parse a dimension."""
        name, _, size = value.rpartition("=")
        if not name or not _is_size(size):
            self.fail(f"{value!r} is not a dimension such as 'N=4'.")
        return name, int(size)


class _Tolerances(_File):
    """A file with tolerances by output, or in a configuration the tolerances themselves."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or the table."""
        return value if isinstance(value, Mapping) else super().convert(value, param, ctx)

    def from_table(self, table: dict[str, Any]) -> dict[str, Any]:
        """Return the tolerances themselves.

        Raises:
            ValueError: They are none; which outputs there are, the check knows.
        """
        for output, rule in table.items():
            keys = set(rule) if isinstance(rule, dict) else set()
            if keys != {"rtol", "atol"} or not all(map(_is_tolerance, rule.values())):
                raise ValueError(f"'{output}' is not such as {{ rtol = 1e-3, atol = 1e-5 }}")
        return table


def _is_tolerance(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < math.inf


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def completions(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Return the names that begin like this."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _paths(incomplete: str, suffixes: tuple[str, ...]) -> list[CompletionItem]:
    """Return the folders, and the files of these kinds, that a path can go on with."""
    from click.shell_completion import CompletionItem

    start, beginning = os.path.split(incomplete)
    try:
        with os.scandir(Path(start or ".").expanduser()) as found:
            entries = sorted((entry.name, entry.is_dir()) for entry in found)
    except OSError:
        return []
    return [
        CompletionItem(
            os.path.join(start, name) + (os.sep if is_folder else ""),  # noqa: PTH118 - "./a" stays
            type=PATH_COMPLETION,
        )
        for name, is_folder in entries
        if name.startswith(beginning)
        and name.isprintable()  # a shell gets them line by line
        and (beginning or not name.startswith("."))
        and (is_folder or name.lower().endswith(suffixes))
    ]


FILE = _File()
FOLDER = _File(folder=True)
MODEL = _Model()
FILE_FUNCTION = _FileFunction()
PROVIDER = _Provider()
SHAPE = _Shape()
DIMENSION = _Dimension()
KEY_VALUE = _Pair()
TOLERANCES = _Tolerances()
