"""How far stored statistics are from those of the data, and which channels are in trouble.

Both are taken for Gaussians, P = N(m0, v0 + eps) the stored and Q = N(m1, v1 + eps) that of the
data, with the epsilon of the normalization::

    mean shift          (m1 - m0) / sqrt(v1 + eps)        in standard deviations of the data
    log variance ratio  ln((v1 + eps) / (v0 + eps))       0 where they agree, ln 4 where v1 = 4 v0
    symmetric KL        KL(P|Q) + KL(Q|P)
                        = (r + 1/r - 2) / 2 + (m1 - m0)^2 * (1/(v0 + eps) + 1/(v1 + eps)) / 2
                        with r = (v1 + eps) / (v0 + eps)

A channel is **dead** if its scale gamma is ``DEAD_SCALE`` times the largest of the layer or less
(nothing of it comes through), or if its variance is below epsilon (what comes through is the shift
alone). It **amplifies noise** if |gamma| / sqrt(v + eps) is ``NOISY_GAIN`` or more: rounding in
front of the normalization arrives behind it that many times as large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["DEAD_SCALE", "NOISY_GAIN", "ChannelDrift", "Health", "channel_drift", "health"]

Float64 = NDArray[np.float64]

DEAD_SCALE = 1e-3
NOISY_GAIN = 100.0


@dataclass(frozen=True, eq=False)
class ChannelDrift:
    """The distance between two sets of statistics, float64[C] each; not finite where they are not.

    Attributes:
        mean_shift: In standard deviations of the data.
        log_variance_ratio: Natural logarithm; positive where the data varies more.
        kl: Symmetric Kullback-Leibler divergence, in nats.
    """

    mean_shift: Float64
    log_variance_ratio: Float64
    kl: Float64


@dataclass(frozen=True)
class Health:
    """Channels in trouble, by index.

    Attributes:
        dead_scale: Channels whose gamma is next to zero.
        dead_variance: Channels whose variance is below epsilon.
        noisy: Channels that amplify noise.
        largest_gain: Largest |gamma| / sqrt(v + eps) of the layer; None where nothing is finite.
    """

    dead_scale: tuple[int, ...]
    dead_variance: tuple[int, ...]
    noisy: tuple[int, ...]
    largest_gain: float | None


def channel_drift(
    old: tuple[Float64, Float64], new: tuple[Float64, Float64], epsilon: float
) -> ChannelDrift:
    """Compare mean and variance channel by channel.

    Args:
        old: Stored mean and variance, float64[C] each.
        new: Those of the data.
        epsilon: What the normalization adds to the variance.
    """
    with np.errstate(all="ignore"):
        v0, v1 = old[1] + epsilon, new[1] + epsilon
        shift = new[0] - old[0]
        ratio = v1 / v0
        kl = (ratio + 1 / ratio - 2) / 2 + shift * shift * (1 / v0 + 1 / v1) / 2
        # Of nearly equal variances the first sum is a difference of nearly equal numbers.
        return ChannelDrift(shift / np.sqrt(v1), np.log(ratio), np.maximum(kl, 0))


def health(gamma: Float64, var: Float64, epsilon: float) -> Health:
    """Find the channels in trouble.

    Args:
        gamma: Scales, float64[C].
        var: Variances, float64[C].
        epsilon: What the normalization adds to the variance.
    """
    with np.errstate(all="ignore"):
        size = np.abs(gamma)
        gain = size / np.sqrt(var + epsilon)
        dead_scale = size <= DEAD_SCALE * np.max(size, initial=0.0)
        finite = gain[np.isfinite(gain)]
        return Health(
            _indices(dead_scale),
            _indices(var < epsilon),
            _indices(gain >= NOISY_GAIN),
            float(finite.max()) if finite.size else None,
        )


def _indices(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(mask).tolist())
