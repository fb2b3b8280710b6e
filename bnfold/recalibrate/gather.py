"""Gathers the statistics of a model's normalizations, in the process that runs models.

``precise``
    One pass. Every normalization that is renewed works with the statistics of the batch itself
    while they are gathered, as in training, so that all layers see what they would see with the
    right statistics (Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", arXiv 2105.07576).
``sequential``
    One pass for each level of the network: when a normalization is gathered, all those before it
    work with their new statistics already. The size of the batches does not matter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bnfold.check.models.model import Array, Model, open_model
from bnfold.check.runtimes.installed import require_runtime
from bnfold.check.runtimes.providers import resolve_provider
from bnfold.check.runtimes.sessions import UNOPTIMIZED, RunError, run_error, start_session
from bnfold.errors import InputError, ModelError
from bnfold.graph import shapes
from bnfold.graph.index import Graph, Value
from bnfold.progress import Progress, Step
from bnfold.recalibrate.feeding import Batch, Data, Feeding, Rows, rows_of
from bnfold.recalibrate.instrument import Probe, instrument
from bnfold.recalibrate.moments import Moments
from bnfold.recalibrate.norms import Norm, find_norms, levels
from bnfold.recalibrate.renewal import PRECISE, SEQUENTIAL, Renewal, Rule
from bnfold.recalibrate.state import Checkpoint, Progressed, fingerprint
from bnfold.store import load, to_bytes

__all__ = ["GatherJob", "Gathered"]

_FEWER = "give fewer samples at a time: --batch-size"


@dataclass(frozen=True)
class Gathered:
    """What a pass over the data found.

    Attributes:
        moments: For each normalization, in the order of `find_norms`.
        samples: Rows that went in.
        batches: Batches that they came in.
        provider: What ran the model.
    """

    moments: tuple[Moments, ...]
    samples: int
    batches: int
    provider: str


@dataclass(frozen=True)
class GatherJob:
    """What to gather, as plain data that another process can take over.

    Attributes:
        model: Path of the model.
        provider: Where it runs.
        mode: One of ``MODES``.
        only: Globs on names of normalizations.
        data: Where samples come from.
        rule: What statistics are made of moments; the next level needs them.
        state: File for what has been gathered so far, or None.
        resume: True to go on with what that file has.
        feeds: Samples in memory, in place of files.
    """

    model: str
    provider: str = "cpu"
    mode: str = PRECISE
    only: tuple[str, ...] = ()
    data: Data = field(default_factory=Data)
    rule: Rule = field(default_factory=Rule)
    state: str | None = None
    resume: bool = False
    feeds: Iterable[Mapping[str, Any]] | None = None

    def run(self, *, progress: Progress, learned: Callable[[Gathered], None]) -> None:
        """Gather.

        Args:
            progress: Called with what is being done.
            learned: Called once, with the result.

        Raises:
            BnfoldError: See :func:`bnfold.recalibrate`.
        """
        provider = resolve_provider(self.provider)
        progress("reading the model")
        learned(_Gatherer(self, provider, progress).gather())

    @property
    def identity(self) -> dict[str, object]:
        """What the moments depend on beside the model."""
        return {
            "mode": self.mode,
            "only": self.only,
            "data": dataclasses.asdict(self.data),
            "rule": dataclasses.asdict(self.rule) if self.mode == SEQUENTIAL else None,
        }


class _Gatherer:
    def __init__(self, job: GatherJob, provider: str, progress: Progress) -> None:
        self.job = job
        self.provider = provider
        self.progress = progress
        self.model = open_model(job.model, "model")
        loaded = self.model.skeleton
        self.graph = Graph(loaded.proto)
        shapes.infer(self.graph)
        self.norms, _ = find_norms(self.graph, loaded.tensors, job.only)
        rows = self._rows()
        self.feeding = Feeding(job.data, self.model.inputs, rows, job.feeds)
        path = None if job.state is None else Path(job.state)
        identity = "" if path is None else fingerprint(loaded, job.identity)
        self.checkpoint = Checkpoint(path, identity)

    def _rows(self) -> Rows:
        specs, values = self.model.inputs, self.graph.main.values
        inputs = {spec.name: _first_axis(values[spec.name]) for spec in specs}
        uses = (node for norm in self.norms for node in norm.nodes)
        return rows_of(specs, inputs, (_first_axis(node.inputs[0]) for node in uses))

    def gather(self) -> Gathered:
        """Run all passes."""
        state = self.checkpoint.load([n.channels for n in self.norms]) if self.job.resume else None
        state = state or Progressed(tuple(Moments.empty(norm.channels) for norm in self.norms))
        passes = [list(range(len(self.norms)))]
        if self.job.mode == SEQUENTIAL:
            passes = levels(self.norms, self.graph)
        batches = 0
        for number, gathered in enumerate(passes):
            if number < state.level:
                continue
            known = {
                index: self._renewed(index, state).stored
                for level in passes[:number]
                for index in level
            }
            state = self._pass(state, gathered, known, (number, len(passes)))
            batches = state.batches
            samples = state.rows
            state = Progressed(state.moments, number + 1)
        return Gathered(state.moments, samples, batches, self.provider)

    def _renewed(self, index: int, state: Progressed) -> Renewal:
        norm, moments = self.norms[index], state.moments[index]
        return self.job.rule.renewed(norm, moments, label=self.model.label)

    def _pass(
        self,
        state: Progressed,
        gathered: Sequence[int],
        known: Mapping[int, tuple[Array, Array]],
        place: tuple[int, int],
    ) -> Progressed:
        """Gather some normalizations over all data."""
        session = _Session(self.model, self.norms, gathered, known, self.provider)
        total = self.feeding.total()
        behind = Progressed(state.moments, state.level)
        for batch in self.feeding:
            seen = Progressed(
                behind.moments,
                behind.level,
                behind.batches + 1,
                behind.rows + batch.rows,
                batch.checksum(behind.checksum),
            )
            if seen.batches <= state.batches:
                behind = seen
                if seen.batches == state.batches and seen.checksum != state.checksum:
                    raise _changed(batch.name)
                continue
            moments = list(behind.moments)
            for index, found in session.run(batch):
                moments[index] = moments[index] + found
            behind = dataclasses.replace(seen, moments=tuple(moments))
            self.checkpoint.save(behind)
            self._tell(behind, total, place)
        if behind.batches < state.batches:
            raise _changed(self.model.label)
        if behind.batches == 0:
            raise InputError(
                f"{self.model.label}: there are no samples", hint="give --data or --data-loader"
            )
        return behind

    def _tell(self, state: Progressed, total: int | None, place: tuple[int, int]) -> None:
        level, count = place
        what = f"gathering: {state.rows} samples"
        if count > 1:
            what = f"level {level + 1} of {count}: {state.rows} samples"
        if total is None:
            self.progress(what)
        else:
            done = min(state.rows, total)
            self.progress(Step(what, level * total + done, count * total))


class _Session:
    """An instrumented copy of the model, ready to run."""

    def __init__(
        self,
        model: Model,
        norms: list[Norm],
        gathered: Sequence[int],
        known: Mapping[int, tuple[Array, Array]],
        provider: str,
    ) -> None:
        self._label = model.label
        self._norms = norms
        copy = load(str(model.path))
        self._probes = instrument(copy.proto, norms, gathered, known)
        self._names = [name for probe in self._probes for name in probe.outputs]
        self._inputs = {spec.name for spec in model.inputs}
        working = dataclasses.replace(model, data=to_bytes(copy), skeleton=copy)
        ort = require_runtime()
        options = ort.SessionOptions()
        options.use_deterministic_compute = True
        try:
            self._session = start_session(working, provider, UNOPTIMIZED, options)
        except RunError as error:
            raise ModelError(
                f"{model.label}: it does not run: {error}",
                hint="the runtime knows opsets from 7 on; convert the model with "
                "onnx.version_converter",
            ) from error
        self._run_options = ort.RunOptions()
        self._run_options.log_severity_level = 4

    def run(self, batch: Batch) -> list[tuple[int, Moments]]:
        """Return the moments of one batch, one for each use of each normalization.

        Raises:
            InputError: The model does not run on this batch, or gives no finite statistics.
        """
        try:
            values = self._session.run(self._names, dict(batch.arrays), self._run_options)
        except Exception as error:  # its classes share no other base
            failed = run_error(error)
            raise InputError(
                f"{batch.name}: the model does not run on {batch.rows} samples of it: {failed}",
                hint=_FEWER if failed.out_of_memory else "give data that fits the inputs",
            ) from error
        return [
            (probe.norm, self._moments(probe, values[at : at + 4], batch))
            for at, probe in zip(range(0, len(values), 4), self._probes, strict=True)
        ]

    def _moments(self, probe: Probe, values: Sequence[Array], batch: Batch) -> Moments:
        centre, shift, variance = (value.astype(np.float64).reshape(-1) for value in values[:3])
        norm = self._norms[probe.norm]
        if not (np.isfinite(centre).all() and np.isfinite(variance).all()):
            channel = int(np.flatnonzero(~np.isfinite(centre + variance))[0])
            raise InputError(
                f"{batch.name}: NaN or infinity in front of '{norm.name}', channel {channel}",
                hint="these samples make the model overflow; take them out",
            )
        if len(centre) != norm.channels:
            raise ModelError(
                f"{self._label}: '{norm.name}' has {norm.channels} channels, "
                f"its input {len(centre)}"
            )
        count = round(float(values[3]))
        return Moments.of_batch(count, centre + shift, variance * count)


def _changed(name: str) -> InputError:
    return InputError(
        f"{name}: the data is not what it was before the interruption",
        hint="start anew without --resume",
    )


def _first_axis(value: Value | None) -> object:
    return None if value is None or not value.shape else value.shape[0]
