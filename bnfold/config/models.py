"""Which models a table of models means."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

__all__ = ["matches"]


def matches(pattern: str, model: str, folder: Path) -> bool:
    """Return whether a pattern means a model.

    ``*`` stays within a folder, ``**`` stands for any number of them. A pattern without a slash
    means the file name, wherever it is; any other is relative to the folder.

    Args:
        pattern: From the file.
        model: Path or URL, as given.
        folder: Where the file lies, absolute.
    """
    if "/" not in pattern:
        return fnmatchcase(PurePath(model).name, pattern)
    if "://" in model or "://" in pattern:
        return _fits(model.split("/"), pattern.split("/"))
    wanted = os.path.normpath(os.path.join(glob.escape(str(folder)), pattern))  # noqa: PTH118 - an absolute pattern stands alone
    return _fits(PurePath(os.path.abspath(model)).parts, PurePath(wanted).parts)  # noqa: PTH100 - links are kept


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    reached = {0}  # how many parts the pattern so far can stand for
    for piece in pattern:
        if piece == "**":
            reached = set(range(min(reached, default=len(parts) + 1), len(parts) + 1))
        else:
            reached = {
                at + 1 for at in reached if at < len(parts) and fnmatchcase(parts[at], piece)
            }
    return len(parts) in reached
