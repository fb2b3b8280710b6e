"""What TF32 does to a candidate on CUDA, beside the verdict, which is made without it.

TF32 rounds the operands of convolutions and matrix products to 10 bits. CUDA uses it unless it is
told not to, so that a deployment may compute with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from bnfold.check.feeds.feed import Feed
from bnfold.check.feeds.hints import Hints
from bnfold.check.models.pairs import Pair
from bnfold.check.runtimes.sessions import OrtRunner, RunError, Value
from bnfold.check.verdict.compare import Finding, Truth, failure
from bnfold.check.verdict.noise import NoiseSource
from bnfold.report import OutputComparison

__all__ = ["measure_tf32"]

_FEEDS = 3


def measure_tf32(
    pair: Pair, level: str, feeds: Iterable[Feed], hints: Hints, seed: int
) -> tuple[OutputComparison, ...]:
    """Compare the candidate with TF32 with the reference without it.

    Args:
        pair: The models, on CUDA.
        level: Optimization level of the candidate.
        feeds: What to feed; the first few of them are used.
        hints: Advice by input name.
        seed: Where the random numbers of the noise start.

    Returns:
        The largest difference for each output that noise does not explain.
    """
    names = [output.name for output in pair.reference.outputs]
    noise = NoiseSource(pair, hints, seed)
    worst = [Finding(True) for _ in names]
    try:
        candidate = OrtRunner(pair.candidate, pair.provider, level, tf32=True)
        for index, feed in enumerate(itertools.islice(feeds, _FEEDS)):
            found = _compare(pair, candidate.run(feed.arrays), feed, noise, index)
            worst = [
                max(either, key=lambda finding: finding.severity)
                for either in zip(worst, found, strict=True)
            ]
    except RunError as error:
        worst = [failure(f"it does not run: {error}")] * len(names)
    return tuple(finding.named(name) for name, finding in zip(names, worst, strict=True))


def _compare(
    pair: Pair, values: list[Value], feed: Feed, noise: NoiseSource, index: int
) -> list[Finding]:
    truths = [Truth(value) for value in pair.truth.run(feed.arrays)]
    for neighbour in noise.first(feed, index):
        for truth, value in zip(truths, neighbour, strict=True):
            truth.add_neighbour(value)
    return [truth.compare(value) for truth, value in zip(truths, values, strict=True)]
