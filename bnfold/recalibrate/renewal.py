"""From moments to the statistics that are stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from bnfold.errors import InputError
from bnfold.recalibrate.moments import (
    BATCHES,
    POOLINGS,
    SAMPLES,
    UNBIASED,
    VARIANCES,
    Moments,
)
from bnfold.recalibrate.norms import Norm
from bnfold.store.dtypes import dtype_of

__all__ = ["MODES", "PRECISE", "SEQUENTIAL", "Renewal", "Rule", "require_choice"]

Float64 = NDArray[np.float64]

PRECISE, SEQUENTIAL = "precise", "sequential"
MODES = (PRECISE, SEQUENTIAL)

_SHOWN = 8
_EPS: dict[int, float] = {
    TensorProto.FLOAT16: 2.0**-10,
    TensorProto.BFLOAT16: 2.0**-7,
    TensorProto.FLOAT: 2.0**-23,
    TensorProto.DOUBLE: 2.0**-52,
}
_TINY = 1e-30


@dataclass(frozen=True, eq=False)
class Renewal:
    """New statistics of one normalization.

    Attributes:
        mean: Mean of the data, float64[C].
        var: Variance of the data, float64[C].
        stored: Mean and variance to be written, in their storage type.
        kept: Channels that are constant in the data and keep their statistics.
    """

    mean: Float64
    var: Float64
    stored: tuple[NDArray[np.generic], NDArray[np.generic]]
    kept: tuple[int, ...] = ()


@dataclass(frozen=True)
class Rule:
    """What statistics are made of moments.

    Attributes:
        variance: One of ``VARIANCES``.
        pooling: One of ``POOLINGS``.
        momentum: How far to move from the stored statistics to those of the data.
        keep_constant: True to leave the channels alone that are constant in the data.
    """

    variance: str = UNBIASED
    pooling: str = SAMPLES
    momentum: float = 1.0
    keep_constant: bool = False

    def __post_init__(self) -> None:
        require_choice("variance", self.variance, VARIANCES)
        require_choice("pooling", self.pooling, POOLINGS)
        if not 0 < self.momentum <= 1:
            raise InputError(
                f"momentum {self.momentum:g} is not above 0 and at most 1",
                hint="1 takes the statistics of the data, 0.1 a tenth of the way to them",
            )

    def renewed(self, norm: Norm, moments: Moments, *, label: str = "") -> Renewal:
        """Return the new statistics of a normalization.

        With momentum a: stored + a * (data - stored), in float64, rounded once.

        Args:
            norm: What it is.
            moments: What has been gathered of it.
            label: How messages call the model; "" for a module.

        Raises:
            InputError: There are too few values, channels are constant, or the result is not
                finite in the type that it is stored in.
        """
        name = f"{label}: '{norm.name}'" if label else f"'{norm.name}'"
        try:
            mean, var = moments.pooled(self.pooling, self.variance)
        except ZeroDivisionError as error:
            raise _too_few(name, moments, self.pooling) from error
        constant = np.flatnonzero(_is_constant(norm, mean, var))
        if constant.size and not self.keep_constant:
            raise InputError(
                f"{name}: {_channels(constant)} constant in the data, and a variance of 0 "
                "would amplify every deviation from it",
                hint="give more, or more varied, samples; --keep-constant leaves the statistics of "
                "such channels as they are",
            )
        with np.errstate(all="ignore"):
            new = [
                data.copy() if self.momentum == 1 else old + self.momentum * (data - old)
                for old, data in ((norm.mean, mean), (norm.var, var))
            ]
            for vector, old in zip(new, (norm.mean, norm.var), strict=True):
                vector[constant] = old[constant]
            dtype = dtype_of(norm.statistics_kind)
            first, second = (vector.astype(dtype) for vector in new)
        self._require_finite(name, norm, first, second)
        return Renewal(mean, var, (first, second), tuple(constant.tolist()))

    def _require_finite(
        self,
        name: str,
        norm: Norm,
        mean: NDArray[np.generic],
        var: NDArray[np.generic],
    ) -> None:
        wide = mean.astype(np.float64) + var.astype(np.float64)
        bad = np.flatnonzero(~np.isfinite(wide) | (var.astype(np.float64) < 0))
        if not bad.size:
            return
        old = norm.mean[bad] + norm.var[bad]
        if not np.isfinite(old).all() and (self.momentum != 1 or self.keep_constant):
            raise InputError(
                f"{name}: {_channels(bad)} stored with statistics that are not finite, and "
                "nothing of them can be kept",
                hint="leave --momentum and --keep-constant out",
            )
        raise InputError(
            f"{name}: {_channels(bad)} outside the range of {var.dtype.name}, in which the "
            "statistics are stored",
            hint="export the model with float32 statistics",
        )


def require_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise unless an option has one of its values.

    Raises:
        InputError: It has another one.
    """
    if value not in choices:
        raise InputError(f"unknown {option} '{value}'", hint=f"choose from {', '.join(choices)}")


def _is_constant(norm: Norm, mean: Float64, var: Float64) -> NDArray[np.bool_]:
    """Channels that vary by no more than rounding."""
    rounding = 2 * _EPS[norm.kind] * np.abs(mean)
    constant: NDArray[np.bool_] = var <= np.maximum(rounding * rounding, _TINY)
    return constant


def _too_few(name: str, moments: Moments, pooling: str) -> InputError:
    if moments.count < 2:
        return InputError(
            f"{name}: {moments.count} value for each channel is too few for a variance",
            hint="give more samples",
        )
    assert pooling == BATCHES  # noqa: S101 - over samples two values are enough
    return InputError(
        f"{name}: a batch with one value for each channel has no variance of its own",
        hint="choose another --batch-size, or --pooling samples",
    )


def _channels(indices: NDArray[np.intp]) -> str:
    """Return ``channel 3 is`` or ``channels 3, 5 and 9 more are``."""
    if len(indices) == 1:
        return f"channel {indices[0]} is"
    shown = ", ".join(map(str, indices[:_SHOWN]))
    more = f" and {len(indices) - _SHOWN} more" if len(indices) > _SHOWN else ""
    return f"channels {shown}{more} are"
