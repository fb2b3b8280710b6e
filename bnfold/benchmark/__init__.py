"""How fast models are: latency in turns, throughput, load time, memory."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence

from bnfold.benchmark.footprint import FootprintJob
from bnfold.benchmark.job import BenchJob, Sized
from bnfold.benchmark.report import BenchReport, Footprint, Latency, Setting, Speed
from bnfold.environment import environment
from bnfold.errors import InputError
from bnfold.isolation import run_fresh, run_isolated
from bnfold.levels import LEVELS
from bnfold.progress import Progress, Step

__all__ = ["BenchReport", "Footprint", "Latency", "Setting", "Speed", "bench"]

_FOOTPRINTS = 3


def bench(  # noqa: PLR0913 - one keyword for each option of the command line
    models: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    providers: str | Sequence[str] = ("cpu",),
    level: str = "default",
    batches: Sequence[int] = (),
    threads: Sequence[int] = (0,),
    inputs: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
    seconds: float = 5.0,
    footprint: bool = True,
    seed: int = 0,
    timeout: float | None = None,
    progress: Progress | None = None,
) -> BenchReport:
    """Time models against the first of them.

    All models of a setting run in one process, in turns, so that what disturbs the machine disturbs
    all of them; up to six times they are loaded anew, because where their weights lie in memory
    matters. Nothing is said about what they compute: that is for :func:`bnfold.check`.

    Args:
        models: Paths; the first one is what the others are compared with.
        providers: Where to time; see :func:`bnfold.check`. Work that lands elsewhere is an error.
        level: Optimization level of the runtime, one of :data:`bnfold.levels.LEVELS`.
        batches: Sizes of the first dimension, where the model leaves it open; by default 1.
        threads: Numbers of threads inside an operator; 0 is the runtime's own choice.
        inputs: Shapes by input name; "" names the only input.
        dims: Sizes of symbolic dimensions.
        seconds: How long each model is timed under each setting.
        footprint: Measure load time and memory too, in processes of their own.
        seed: Where the random numbers of inputs and order start.
        timeout: Give up after this many seconds for a setting.
        progress: Called with what is being done.

    Returns:
        Latencies and their ratios with confidence intervals, load times and memory.

    Raises:
        InputError: A file or option cannot be used; the models do not take the same inputs.
        ModelError: A model is not ONNX, or does not run.
        ProviderError: A provider is missing or did not run, the runtime crashed, time is up.
    """
    if isinstance(models, str | os.PathLike):
        models = (models,)
    paths = tuple(os.fspath(model) for model in models)
    if not paths:
        raise InputError("no model to time", hint="give at least one")
    if level not in LEVELS:
        raise InputError(f"unknown level '{level}'", hint=f"choose from {', '.join(LEVELS)}")
    tell = progress or (lambda _: None)
    speeds: list[Speed] = []
    footprints: list[Footprint] = []
    for provider in (providers,) if isinstance(providers, str) else tuple(providers):
        job = BenchJob(
            models=paths,
            provider=provider,
            level=level,
            batches=tuple(batches),
            threads=tuple(threads) or (0,),
            inputs={name: tuple(shape) for name, shape in (inputs or {}).items()},
            dims=dict(dims or {}),
            seconds=seconds,
            seed=seed,
        )
        sized: Sized | None = None
        results: tuple[Sized | Speed, ...] = run_isolated(job, tell, timeout)
        for result in results:
            if isinstance(result, Sized):
                sized = sized or result
            else:
                speeds.append(result)
        if footprint and sized is not None:
            footprints += _footprints(paths, sized, timeout, tell)
    return BenchReport(tuple(speeds), tuple(footprints), environment())


def _footprints(
    paths: Sequence[str], sized: Sized, timeout: float | None, tell: Progress
) -> list[Footprint]:
    """Measure every model some times, each time in a process of its own."""
    found: list[list[tuple[float, int]]] = [[] for _ in paths]
    total = _FOOTPRINTS * len(paths)
    for turn in range(_FOOTPRINTS):
        for at, path in enumerate(paths):
            tell(Step(f"{path}: load time and memory", turn * len(paths) + at, total))
            found[at] += run_fresh(FootprintJob(path, sized.setting, sized.arrays), timeout)
    return [
        Footprint(
            model=path,
            provider=sized.setting.provider,
            load_ms=statistics.median(load for load, _ in values),
            memory_bytes=statistics.median_low(memory for _, memory in values),
        )
        for path, values in zip(paths, found, strict=True)
    ]
