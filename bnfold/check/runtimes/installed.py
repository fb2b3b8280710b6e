"""The installed runtime: which build it is, and whether it can be used at all."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from bnfold.errors import MissingPackageError, ProviderError

__all__ = ["require_runtime", "runtime_name"]

_BUILDS = ("onnxruntime", "onnxruntime-gpu")


def require_runtime() -> Any:
    """Import ONNX Runtime and return its module.

    Raises:
        MissingPackageError: It is not installed.
        ProviderError: Both builds are installed. They own the same directory, so that which of
            the two is imported depends on what was installed last.
    """
    if all(map(_installed, _BUILDS)):
        raise ProviderError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other",
            hint="pip uninstall -y onnxruntime onnxruntime-gpu, "
            'then pip install "bnfold[gpu]" or "bnfold[cpu]"',
        )
    hint = 'pip install "bnfold[cpu]"'
    try:
        import onnxruntime  # noqa: PLC0415 - only a check needs the runtime
    except ImportError as error:
        why = " ".join(str(error).split())
        raise MissingPackageError(
            f"the check needs onnxruntime, which cannot be imported ({why})", hint=hint
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        # What uninstalling one of two builds leaves behind: a directory without its files.
        raise MissingPackageError(
            "the installation of onnxruntime is damaged: it has no InferenceSession",
            hint=f"pip uninstall -y onnxruntime onnxruntime-gpu, then {hint}",
        )
    return onnxruntime


def runtime_name() -> str:
    """Name and version of the runtime, for messages."""
    return f"ONNX Runtime {require_runtime().__version__}"


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
