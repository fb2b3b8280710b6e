"""One provider, both optimization levels, all feeds: who is compared with whom.

The logic is told in :mod:`bnfold.check`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bnfold.check.compare import Finding, Tolerance, Truth, failure, fits_range
from bnfold.check.draws import Array
from bnfold.check.feeds import Feed, milder
from bnfold.check.hints import Hint
from bnfold.check.model import Model
from bnfold.check.noise import NoiseSource
from bnfold.check.sessions import (
    LEVELS,
    REFERENCE_EVALUATOR,
    OrtRunner,
    ReferenceRunner,
    RunError,
    Runner,
    Value,
    invalid,
    runtime_name,
)
from bnfold.errors import InputError, ModelError
from bnfold.report import CheckReport

__all__ = ["NOT_COMPARABLE", "Pair", "different", "open_pair", "verify"]

NOT_COMPARABLE = "what cannot run cannot be compared; --no-check folds without a proof"

# Drawn feeds beyond the first few are given up after this many seconds.
_PATIENCE = 120.0
_LEAST_FEEDS = 3
# How often a feed that overflows is made weaker before it is taken as it is.
_WEAKENINGS = 4


@dataclass(frozen=True)
class Pair:
    """Both models on one provider.

    Attributes:
        reference: The original.
        candidate: What is to be proved equal to it.
        provider: Execution provider, or ``onnx.reference``.
        truth: The reference at the first level, ready to run.
        refusal: Why the runtime does not run the reference, so that the evaluator does; or None.
    """

    reference: Model
    candidate: Model
    provider: str
    truth: Runner
    refusal: str | None = None

    @property
    def levels(self) -> tuple[str, ...]:
        """The optimization levels; the reference evaluator optimizes nothing."""
        return LEVELS[:1] if self.provider == REFERENCE_EVALUATOR else LEVELS

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader has to know about how the models run."""
        if self.refusal is None:
            return ()
        return (
            f"{runtime_name()} cannot run the reference ({self.refusal}); the ONNX reference "
            "evaluator ran both models instead",
        )

    def open(
        self, model: Model, level: str, overrides: Mapping[str, Array] | None = None
    ) -> Runner:
        """Make a model ready on the provider.

        Raises:
            RunError: It cannot be made ready.
        """
        if self.provider == REFERENCE_EVALUATOR:
            # The evaluator runs much that is not valid: only a runtime would have said so.
            if model is self.candidate and invalid(self.reference) is None:
                why = invalid(model)
                if why is not None:
                    raise RunError(f"it is not a valid model: {why}")
            return ReferenceRunner(model, overrides)
        return OrtRunner(model, self.provider, level, overrides)


def open_pair(reference: Model, candidate: Model, provider: str) -> Pair:
    """Make the reference ready: by the runtime, else by the ONNX reference evaluator.

    Raises:
        ModelError: Neither of the two runs the reference.
    """
    try:
        return Pair(reference, candidate, provider, OrtRunner(reference, provider, LEVELS[0]))
    except RunError as error:
        try:
            evaluator = ReferenceRunner(reference)
        except RunError:
            raise ModelError(
                f"{reference.label}: the original itself does not run on {provider}: {error}",
                hint=NOT_COMPARABLE,
            ) from error
        return Pair(reference, candidate, REFERENCE_EVALUATOR, evaluator, str(error))


def different(pair_outputs: Sequence[str], provider: str, level: str, why: str) -> CheckReport:
    """Return the report for two models that cannot be compared number by number."""
    return CheckReport(
        provider=provider,
        level=level,
        equivalent=False,
        outputs=tuple(failure(why).named(name) for name in pair_outputs),
        detail=why,
    )


@dataclass
class _Tally:
    """The worst finding for each output at one level."""

    level: str
    names: Sequence[str]
    worst: dict[str, tuple[Finding, Feed]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    detail: str | None = None
    feeds: int = 0

    def add(self, feed: Feed, findings: Sequence[Finding]) -> None:
        self.feeds += 1
        for name, finding in zip(self.names, findings, strict=True):
            if finding.detail:
                self.notes.setdefault(name, finding.detail)
            if name not in self.worst or finding.severity > self.worst[name][0].severity:
                self.worst[name] = (finding, feed)

    def warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def report(self, provider: str, warnings: Sequence[str]) -> CheckReport:
        outputs = []
        for name, (finding, _) in self.worst.items():
            note = finding.detail or self.notes.get(name)
            outputs.append(dataclasses.replace(finding, detail=note).named(name))
        return CheckReport(
            provider=provider,
            level=self.level,
            equivalent=all(output.equivalent for output in outputs),
            outputs=tuple(outputs),
            feeds=self.feeds,
            warnings=(*warnings, *self.warnings),
            detail=self.detail,
        )


class _Levels:
    """Everything that runs beside the truth, and what came of it."""

    def __init__(self, pair: Pair, tolerance: Tolerance | None) -> None:
        self.pair = pair
        self.tolerance = tolerance
        self.names = [spec.name for spec in pair.reference.outputs]
        self.tallies = [_Tally(level, self.names) for level in pair.levels]
        self.candidates = [_try_open(pair, pair.candidate, level) for level in pair.levels]
        self._changed: set[str] = set()
        self.optimized: Runner | RunError | None = None
        if len(pair.levels) > 1:
            self.optimized = _try_open(pair, pair.reference, pair.levels[1])

    def judge(self, feed: Feed, truths: Sequence[Truth], source: Iterator[list[Value]]) -> None:
        """Compare all that there is to compare on one feed.

        Args:
            feed: The values.
            truths: The reference's outputs at the first level, with noise.
            source: Outputs of further neighbours of the reference; asked for before a rejection
                that they could change.
        """
        outcomes = [_try_run(runner, feed) for runner in self.candidates]
        own = None if self.optimized is None else _try_run(self.optimized, feed)
        findings = self._findings(truths, outcomes, own)
        compared = (
            part
            for outcome, part in zip(outcomes, findings, strict=True)
            if not isinstance(outcome, RunError)
        )
        if any(finding.doubtful for part in compared for finding in part):
            for outputs in source:
                _add_neighbour(truths, outputs)
            findings = self._findings(truths, outcomes, own)
        self._warn_about_runtime(truths, own)
        for tally, outcome, part in zip(self.tallies, outcomes, findings, strict=True):
            if isinstance(outcome, RunError):
                if isinstance(own, RunError) and tally.level != LEVELS[0]:
                    tally.detail = f"neither model runs at this level: {outcome}"
                    continue
                tally.detail = f"the candidate does not run: {outcome}"
            tally.add(feed, part)

    def _findings(
        self,
        truths: Sequence[Truth],
        outcomes: Sequence[list[Value] | RunError],
        own: list[Value] | RunError | None,
    ) -> list[list[Finding]]:
        found = []
        for tally, outcome in zip(self.tallies, outcomes, strict=True):
            if isinstance(outcome, RunError):
                why = failure(f"the candidate does not run: {outcome}")
                found.append([why] * len(truths))
                continue
            findings = self._compare(truths, outcome)
            if tally.level != LEVELS[0] and isinstance(own, list):
                rebased = [t.rebased(value) for t, value in zip(truths, own, strict=True)]
                others = self._compare(rebased, outcome)
                findings = [
                    min(pair, key=lambda finding: finding.severity)
                    for pair in zip(findings, others, strict=True)
                ]
            found.append(findings)
        return found

    def _compare(self, truths: Sequence[Truth], values: Sequence[Value]) -> list[Finding]:
        return [t.compare(v, self.tolerance) for t, v in zip(truths, values, strict=True)]

    def _warn_about_runtime(
        self, truths: Sequence[Truth], own: list[Value] | RunError | None
    ) -> None:
        if own is None:
            return
        tally = self.tallies[-1]
        if isinstance(own, RunError):
            tally.warn(f"{runtime_name()} does not run the original at its default level: {own}")
            return
        for name, finding in zip(self.names, self._compare(truths, own), strict=True):
            if not finding.equivalent and name not in self._changed:
                self._changed.add(name)
                tally.warn(
                    f"{runtime_name()} itself changes output '{name}' of the original at its "
                    f"default level: difference {finding.difference:.2g}, where "
                    f"{finding.allowed:.2g} would be rounding"
                )


def verify(
    pair: Pair,
    feeds: Sequence[Feed],
    hints: Mapping[str, Hint],
    *,
    tolerance: Tolerance | None,
    seed: int,
    progress: Callable[[str], None] | None,
) -> tuple[list[CheckReport], Feed | None]:
    """Compare the pair on all feeds at every level.

    Args:
        pair: The models, from :func:`open_pair`.
        feeds: What to feed; drawn feeds that the reference does not run are left out.
        hints: Advice by input name.
        tolerance: A caller's rule in place of the noise rule.
        seed: Where the random numbers of the noise start.
        progress: Called before each feed with what is being done.

    Returns:
        One report for each level, and the worst feed that any of them rejects.

    Raises:
        InputError: The reference does not run on a caller's own data.
    """
    levels = _Levels(pair, tolerance)
    noise = NoiseSource(
        pair.reference,
        pair.truth,
        lambda overrides: pair.open(pair.reference, LEVELS[0], overrides),
        hints,
        seed,
    )
    start = time.monotonic()
    for index, feed in enumerate(feeds):
        if progress is not None:
            progress(f"{pair.provider}: feed {index + 1} of {len(feeds)}, {feed.name}")
        if index >= _LEAST_FEEDS and not feed.given and time.monotonic() - start > _PATIENCE:
            for tally in levels.tallies:
                tally.warn(f"the models are slow: {index} of {len(feeds)} feeds were compared")
            break
        try:
            used, values = _run_within_range(pair.truth, feed, hints)
        except RunError as error:
            if feed.given:
                message = f"{feed.name}: the reference does not run on it: {error}"
                raise InputError(message) from error
            continue
        truths = [Truth(value) for value in values]
        for outputs in noise.first(used, index):
            _add_neighbour(truths, outputs)
        levels.judge(used, truths, noise.further(used, index))
    reports = [tally.report(pair.provider, pair.warnings) for tally in levels.tallies]
    rejected = [
        entry
        for tally in levels.tallies
        for entry in tally.worst.values()
        if not entry[0].equivalent
    ]
    worst = max(rejected, key=lambda entry: entry[0].severity, default=None)
    return reports, worst[1] if worst else None


def _run_within_range(
    truth: Runner, feed: Feed, hints: Mapping[str, Hint]
) -> tuple[Feed, list[Value]]:
    """Run the reference, on weaker values where a drawn feed makes it overflow.

    Close to the largest number of a type it is chance whether a sum overflows.
    """
    values = truth.run(feed.arrays)
    if feed.given or fits_range(values):
        return feed, values
    weaker = feed
    for _ in range(_WEAKENINGS):
        weaker = milder(weaker, hints)
        outcome = _try_run(truth, weaker)
        if isinstance(outcome, list) and fits_range(outcome):
            return weaker, outcome
    return feed, values


def _add_neighbour(truths: Sequence[Truth], outputs: Sequence[Value]) -> None:
    for truth, value in zip(truths, outputs, strict=True):
        truth.add_neighbour(value)


def _try_open(pair: Pair, model: Model, level: str) -> Runner | RunError:
    try:
        return pair.open(model, level)
    except RunError as error:
        return error


def _try_run(runner: Runner | RunError, feed: Feed) -> list[Value] | RunError:
    if isinstance(runner, RunError):
        return runner
    try:
        return runner.run(feed.arrays)
    except RunError as error:
        return error
