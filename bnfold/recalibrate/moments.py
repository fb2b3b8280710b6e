"""Mean and variance over many batches, in float64.

For the values x of one channel, n of them::

    mean = sum(x) / n            M2 = sum((x - mean)^2)

and for two parts A and B, after Chan, Golub and LeVeque 1983 ("Algorithms for computing the sample
variance", The American Statistician 37)::

    n    = nA + nB               d  = meanB - meanA
    mean = meanA + d * nB / n    M2 = M2A + M2B + d^2 * nA * nB / n

No square of a large number is ever subtracted from another one, so that a mean of 1e4 beside a
variance of 1 costs no digits.

Two ways to pool: over **samples**, where every value counts the same (the formulas above: the
result is that of one pass over everything), or over **batches**, where every batch counts the same,
mean of the means and mean of the variances. The latter is what PyTorch does in train mode with
``momentum=None``; it leaves out how far the means of the batches lie apart.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BATCHES", "POOLINGS", "POPULATION", "SAMPLES", "UNBIASED", "VARIANCES", "Moments"]

Float64 = NDArray[np.float64]

SAMPLES, BATCHES = "samples", "batches"
POOLINGS = (SAMPLES, BATCHES)
UNBIASED, POPULATION = "unbiased", "population"
VARIANCES = (UNBIASED, POPULATION)


@dataclass(frozen=True, eq=False)
class Moments:
    """What is known of the channels of one normalization so far.

    Attributes:
        count: Values of each channel.
        mean: Their mean, float64[C].
        m2: Their sum of squared distances from the mean, float64[C].
        batches: Number of batches; a normalization that is used twice counts each batch twice.
        mean_sum: Sum of the means of the batches, float64[C].
        population_sum: Sum of the population variances of the batches, float64[C].
        unbiased_sum: Sum of the unbiased variances of the batches with two values or more.
        single: Number of batches with one value for each channel.
    """

    count: int
    mean: Float64
    m2: Float64
    batches: int
    mean_sum: Float64
    population_sum: Float64
    unbiased_sum: Float64
    single: int

    @classmethod
    def empty(cls, channels: int) -> Moments:
        """Return the moments of nothing."""
        zero = np.zeros(channels)
        return cls(0, zero, zero, 0, zero, zero, zero, 0)

    @classmethod
    def of_batch(cls, count: int, mean: Float64, m2: Float64) -> Moments:
        """Return the moments of one batch.

        Args:
            count: Values of each channel.
            mean: Their mean, float64[C].
            m2: Their sum of squared distances from it, float64[C].
        """
        if count == 0:
            return cls.empty(len(mean))
        single = count == 1
        unbiased = np.zeros_like(m2) if single else m2 / (count - 1)
        return cls(count, mean, m2, 1, mean, m2 / count, unbiased, int(single))

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of both together."""
        count = self.count + other.count
        if count == 0:
            return self
        distance = other.mean - self.mean
        weight = other.count / count
        return Moments(
            count,
            self.mean + distance * weight,
            self.m2 + other.m2 + distance * distance * (self.count * weight),
            self.batches + other.batches,
            self.mean_sum + other.mean_sum,
            self.population_sum + other.population_sum,
            self.unbiased_sum + other.unbiased_sum,
            self.single + other.single,
        )

    def pooled(self, pooling: str, variance: str) -> tuple[Float64, Float64]:
        """Return mean and variance, float64[C] each.

        Args:
            pooling: One of ``POOLINGS``.
            variance: One of ``VARIANCES``: divided by n - 1, or by n.

        Raises:
            ZeroDivisionError: There are fewer than two values, or a batch of one value where the
                unbiased variance of every batch is asked for.
        """
        if self.count < 2 or (pooling == BATCHES and variance == UNBIASED and self.single):
            raise ZeroDivisionError("one value has no variance")
        if pooling == SAMPLES:
            return self.mean, self.m2 / (self.count - (variance == UNBIASED))
        sums = self.unbiased_sum if variance == UNBIASED else self.population_sum
        return self.mean_sum / self.batches, sums / self.batches

    def packed(self) -> Float64:
        """Return everything as one array, float64[5, C + 1], from which `unpacked` makes it."""
        numbers = (self.count, self.batches, self.single, 0, 0)
        vectors = (self.mean, self.m2, self.mean_sum, self.population_sum, self.unbiased_sum)
        return np.column_stack([np.array(numbers, np.float64), np.stack(vectors)])

    @classmethod
    def unpacked(cls, packed: Float64) -> Moments:
        """Return what `packed` was made from."""
        count, batches, single = (int(number) for number in packed[:3, 0])
        mean, m2, mean_sum, population_sum, unbiased_sum = packed[:, 1:]
        return cls(count, mean, m2, batches, mean_sum, population_sum, unbiased_sum, single)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Moments) and np.array_equal(self.packed(), other.packed())

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[object, ...]:
        fields = (getattr(self, field.name) for field in dataclasses.fields(self))
        return Moments, tuple(fields)
