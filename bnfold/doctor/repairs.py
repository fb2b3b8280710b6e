"""Commands that repair an installation: those of this very interpreter."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys

__all__ = ["install", "uninstall"]


def install(*requirements: str, afresh: bool = False) -> str:
    """Return the command that installs packages here.

    Args:
        requirements: Such as ``onnx>=1.17``.
        afresh: True to write the files again even if they seem to be there.
    """
    return _pip("install", *(["--force-reinstall", "--no-deps"] if afresh else []), *requirements)


def uninstall(*names: str) -> str:
    """Return the command that removes packages here."""
    return _pip("uninstall", "-y", *names)


def _pip(verb: str, *arguments: str) -> str:
    if importlib.util.find_spec("pip") is None and shutil.which("uv"):
        plain = (each for each in arguments if each != "-y")  # it never asks
        return _quoted("uv", "pip", verb, "--python", sys.executable, *plain)
    return _quoted(sys.executable or "python", "-m", "pip", verb, *arguments)


def _quoted(*words: str) -> str:
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
