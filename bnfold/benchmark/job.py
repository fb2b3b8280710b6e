"""The part of a benchmark that runs in the child process: inputs, sessions, rounds."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from bnfold.benchmark.report import Setting, Speed
from bnfold.errors import InputError, ModelError
from bnfold.progress import Progress, Step

if TYPE_CHECKING:
    from bnfold.benchmark.interval import Floats
    from bnfold.benchmark.timing import TimedSession
    from bnfold.check.models.model import Model, ValueSpec

__all__ = ["BenchJob", "Sized"]

_LOADINGS = 6


@dataclass(frozen=True)
class Sized:
    """Inputs that were found for a setting."""

    setting: Setting
    arrays: Mapping[str, Any]


@dataclass(frozen=True)
class BenchJob:
    """Arguments of :func:`bnfold.bench` for one provider; learns a `Sized` before its `Speed`s."""

    models: tuple[str, ...]
    provider: str
    level: str
    batches: tuple[int, ...] = ()
    threads: tuple[int, ...] = (0,)
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 5.0
    seed: int = 0

    def run(self, *, progress: Progress, learned: Callable[[Sized | Speed], None]) -> None:
        """Time all models under all settings, in this process."""
        from bnfold.check.models.model import interface_difference, open_model  # noqa: PLC0415
        from bnfold.check.runtimes.providers import resolve_provider  # noqa: PLC0415

        provider = resolve_provider(self.provider)
        models = [open_model(path, "model") for path in self.models]
        for other in models[1:]:
            why = interface_difference(models[0], other)
            if why is not None:
                raise InputError(
                    f"{other.label} cannot take the place of {models[0].label}: {why}",
                    hint="time models with the same inputs and outputs",
                )
        for sized in self._settings(models[0], provider):
            learned(sized)
            for speed in self._time(models, sized, progress):
                learned(speed)

    def _settings(self, model: Model, provider: str) -> Iterator[Sized]:
        from bnfold.check.feeds.feed import apply_shapes  # noqa: PLC0415

        specs = apply_shapes(model.inputs, self.inputs, self.dims)
        open_batch = any(_is_open(spec) for spec in specs)
        if self.batches and not open_batch:
            raise InputError(
                f"{model.label}: no input leaves its first dimension open",
                hint="leave --batch out, or give whole shapes with --input",
            )
        batches: tuple[int | None, ...] = (self.batches or (1,)) if open_batch else (None,)
        for batch in batches:
            arrays = self._draw(model, provider, _with_batch(specs, batch))
            shapes = {name: tuple(getattr(value, "shape", ())) for name, value in arrays.items()}
            for threads in self.threads:
                setting = Setting(provider, self.level, threads, _batch(shapes), shapes)
                yield Sized(setting, arrays)

    def _draw(self, model: Model, provider: str, specs: list[ValueSpec]) -> Mapping[str, Any]:
        from bnfold.check.feeds.drawing import random_feeds  # noqa: PLC0415
        from bnfold.check.feeds.hints import find_hints  # noqa: PLC0415
        from bnfold.check.runtimes.sessions import (  # noqa: PLC0415
            UNOPTIMIZED,
            OrtRunner,
            RunError,
            refusal,
        )

        try:
            runner = OrtRunner(model, provider, UNOPTIMIZED)
        except RunError as error:
            raise ModelError(f"{model.label}: it does not load: {error}") from error

        hints = find_hints(model.skeleton.proto, [spec.name for spec in specs])
        # One of the first two has the smallest sizes that run.
        feeds = random_feeds(specs, hints, self.seed, lambda feed: refusal(runner, feed.arrays))
        return min((feed.arrays for feed in feeds[:2]), key=_elements)

    def _time(self, models: list[Model], sized: Sized, progress: Progress) -> Iterator[Speed]:
        from bnfold.benchmark.interval import ratio_interval, summarize  # noqa: PLC0415
        from bnfold.benchmark.timing import time_in_turns  # noqa: PLC0415

        setting = sized.setting
        what = setting.provider
        what += "" if setting.batch is None else f", batch {setting.batch}"
        what += f", {setting.threads} threads" if setting.threads else ""
        loadings: list[Floats] = []
        count = _LOADINGS
        while len(loadings) < count:
            progress(f"{what}: loading")
            number = len(loadings)
            start = time.perf_counter()
            sessions = _load(models, sized, first=number % len(models))
            if not number:
                count = _loadings(self.seconds * len(models), time.perf_counter() - start)
            tell = partial(_tell, progress, f"{what}: loading {number + 1} of {count}")
            loadings.append(time_in_turns(sessions, self.seconds / count, self.seed + number, tell))
            del sessions  # before they are loaded again
        for at, model in enumerate(models):
            ratio, interval = None, None
            mine = [rounds[:, at] for rounds in loadings]
            if at:
                ratio, interval = ratio_interval(
                    mine, [rounds[:, 0] for rounds in loadings], self.seed
                )
            yield Speed(model.label, setting, summarize(mine), ratio, interval)


def _load(models: list[Model], sized: Sized, first: int) -> list[TimedSession]:
    """Create the sessions in turn, from one on: which comes first decides where weights lie."""
    from bnfold.benchmark.timing import TimedSession  # noqa: PLC0415
    from bnfold.check.runtimes.sessions import RunError  # noqa: PLC0415

    sessions: dict[int, TimedSession] = {}
    for at in (*range(first, len(models)), *range(first)):
        try:
            sessions[at] = TimedSession(models[at], sized.setting, sized.arrays)
        except RunError as error:
            raise ModelError(f"{models[at].label}: it does not run: {error}") from error
    return [sessions[at] for at in range(len(models))]


def _tell(progress: Progress, what: str, done: int, total: int) -> None:
    progress(Step(f"{what}, round {done}", done, total))


def _loadings(seconds: float, load_seconds: float) -> int:
    """How often to load the models, so that it takes no longer than timing them."""
    return max(1, min(_LOADINGS, int(seconds / load_seconds)))


def _elements(arrays: Mapping[str, Any]) -> int:
    return sum(getattr(value, "size", 0) for value in arrays.values())


def _is_open(spec: ValueSpec) -> bool:
    return spec.shape is not None and spec.shape[:1] != () and not isinstance(spec.shape[0], int)


def _batch(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    sizes = {shape[0] for shape in shapes.values() if len(shape) > 1}
    return sizes.pop() if len(sizes) == 1 else None


def _with_batch(specs: Sequence[ValueSpec], batch: int | None) -> list[ValueSpec]:
    """Give the open first dimensions a size, and wherever else the same symbol stands."""
    if batch is None:
        return list(specs)
    symbols = {spec.shape[0] for spec in specs if spec.shape and isinstance(spec.shape[0], str)}
    return [
        dataclasses.replace(
            spec,
            shape=tuple(
                batch if dim in symbols or (axis == 0 and dim is None) else dim
                for axis, dim in enumerate(spec.shape)
            ),
        )
        if spec.shape
        else spec
        for spec in specs
    ]
