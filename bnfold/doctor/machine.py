"""The computer: processor, memory, and the disk where temporary files go."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bnfold.environment import environment

__all__ = ["Machine", "machine"]

_CONTROL_GROUP = Path("/sys/fs/cgroup")
# Those that change how fast a convolution is, as Linux calls them.
_FEATURES = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16",
    "avx512_fp16", "amx_tile", "asimd", "asimdhp", "asimddp", "sve", "i8mm", "bf16",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """What there is to work with; None where the system does not tell.

    Attributes:
        system: Operating system.
        processor: Model of the processor, or its architecture.
        features: Instruction sets that matter here.
        cores: Logical processors that this process may use.
        memory: Bytes that it may use.
        available: Bytes of these that are not used.
        temporary: Where temporary files go, or None if there is no such place.
        free: Bytes that are free there.
    """

    system: str
    processor: str
    features: tuple[str, ...]
    cores: int
    memory: int | None
    available: int | None
    temporary: str | None
    free: int | None


def machine() -> Machine:
    """Look at this computer, within the limits of a container."""
    known = environment()
    total, available = _memory()
    temporary, free = _temporary()
    return Machine(
        known["system"],
        known["processor"],
        _features(),
        _cores(),
        total,
        available,
        temporary,
        free,
    )


def _features() -> tuple[str, ...]:
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() in {"flags", "Features"}:
                listed = set(value.split())
                return tuple(name for name in _FEATURES if name in listed)
    return ()


def _cores() -> int:
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    quota, _, period = _limit("cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal():
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def _memory() -> tuple[int | None, int | None]:
    """Return the bytes of memory that there are, and that are free."""
    kilobytes = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            name, _, amount = line.partition(":")
            kilobytes[name] = amount.split()[0]
    if "MemTotal" not in kilobytes:
        return _installed_memory(), None
    total, available = (1024 * int(kilobytes[name]) for name in ("MemTotal", "MemAvailable"))
    limit, used = _limit("memory.max"), _limit("memory.current")
    if limit.isdecimal() and used.isdecimal():
        total = min(total, int(limit))
        available = min(available, max(0, int(limit) - int(used)))
    return total, available


def _installed_memory() -> int | None:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _limit(name: str) -> str:
    """Return a limit of the container, or an empty text."""
    with contextlib.suppress(OSError):
        return (_CONTROL_GROUP / name).read_text(encoding="utf-8").strip()
    return ""


def _temporary() -> tuple[str | None, int | None]:
    try:
        folder = tempfile.gettempdir()
        with tempfile.TemporaryFile(dir=folder):
            return folder, shutil.disk_usage(folder).free
    except OSError:
        return None, None
