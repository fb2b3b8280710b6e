"""Versions and machine: what a reader needs to see the same again."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from pathlib import Path

__all__ = ["environment"]

_PACKAGES = ("bnfold", "onnxruntime", "onnxruntime-gpu", "onnx", "numpy", "torch", "onnxsim")


def environment() -> dict[str, str]:
    """Return versions and machine, by name. Packages that are not installed are left out."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    found["processor"] = _processor()
    found["cores"] = str(os.cpu_count())
    return found


def _processor() -> str:
    """Return the model of the processor, as Linux tells it, or its architecture."""
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.machine()
