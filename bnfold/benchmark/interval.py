"""Medians, spread, and whether a difference is more than noise.

Two models are timed in turns, so that what disturbs the machine disturbs both. The ratio is taken
round by round, and its median over the rounds is the estimate. Disturbances last longer than a
round: neighbouring rounds are not independent, so that the confidence interval comes from a moving
block bootstrap (Kuensch 1989, The Annals of Statistics 17), with blocks of about the square root of
the number of rounds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bnfold.benchmark.report import Latency

__all__ = ["ratio_interval", "summarize"]

Floats = np.ndarray[Any, np.dtype[np.float64]]

_DRAWS = 2000
# A bootstrap of few rounds is too sure of itself: measured on noise, this covers 95 % from about
# 200 rounds on, and 90 % of 50 rounds that hang together.
_CONFIDENCE = 0.99


def summarize(milliseconds: Floats) -> Latency:
    """Return the median and the spread of single runs.

    Args:
        milliseconds: Shape (rounds,).
    """
    low, median, high = np.quantile(milliseconds, (0.05, 0.5, 0.95))
    return Latency(float(median), float(low), float(high), len(milliseconds))


def ratio_interval(
    milliseconds: Floats, baseline: Floats, seed: int
) -> tuple[float, tuple[float, float]]:
    """Return the ratio of two latencies and its 99 % confidence interval.

    Args:
        milliseconds: Shape (rounds,); one run in each round.
        baseline: Shape (rounds,); the run that it was timed beside.
        seed: Where the random numbers start.
    """
    logs = np.log(milliseconds) - np.log(baseline)
    rounds = len(logs)
    block = max(1, round(math.sqrt(rounds)))
    count = math.ceil(rounds / block)
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, rounds - block + 1, (_DRAWS, count))
    picked = (starts[..., None] + np.arange(block)).reshape(_DRAWS, -1)[:, :rounds]
    medians = np.median(logs[picked], axis=1)
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.exp(np.quantile(medians, (tail, 1 - tail)))
    return float(np.exp(np.median(logs))), (float(low), float(high))
