"""One provider, both optimization levels, all feeds: who is compared with whom.

The logic is told in :mod:`bnfold.check`. Noise is measured in two rounds. Every feed is judged by
a few neighbours of the reference; most verdicts stand at once. For a feed that is about to be
rejected more neighbours are run, until it passes or none is left: a rejection says that no rounding
explains the difference, so it has to know what rounding does.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import length_hint

from bnfold.check.exact.judge import Objection, excused, object_to
from bnfold.check.exact.oracle import consult
from bnfold.check.feeds.feed import Feed, milder
from bnfold.check.feeds.hints import Hint
from bnfold.check.models.model import Model
from bnfold.check.models.pairs import Pair
from bnfold.check.runtimes.installed import runtime_name
from bnfold.check.runtimes.sessions import UNOPTIMIZED, RunError, Runner, Value
from bnfold.check.verdict.case import Case
from bnfold.check.verdict.compare import HOPELESS, Tolerance, Truth, failure, fits_range
from bnfold.check.verdict.glimpse import Glimpse, Opinion, glimpse, opinions
from bnfold.check.verdict.noise import NoiseSource, outputs_of
from bnfold.check.verdict.tally import Tally
from bnfold.errors import InputError, ModelError, ProviderError
from bnfold.progress import Step
from bnfold.report import CheckReport

__all__ = ["different", "verify"]

# Drawn feeds beyond the first few are given up after this many seconds.
_PATIENCE = 120.0
_LEAST_FEEDS = 3
# Of more feeds than these, only those that may be rejected stay in memory.
_KEPT_CASES = 16
# How often a feed that overflows is made weaker before it is taken as it is.
_WEAKENINGS = 6
# After this many neighbours with moved weights, a difference of this many times what is allowed
# is no longer worth more of them.
_ENOUGH_WEIGHTS = 2
_LATE_HOPELESS = 4.0
# More elements than these do not hang on a rounding; and how many feeds are looked at for that.
_FEW = 0.1
_MAX_EXCUSED = 12
# A runtime's other kernels and fusions round otherwise than those of the first level; a misfold is
# orders of magnitude away. What lies between is not worth a warning.
_CLEAR_CHANGE = 4.0


def different(
    outputs: Sequence[str], provider: str, level: str, why: str, *, warnings: tuple[str, ...] = ()
) -> CheckReport:
    """Return the report for two models that cannot be compared number by number."""
    return CheckReport(
        provider=provider,
        level=level,
        equivalent=False,
        outputs=tuple(failure(why).named(name) for name in outputs),
        warnings=warnings,
        detail=why,
    )


def verify(
    pair: Pair,
    feeds: Iterable[Feed],
    hints: Mapping[str, Hint],
    *,
    tolerance: Mapping[str, Tolerance] | Tolerance | None,
    seed: int,
    progress: Callable[[str], None] | None,
    oracle: bool = False,
) -> tuple[list[CheckReport], Feed | None]:
    """Compare the pair on all feeds at every level.

    Args:
        pair: The models, from :func:`bnfold.check.models.pairs.open_pair`.
        feeds: What to feed; drawn feeds that the reference does not run are left out.
        hints: Advice by input name.
        tolerance: A caller's rule in place of the noise rule: for all outputs, or by name for some.
        seed: Where the random numbers of the noise start.
        progress: Called with what is being done, in a few words.
        oracle: Ask for each output which model is nearer to the result in float64, on its worst
            feed.

    Returns:
        One report for each level, and the worst feed that any of them rejects.

    Raises:
        InputError: The reference does not run on a caller's own data.
    """
    tell = progress or (lambda _: None)
    names = [output.name for output in pair.reference.outputs]
    tallies = [Tally(level, names) for level in pair.levels]
    if isinstance(tolerance, Mapping):
        rules = [tolerance.get(name) for name in names]
    else:
        rules = [tolerance] * len(names)
    noise = NoiseSource(pair, hints, seed)
    cases = _first_round(pair, feeds, hints, rules, noise, tallies, tell)
    _second_round(cases, noise, lambda text: tell(f"{pair.provider}: {text}"))
    _excuse(pair, cases, names, seed)
    for case in cases:
        _enter(case, tallies)
    free = [name for name, rule in zip(names, rules, strict=True) if rule is None]
    if free and _all_pass(tallies):
        tell(f"{pair.provider}: comparing the models part by part in float64")
        objection = _second_opinion(pair, cases, noise, seed)
        if objection is not None:
            for tally in tallies:
                tally.object(objection, free)
    if oracle:
        for tally in tallies:
            tell(f"{pair.provider}: asking the oracle at level {tally.level}")
            _ask_oracle(pair, tally)
    reports = [tally.report(pair.provider, pair.warnings) for tally in tallies]
    rejected = [
        entry for tally in tallies for entry in tally.worst.values() if not entry[0].equivalent
    ]
    worst = max(rejected, key=lambda entry: entry[0].severity, default=None)
    return reports, worst[1] if worst else None


def _excuse(pair: Pair, cases: Sequence[Case], names: Sequence[str], seed: int) -> None:
    """Let few differences pass where rounding decides by a jump, and say so."""
    for case in cases[:_MAX_EXCUSED]:
        failed = [part for findings in case.findings for part in findings if not part.equivalent]
        if not failed or any(part.share > _FEW for part in failed) or any(case.rules):
            continue
        good = excused(pair.reference, pair.candidate, case.feed, seed=seed)
        for findings in case.findings:
            for position, finding in enumerate(findings):
                if not finding.equivalent and names[position] in good:
                    detail = f"unstable: {finding.detail or 'few elements differ'}; from the same "
                    detail += "values on both models choose the same, so that rounding decides"
                    findings[position] = dataclasses.replace(
                        finding, equivalent=True, detail=detail, allowed=finding.difference
                    )


def _all_pass(tallies: Sequence[Tally]) -> bool:
    """True if there is something that passes, and nothing that does not."""
    entries = [finding for tally in tallies for finding, _ in tally.worst.values()]
    return bool(entries) and all(finding.equivalent for finding in entries)


def _second_opinion(
    pair: Pair, cases: Sequence[Case], noise: NoiseSource, seed: int
) -> Objection | None:
    positions = {id(case.feed): case.index for case in cases}
    return object_to(
        pair.reference,
        pair.candidate,
        [case.feed for case in cases],
        seed=seed,
        runners=lambda: (pair.truth, pair.open(pair.candidate, UNOPTIMIZED)),
        neighbours=lambda feed: list(noise.first(feed, positions[id(feed)])),
    )


def _first_round(
    pair: Pair,
    feeds: Iterable[Feed],
    hints: Mapping[str, Hint],
    rules: Sequence[Tolerance | None],
    noise: NoiseSource,
    tallies: Sequence[Tally],
    tell: Callable[[str], None],
) -> list[Case]:
    tell(f"{pair.provider}: loading the models at level {' and '.join(pair.levels)}")
    candidates = [_try_open(pair, pair.candidate, level) for level in pair.levels]
    optimized = _try_open(pair, pair.reference, pair.levels[1]) if len(pair.levels) > 1 else None
    cases: list[Case] = []
    refusals: list[RunError] = []
    start = time.monotonic()
    for index, feed in enumerate(feeds):
        total = length_hint(feeds)
        of = f" of {total}" if total else ""
        tell(Step(f"{pair.provider}: feed {index + 1}{of}, {feed.name}", index, total or None))
        if index >= _LEAST_FEEDS and not feed.given and time.monotonic() - start > _PATIENCE:
            for tally in tallies:
                tally.warn(f"the models are slow: {index}{of} feeds were compared")
            break
        try:
            used, values = _run_within_range(pair.truth, feed, hints)
        except RunError as error:
            if feed.given and not error.out_of_memory:
                message = f"{feed.name}: the reference does not run on it: {error}"
                raise InputError(message) from error
            refusals.append(error)
            continue
        outcomes = [_try_run(runner, used) for runner in candidates]
        exhausted = [o for o in outcomes if isinstance(o, RunError) and o.out_of_memory]
        if exhausted:
            refusals += exhausted
            continue
        case = Case(
            index,
            used,
            [Truth(value) for value in values],
            outcomes,
            None if optimized is None else _try_run(optimized, used),
            rules,
            [_glimpses(values, outcome) for outcome in outcomes],
            # A weaker feed is not the one that the expected outputs came with.
            [_opinions(pair, used, values, o) if used is feed else [] for o in outcomes],
        )
        case.learn(noise.first(used, index))
        settled = not case.doubtful()
        if settled:
            case.forget()
        if settled and case.passes and len(cases) >= _KEPT_CASES:
            _enter(case, tallies)
        else:
            cases.append(case)
    _account_for(refusals, pair, tallies, compared=tallies[0].feeds + len(cases))
    return cases


def _account_for(
    refusals: Sequence[RunError], pair: Pair, tallies: Sequence[Tally], *, compared: int
) -> None:
    """Say which feeds were left out for want of memory; where none is left, nothing is proved.

    Raises:
        ProviderError: No feed fits into the memory of the device.
        ModelError: The reference runs on none of them.
    """
    exhausted = [error for error in refusals if error.out_of_memory]
    if compared:
        for tally in tallies if exhausted else ():
            count = len(exhausted)
            tally.warn(f"{count} feeds were left out: {pair.provider} has no memory for them")
        return
    if exhausted:
        raise ProviderError(
            f"{pair.reference.label}: no feed fits into the memory of {pair.provider}: "
            f"{exhausted[0]}",
            hint="ask for smaller inputs with --input or --dim",
        )
    why = f": {refusals[0]}" if refusals else ""
    raise ModelError(
        f"{pair.reference.label}: the original itself ran on none of the inputs{why}",
        hint="give values with --data",
    )


def _glimpses(values: Sequence[Value], outcome: list[Value] | RunError) -> list[Glimpse]:
    others = outcome if isinstance(outcome, list) else [None] * len(values)
    return [glimpse(value, other) for value, other in zip(values, others, strict=True)]


def _opinions(
    pair: Pair, feed: Feed, values: Sequence[Value], outcome: list[Value] | RunError
) -> list[Opinion]:
    names = [output.name for output in pair.reference.outputs]
    expected: Mapping[str, Value] | None = feed.expected
    others = outcome if isinstance(outcome, list) else None
    return opinions(names, feed.name, expected, values, others)


def _ask_oracle(pair: Pair, tally: Tally) -> None:
    """Ask about every output on the feed that was worst for it."""
    runner = _try_open(pair, pair.candidate, tally.level)
    feeds = {id(feed): feed for _, feed in tally.worst.values()}
    for feed in feeds.values():
        outcome = _try_run(runner, feed)
        if isinstance(outcome, RunError):
            continue
        found = consult(pair.reference, pair.candidate, feed, pair.truth.run(feed.arrays), outcome)
        for name, opinion in zip(tally.names, found, strict=True):
            if tally.worst[name][1] is feed:
                tally.oracle[name] = opinion


def _second_round(cases: Sequence[Case], noise: NoiseSource, tell: Callable[[str], None]) -> None:
    doubtful = [case for case in cases if case.truths and case.doubtful()]
    for case in doubtful:
        tell(f"looking closer at {case.feed.name}")
        case.learn(noise.more_inputs(case.feed, case.index))
    doubtful = [case for case in doubtful if case.doubtful()]
    if not doubtful:
        return
    for draw, runner in enumerate(noise.weights()):
        tell(f"looking closer with other weights, {draw + 1}")
        for case in doubtful:
            case.learn(outputs_of(runner, case.feed))
        hopeless = HOPELESS if draw + 1 < _ENOUGH_WEIGHTS else _LATE_HOPELESS
        doubtful = [case for case in doubtful if case.doubtful(hopeless)]
        if not doubtful:
            return


def _enter(case: Case, tallies: Sequence[Tally]) -> None:
    """Count the final findings of one feed."""
    if len(tallies) > 1:
        _warn_about_runtime(case, tallies[-1])
    for tally, outcome, findings, glimpses, found in zip(
        tallies, case.candidates, case.findings, case.glimpses, case.opinions, strict=True
    ):
        if isinstance(outcome, RunError):
            if tally.level != UNOPTIMIZED and isinstance(case.own, RunError):
                tally.detail = f"neither model runs at this level: {outcome}"
                continue
            tally.detail = f"the candidate does not run: {outcome}"
        tally.add(case.feed, findings, glimpses, found)


def _warn_about_runtime(case: Case, tally: Tally) -> None:
    if isinstance(case.own, RunError):
        tally.warn(f"{runtime_name()} does not run the original at level {tally.level}: {case.own}")
        return
    for name, finding in zip(tally.names, case.changes, strict=True):
        start = f"{runtime_name()} itself changes output '{name}' of the original"
        clear = finding.difference > _CLEAR_CHANGE * finding.allowed
        if finding.equivalent or not clear or any(w.startswith(start) for w in tally.warnings):
            continue
        how = f"difference {finding.difference:.2g}, where {finding.allowed:.2g} would be rounding"
        if not math.isfinite(finding.difference):
            how = str(finding.detail)
        tally.warn(f"{start} at level {tally.level}: {how}")


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
