"""How the values of a layer are spread, in few numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_BINS", "Histogram", "histogram"]

Float64 = NDArray[np.float64]

MOST_BINS = 32


@dataclass(frozen=True)
class Histogram:
    """How many values lie in each of several intervals of one width.

    Attributes:
        low: Where the first interval begins; its logarithm to base 10 where ``log10``.
        high: Where the last one ends.
        counts: Number of values in each, the last one with its end.
        log10: True if the intervals are of one width on a logarithmic scale.
        others: Number of values that have no place: not finite, or not positive where ``log10``.
    """

    low: float
    high: float
    counts: tuple[int, ...]
    log10: bool
    others: int

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "low": self.low,
            "high": self.high,
            "counts": list(self.counts),
            "log10": self.log10,
            "others": self.others,
        }


def histogram(values: Float64, *, log10: bool = False) -> Histogram | None:
    """Count values in 2 * n^(1/3) intervals (Rice's rule), 32 at most.

    Args:
        values: float64[n].
        log10: Use a logarithmic scale.

    Returns:
        The counts, or None where no value has a place.
    """
    with np.errstate(all="ignore"):
        placed = np.log10(values) if log10 else values
    placed = placed[np.isfinite(placed)]
    if not placed.size:
        return None
    low, high = float(placed.min()), float(placed.max())
    bins = min(MOST_BINS, math.ceil(2 * placed.size ** (1 / 3)))
    if not np.isfinite(high - low) or len(set(np.linspace(low, high, bins + 1).tolist())) <= bins:
        bins = 1  # all values are next to equal, or too far apart for a width
    counts = np.array([placed.size]) if bins == 1 else np.histogram(placed, bins, (low, high))[0]
    return Histogram(low, high, tuple(counts.tolist()), log10, int(values.size - placed.size))
