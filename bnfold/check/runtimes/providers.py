"""Execution providers: their names, their options for a check, and why one does not start.

A provider is written as its full name, with ``:DEVICE`` where a device was asked for, such as
``CUDAExecutionProvider:1``.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bnfold.check.runtimes.installed import require_runtime, runtime_name
from bnfold.errors import InputError, ProviderError

__all__ = [
    "CPU",
    "CUDA",
    "CUDA_CHECKED",
    "native_messages",
    "not_started",
    "provider_name",
    "resolve_provider",
    "session_providers",
    "start_failure",
]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
_SUFFIX = "ExecutionProvider"

CUDA_CHECKED = {"cudnn_conv_algo_search": "DEFAULT", "use_tf32": "0"}
"""Options of CUDA under which two sessions compute alike.

The exhaustive search for an algorithm picks by time, and TF32, on by default, rounds the operands
of convolutions and products to 10 bits.
"""

_GPU_HINT = 'on a machine with an NVIDIA GPU, pip install "bnfold[gpu]" instead of "[cpu]"'
_DRIVER_HINT = (
    "update the NVIDIA driver, or install a build of onnxruntime-gpu for its CUDA version"
)
# What the runtime says when a CUDA provider does not start, and what that means.
_CAUSES = (
    (
        r"libcuda\.so[.\d]*: cannot open",
        "there is no NVIDIA driver on this machine (libcuda.so.1 is missing)",
        "install the NVIDIA driver, or run this on a machine with a GPU",
    ),
    (
        r"failure 35\b|driver version is insufficient|undefined symbol: cu[A-Z]",
        "the NVIDIA driver is too old for the CUDA version of the installed runtime",
        _DRIVER_HINT,
    ),
    (
        r"failure 100\b|no CUDA-capable device",
        "the NVIDIA driver sees no GPU",
        "check nvidia-smi and CUDA_VISIBLE_DEVICES",
    ),
    (
        r"failure 101\b|invalid device ordinal",
        "there is no such device",
        "list the GPUs with nvidia-smi -L; the first one is cuda:0",
    ),
    (
        r"failure 2\b|out of memory",
        "the GPU has no memory left",
        "close what else runs on it, or ask for smaller inputs with --input or --dim",
    ),
)


def resolve_provider(name: str) -> str:
    """Return the execution provider that a user means.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1``, or any provider of the installed runtime by its name,
            with or without ``ExecutionProvider`` at its end.

    Raises:
        InputError: No runtime has such a provider, or the device is not a number.
        ProviderError: The installed runtime has no such provider.
    """
    base, colon, device = name.partition(":")
    if colon and not device.isdecimal():
        raise InputError(f"provider '{name}': '{device}' is not a device", hint="such as cuda:0")
    ort = require_runtime()
    wanted = base.lower().removesuffix(_SUFFIX.lower())
    known = {each.removesuffix(_SUFFIX).lower(): each for each in ort.get_all_providers()}
    available = ort.get_available_providers()
    if wanted not in known:
        choices = ", ".join(each.removesuffix(_SUFFIX).lower() for each in available)
        raise InputError(f"unknown provider '{name}'", hint=f"this runtime has {choices}")
    provider = known[wanted]
    if provider not in available:
        raise ProviderError(
            f"{provider} is not available in {runtime_name()}, which has {', '.join(available)}",
            hint=_GPU_HINT
            if provider == CUDA
            else "install a build of the runtime that has the provider",
        )
    return f"{provider}:{int(device)}" if colon else provider


def provider_name(provider: str) -> str:
    """Return the name of a provider without its device."""
    return provider.partition(":")[0]


def session_providers(provider: str, cuda: Mapping[str, str]) -> list[Any]:
    """Return the ``providers`` argument of a session.

    Args:
        provider: From :func:`resolve_provider`.
        cuda: Options for the provider if it is CUDA.
    """
    name, _, device = provider.partition(":")
    if name == CPU:
        return [CPU]
    options = {"device_id": device} if device else {}
    if name == CUDA:
        options |= cuda
        _preload_libraries()
    return [(name, options), CPU]


def _preload_libraries() -> None:
    """Load CUDA and cuDNN from the Python packages that carry them, where there are any."""
    preload: Callable[[], None] | None = getattr(require_runtime(), "preload_dlls", None)
    if preload is not None:
        # It prints what it does not find; what is really missing shows when a session starts.
        with contextlib.redirect_stdout(io.StringIO()):
            preload()


@contextlib.contextmanager
def native_messages() -> Iterator[Callable[[], str]]:
    """Catch what native code writes to stderr; yield a function that returns it.

    A runtime says in a log line only, and nowhere else, why a provider did not start.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:

            def read() -> str:
                file.seek(0)
                return file.read().decode(errors="replace")

            yield read
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def start_failure(label: str, provider: str, messages: str) -> ProviderError | None:
    """Return the error for a device that cannot be used, or None if that is not the trouble.

    Args:
        label: How messages call the model.
        provider: From :func:`resolve_provider`.
        messages: What the runtime said, its log lines included.
    """
    start = f"{label}: {provider} did not start"
    for pattern, cause, hint in _CAUSES:
        if re.search(pattern, messages, re.IGNORECASE):
            return ProviderError(f"{start}: {cause}", hint=hint)
    missing = re.search(r"(\S+): cannot open shared object file", messages)
    if missing:
        needs = re.search(r"Require (.*?)\. Please", messages)
        hint = "pip install the nvidia-*-cu13 packages, or put the libraries in the loader's path"
        if needs:
            hint = f"the runtime needs {needs[1]}: {hint}"
        return ProviderError(f"{start}: the library {missing[1]} is missing", hint=hint)
    return None


def not_started(label: str, provider: str, messages: str) -> ProviderError:
    """Return the error for a provider in whose place the runtime took another one.

    Args:
        label: How messages call the model.
        provider: From :func:`resolve_provider`.
        messages: What the runtime said, its log lines included.
    """
    known = start_failure(label, provider, messages)
    if known is not None:
        return known
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    said = f": {lines[0][:300]}" if lines else f"; {runtime_name()} took another provider instead"
    return ProviderError(
        f"{label}: {provider} did not start{said}",
        hint="check the driver and the libraries of the provider",
    )
