"""What a benchmark measured, as frozen values; ``to_dict()`` is the stable JSON form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["BenchReport", "Footprint", "Latency", "Setting", "Speed"]


@dataclass(frozen=True)
class Setting:
    """Under which conditions models are timed.

    Attributes:
        provider: Execution provider.
        level: Optimization level of the runtime.
        threads: Threads inside an operator; 0 for the runtime's own choice.
        batch: Number of samples: the first dimension of the inputs; None where they differ in it.
        shapes: Shape of every input.
    """

    provider: str
    level: str
    threads: int
    batch: int | None
    shapes: dict[str, tuple[int, ...]]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "provider": self.provider,
            "level": self.level,
            "threads": self.threads,
            "batch": self.batch,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
        }


@dataclass(frozen=True)
class Latency:
    """How long one run takes, in milliseconds.

    Attributes:
        median: Over all rounds.
        low: 5th percentile.
        high: 95th percentile.
        runs: Number of runs that were timed.
    """

    median: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True)
class Speed:
    """One model under one setting, against the first model of the benchmark.

    Attributes:
        model: Path as given.
        setting: The conditions.
        latency: How long a run takes.
        ratio: Latency over that of the first model, round by round, the median of all rounds; None
            for the first model itself.
        interval: The 99 % confidence interval (bootstrap) of ``ratio``, or None.
    """

    model: str
    setting: Setting
    latency: Latency
    ratio: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def throughput(self) -> float | None:
        """Samples per second, or None where it is not known what a sample is."""
        batch = self.setting.batch
        return None if batch is None else 1000.0 * batch / self.latency.median

    @property
    def verdict(self) -> str | None:
        """``faster``, ``slower`` or ``no difference measured``; None for the first model."""
        if self.interval is None:
            return None
        if self.interval[1] < 1.0:
            return "faster"
        return "slower" if self.interval[0] > 1.0 else "no difference measured"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "model": self.model,
            **self.setting.to_dict(),
            "latency_ms": {
                "median": self.latency.median,
                "p5": self.latency.low,
                "p95": self.latency.high,
                "runs": self.latency.runs,
            },
            "throughput": self.throughput,
            "ratio": self.ratio,
            "interval": None if self.interval is None else list(self.interval),
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Footprint:
    """What a model costs besides time, measured in processes of its own.

    Attributes:
        model: Path as given.
        provider: Execution provider.
        load_ms: Median time to create a session, in milliseconds; the file is in the page cache.
        memory_bytes: Median of the largest resident memory of the process, for loading and one run,
            less what it was before. Memory of a GPU is not in it.
    """

    model: str
    provider: str
    load_ms: float
    memory_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "model": self.model,
            "provider": self.provider,
            "load_ms": self.load_ms,
            "memory_bytes": self.memory_bytes,
        }


@dataclass(frozen=True)
class BenchReport:
    """Everything that a benchmark has to say.

    Attributes:
        speeds: For each setting, each model in the order given.
        footprints: For each provider, each model in the order given.
        environment: Versions and machine.
    """

    speeds: tuple[Speed, ...]
    footprints: tuple[Footprint, ...]
    environment: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "environment": dict(self.environment),
            "speeds": [speed.to_dict() for speed in self.speeds],
            "footprints": [footprint.to_dict() for footprint in self.footprints],
        }
