"""Medians, spread, and whether a difference is more than noise.

Two models are timed in turns, so that what disturbs the machine disturbs both. The ratio is taken
round by round. Two things make it uncertain, and both are in its confidence interval:

- Disturbances last longer than a round, so that neighbouring rounds are not independent: within
  one loading of the models a moving block bootstrap (Kuensch 1989, The Annals of Statistics 17)
  draws blocks of about the square root of the number of rounds.
- Where the weights lie in memory makes a model a little faster or slower for as long as it is
  loaded. So the models are loaded several times, and the loadings are drawn as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bnfold.benchmark.report import Latency

__all__ = ["ratio_interval", "summarize"]

Floats = np.ndarray[Any, np.dtype[np.float64]]

_DRAWS = 2000
# On noise, with an effect of the loading and without, this covers 95 % and more: measured with six
# loadings of 60 rounds.
_CONFIDENCE = 0.99


def summarize(milliseconds: Sequence[Floats]) -> Latency:
    """Return the median and the spread of single runs.

    Args:
        milliseconds: For each loading, shape (rounds,).
    """
    together = np.concatenate(milliseconds)
    low, median, high = np.quantile(together, (0.05, 0.5, 0.95))
    return Latency(float(median), float(low), float(high), len(together))


def ratio_interval(
    milliseconds: Sequence[Floats], baseline: Sequence[Floats], seed: int
) -> tuple[float, tuple[float, float]]:
    """Return the ratio of two latencies and its 99 % confidence interval.

    Args:
        milliseconds: For each loading, shape (rounds,); one run in each round.
        baseline: The same of what it was timed beside.
        seed: Where the random numbers start.
    """
    rng = np.random.default_rng(seed)
    logs = [np.log(one) - np.log(other) for one, other in zip(milliseconds, baseline, strict=True)]
    center = float(np.median([np.median(rounds) for rounds in logs]))
    medians = np.stack([_drawn_medians(rounds, rng) for rounds in logs])
    count = len(logs)
    picked = rng.integers(0, count, (_DRAWS, count))
    drawn = np.median(medians[picked, np.arange(_DRAWS)[:, None]], axis=1)
    if count > 1:  # as few as these vary less when they are drawn than they do
        drawn = center + (drawn - center) * math.sqrt(count / (count - 1))
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.exp(np.quantile(drawn, (tail, 1 - tail)))
    return math.exp(center), (float(low), float(high))


def _drawn_medians(logs: Floats, rng: np.random.Generator) -> Floats:
    """Return the medians of rounds drawn in blocks, shape (draws,)."""
    rounds = len(logs)
    block = max(1, round(math.sqrt(rounds)))
    starts = rng.integers(0, rounds - block + 1, (_DRAWS, math.ceil(rounds / block)))
    picked = (starts[..., None] + np.arange(block)).reshape(_DRAWS, -1)[:, :rounds]
    medians: Floats = np.median(logs[picked], axis=1)
    return medians
