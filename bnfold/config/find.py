"""Which file holds the options, and what stands in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from bnfold.errors import InputError

__all__ = ["find_file", "read_document"]

_OWN_FILE = "bnfold.toml"
_PROJECT_FILE = "pyproject.toml"
_REPOSITORY_MARKS = (".git", ".hg")
_NO_FILE_HINT = "run without it: --no-config"


def find_file(start: Path) -> Path | None:
    """Return the nearest file with options, from a folder upward.

    In one folder ``bnfold.toml`` comes before ``pyproject.toml``, which counts only if it has a
    table ``[tool.bnfold]``. The search ends with the root of a repository, the home folder or the
    root of the file system; files are never merged. What others have put into a folder where
    everybody may write is passed over.

    Args:
        start: An absolute path.

    Raises:
        InputError: A file that may be the one cannot be read.
    """
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where there is none
    for folder in (start, *start.parents):
        own, project = folder / _OWN_FILE, folder / _PROJECT_FILE
        if own.is_file() and _is_trusted(own):
            return own
        if project.is_file() and _is_trusted(project) and _own_table(project) is not None:
            return project
        if str(folder) == home or any((folder / mark).exists() for mark in _REPOSITORY_MARKS):
            break
    return None


def _is_trusted(file: Path) -> bool:
    """Return False for a file that somebody else has put where everybody may, such as ``/tmp``.

    A file can name code to run.
    """
    folder = file.parent.stat().st_mode
    is_shared = folder & stat.S_ISVTX and folder & stat.S_IWOTH
    return not is_shared or file.stat().st_uid in {0, os.getuid()}


def read_document(file: Path) -> tuple[dict[str, Any], str]:
    """Read a file with options.

    Args:
        file: ``pyproject.toml``, or a file of any other name that has the options alone.

    Returns:
        The options, and the name of the table in which they stand, empty for the whole file.

    Raises:
        InputError: The file cannot be read, is not TOML, or has no options.
    """
    if file.name != _PROJECT_FILE:
        return _parse(file, _text(file)), ""
    table = _own_table(file)
    if table is None:
        raise InputError(f"{file}: there is no table [tool.bnfold]", hint="add it, or give another")
    return table, "tool.bnfold"


def _own_table(project: Path) -> dict[str, Any] | None:
    """Return the table ``[tool.bnfold]``, or None if there is none."""
    text = _text(project)
    if "bnfold" not in text:  # most projects: neither parsed nor found fault with
        return None
    tools = _parse(project, text).get("tool")
    table = tools.get("bnfold") if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise InputError(f"{project}: tool.bnfold is not a table", hint="write [tool.bnfold]")
    return table


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file", hint="give a TOML file") from error
    except OSError as error:
        why = (error.strerror or "unknown reason").lower()
        raise InputError(f"{file}: cannot be read: {why}", hint=_NO_FILE_HINT) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: it is not UTF-8 text", hint=_NO_FILE_HINT) from error


def _parse(file: Path, text: str) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - most runs have no file

    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise InputError(
            f"{file}: not valid TOML ({why})", hint=f"correct it, or {_NO_FILE_HINT}"
        ) from error
