"""Load time and peak memory of a model, in a process that has done nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnfold.benchmark.report import Setting
from bnfold.progress import Progress

__all__ = ["FootprintJob"]


@dataclass(frozen=True)
class FootprintJob:
    """Loads a model and runs it once; learns (milliseconds to load, bytes of memory).

    Attributes:
        model: Path.
        setting: The conditions.
        arrays: The inputs.
    """

    model: str
    setting: Setting
    arrays: Mapping[str, Any]

    def run(self, *, progress: Progress, learned: Callable[[tuple[float, int]], None]) -> None:
        """Do it in this process."""
        from bnfold.benchmark.timing import TimedSession  # noqa: PLC0415 - not part of the memory
        from bnfold.check.models.model import open_model  # noqa: PLC0415
        from bnfold.check.runtimes.installed import require_runtime  # noqa: PLC0415

        require_runtime()
        model = open_model(self.model, "model")
        progress(f"{self.model}: loading")
        before = _peak_memory()
        start = time.perf_counter()
        session = TimedSession(model, self.setting, self.arrays)
        loaded = (time.perf_counter() - start) * 1e3
        session.run()
        learned((loaded, _peak_memory() - before))


def _peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        import resource  # noqa: PLC0415 - no such module on Windows
        import sys  # noqa: PLC0415

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    # Not ru_maxrss: on Linux that of a child starts with that of its parent.
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
