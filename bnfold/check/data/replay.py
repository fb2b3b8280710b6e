"""The feed that showed a difference: saved, and the command that runs it again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from bnfold.check.data.encoding import encode_feed
from bnfold.check.feeds.feed import Feed
from bnfold.errors import InputError
from bnfold.store.temporaries import replacing

__all__ = ["replay_command", "save_feed"]


def save_feed(feed: Feed, path: str | os.PathLike[str]) -> None:
    """Write a feed, whole or not at all, so that ``load_feeds`` reads it back bit for bit.

    The format is told in :mod:`bnfold.check.data.encoding`. Expected outputs are kept with it.

    Args:
        feed: Any feed.
        path: The file; it should be called ``.npz``. It has the usual permissions.

    Raises:
        InputError: The file cannot be written.
    """
    target = Path(path)
    try:
        with replacing(target) as staged, staged.open("xb") as file:
            encode_feed(feed, file)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InputError(f"{target}: cannot be written: {why}") from error


def replay_command(
    reference: str,
    candidate: str,
    feed_path: str | os.PathLike[str],
    options: Mapping[str, object],
) -> str:
    """Return the command that compares two models on a saved feed alone, quoted for a shell.

    Args:
        reference: Path of the original.
        candidate: Path of what should be equal to it.
        feed_path: Where the feed was saved.
        options: Values by the long name of an option, without its dashes: ``{"level": "basic",
            "provider": ("cuda",), "oracle": True}``. True stands for a flag; what is None, False or
            empty is left out, a sequence repeats the option.
    """
    command = ["bnfold", "check", _operand(reference), _operand(candidate)]
    command += ["--data", os.fspath(feed_path), "--samples", "1"]
    for name, value in options.items():
        for item in value if isinstance(value, tuple | list) else (value,):
            if item is True:
                command.append(f"--{name}")
            elif item is not None and item is not False:
                command += [f"--{name}", str(item)]
    return shlex.join(command)


def _operand(path: str) -> str:
    """Return a path that no command takes for an option."""
    return f"./{path}" if path.startswith("-") else path
