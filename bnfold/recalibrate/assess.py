"""The report's view of normalizations: with data, and of what the file alone shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bnfold.graph import shapes
from bnfold.graph.index import Graph
from bnfold.recalibrate.drift import channel_drift, health
from bnfold.recalibrate.histogram import histogram
from bnfold.recalibrate.norms import Norm, find_norms
from bnfold.recalibrate.renewal import Renewal
from bnfold.recalibrate.report import NormDrift, NormStatistics
from bnfold.store import LoadedModel

__all__ = ["drift_of", "sorted_by_drift", "statistics_of"]

Float64 = NDArray[np.float64]


def drift_of(norm: Norm, renewal: Renewal, values: int) -> NormDrift:
    """Compare the stored statistics of a normalization with those of the data.

    Args:
        norm: The normalization as it was.
        renewal: What the data says.
        values: Values of each channel that this is made of.
    """
    drift = channel_drift((norm.mean, norm.var), (renewal.mean, renewal.var), norm.epsilon)
    state = health(norm.gamma, renewal.var, norm.epsilon)
    shift, ratio = np.abs(drift.mean_shift), drift.log_variance_ratio
    worst = _largest(drift.kl)
    return NormDrift(
        norm.name,
        tuple(node.name for node in norm.nodes) or (norm.name,),
        norm.channels,
        values,
        mean_shift=_at(shift, _largest(shift)),
        mean_shift_rms=_rms(shift),
        log_variance_ratio=_at(ratio, _largest(np.abs(ratio))),
        log_variance_ratio_rms=_rms(ratio),
        kl=float(drift.kl.mean()) if norm.channels else 0.0,
        kl_max=_at(drift.kl, worst),
        worst_channel=worst,
        dead_scale=state.dead_scale,
        dead_variance=state.dead_variance,
        noisy=state.noisy,
        kept_channels=renewal.kept,
    )


def sorted_by_drift(norms: Sequence[NormDrift]) -> tuple[NormDrift, ...]:
    """Sort by divergence, the largest first; what was not finite comes before all."""

    def key(norm: NormDrift) -> float:
        return norm.kl if math.isfinite(norm.kl) else math.inf

    return tuple(sorted(norms, key=key, reverse=True))


def statistics_of(model: LoadedModel) -> tuple[NormStatistics, ...]:
    """Return what can be seen of each normalization of a model without data.

    Those that share their statistics are told once.
    """
    graph = Graph(model.proto)
    shapes.infer(graph)
    norms, _ = find_norms(graph, model.tensors)
    return tuple(map(_statistics, norms))


def _statistics(norm: Norm) -> NormStatistics:
    state = health(norm.gamma, norm.var, norm.epsilon)
    with np.errstate(all="ignore"):
        scale = norm.gamma / np.sqrt(norm.var + norm.epsilon)
    wrong = ~np.isfinite(norm.mean) | ~np.isfinite(norm.var) | (norm.var < 0)
    return NormStatistics(
        norm.name,
        norm.nodes[0].scope.label,
        tuple(node.name for node in norm.nodes),
        norm.channels,
        mean=_range(norm.mean),
        variance=_range(norm.var),
        gamma=_range(np.abs(norm.gamma)),
        largest_gain=state.largest_gain,
        dead_scale=state.dead_scale,
        dead_variance=state.dead_variance,
        noisy=state.noisy,
        not_finite=tuple(np.flatnonzero(wrong).tolist()),
        never_updated=bool(np.all(norm.mean == 0) and np.all(norm.var == 1)),
        scale_histogram=histogram(scale),
        variance_histogram=histogram(norm.var, log10=True),
    )


def _range(values: Float64) -> tuple[float, float] | None:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else None


def _largest(values: Float64) -> int | None:
    """Return the index of the largest value; what is not a number counts as larger than all."""
    if not values.size:
        return None
    return int(np.argmax(np.where(np.isnan(values), np.inf, values)))


def _at(values: Float64, index: int | None) -> float:
    return 0.0 if index is None else float(values[index])


def _rms(values: Float64) -> float:
    return float(np.sqrt(np.mean(values * values))) if values.size else 0.0
