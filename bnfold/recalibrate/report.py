"""What a recalibration found and did, as frozen values: the one source of JSON and tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bnfold._version import __version__
from bnfold.recalibrate.histogram import Histogram
from bnfold.report import SCHEMA_VERSION

__all__ = ["NormDrift", "NormKept", "NormStatistics", "RecalibrationReport"]


@dataclass(frozen=True)
class NormDrift:
    """How far the stored statistics of one normalization were from the data.

    Attributes:
        name: Name of its first node.
        nodes: Names of all nodes that use it.
        channels: Number of channels.
        values: Values of each channel that the statistics are made of.
        mean_shift: Largest |mean shift| of a channel, in standard deviations of the data.
        mean_shift_rms: Root mean square of the shift over the channels.
        log_variance_ratio: Largest |log variance ratio| of a channel, with its sign.
        log_variance_ratio_rms: Root mean square over the channels.
        kl: Mean of the symmetric Kullback-Leibler divergence over the channels, in nats.
        kl_max: That of the worst channel.
        worst_channel: The channel with it.
        dead_scale: Channels whose gamma is next to zero.
        dead_variance: Channels whose variance in the data is below epsilon.
        noisy: Channels that amplify noise, by the statistics of the data.
        kept_channels: Channels that are constant in the data and keep their statistics.
    """

    name: str
    nodes: tuple[str, ...]
    channels: int
    values: int
    mean_shift: float
    mean_shift_rms: float
    log_variance_ratio: float
    log_variance_ratio_rms: float
    kl: float
    kl_max: float
    worst_channel: int | None
    dead_scale: tuple[int, ...] = ()
    dead_variance: tuple[int, ...] = ()
    noisy: tuple[int, ...] = ()
    kept_channels: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: finite numbers only, None in place of the others."""
        return {
            "name": self.name,
            "nodes": list(self.nodes),
            "channels": self.channels,
            "values": self.values,
            "mean_shift": finite(self.mean_shift),
            "mean_shift_rms": finite(self.mean_shift_rms),
            "log_variance_ratio": finite(self.log_variance_ratio),
            "log_variance_ratio_rms": finite(self.log_variance_ratio_rms),
            "kl": finite(self.kl),
            "kl_max": finite(self.kl_max),
            "worst_channel": self.worst_channel,
            "dead_scale": list(self.dead_scale),
            "dead_variance": list(self.dead_variance),
            "noisy": list(self.noisy),
            "kept_channels": list(self.kept_channels),
        }


@dataclass(frozen=True)
class NormKept:
    """A normalization that keeps its statistics.

    Attributes:
        name: Name of the node.
        graph: Where it stands.
        channels: Number of channels, or None.
        reason: A stable code: ``training_mode``, ``excluded``, ``subgraph``, ``function``,
            ``dynamic_weight``, ``not_per_channel``, ``custom_domain``, ``unsupported_opset`` or
            ``non_finite_statistics``.
        detail: One sentence.
    """

    name: str
    graph: str
    channels: int | None
    reason: str
    detail: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.name,
            "graph": self.graph,
            "channels": self.channels,
            "reason": self.reason,
            "detail": self.detail,
        }


@dataclass(frozen=True)
class RecalibrationReport:
    """What one recalibration found and did.

    Attributes:
        model: Path that was read; the class of a PyTorch module.
        output: Path that was written, or None for a module.
        mode: ``precise`` or ``sequential``.
        variance: ``unbiased`` or ``population``.
        pooling: ``samples`` or ``batches``.
        momentum: How far the statistics were moved to those of the data.
        provider: What ran the model.
        samples: Rows of data.
        batches: Batches that they came in.
        norms: The normalizations that were renewed, the one with the largest drift first.
        kept: The others, in file order.
        warnings: What a reader has to know.
    """

    model: str
    output: str | None
    mode: str
    variance: str
    pooling: str
    momentum: float
    provider: str
    samples: int
    batches: int
    norms: tuple[NormDrift, ...]
    kept: tuple[NormKept, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form (``schema_version`` 1)."""
        return {
            "schema_version": SCHEMA_VERSION,
            "bnfold": __version__,
            "model": self.model,
            "output": self.output,
            "summary": {
                "norms": len(self.norms) + len(self.kept),
                "renewed": len(self.norms),
                "kept": len(self.kept),
                "samples": self.samples,
                "batches": self.batches,
            },
            "mode": self.mode,
            "variance": self.variance,
            "pooling": self.pooling,
            "momentum": self.momentum,
            "provider": self.provider,
            "norms": [norm.to_dict() for norm in self.norms],
            "kept": [norm.to_dict() for norm in self.kept],
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class NormStatistics:
    """What can be seen of one normalization without data.

    Attributes:
        name: Name of the node.
        graph: Where it stands.
        nodes: Names of all nodes that use it.
        channels: Number of channels.
        mean: Smallest and largest stored mean; None where none is finite.
        variance: Smallest and largest stored variance.
        gamma: Smallest and largest |scale|.
        largest_gain: Largest |gamma| / sqrt(variance + epsilon).
        dead_scale: Channels whose gamma is next to zero.
        dead_variance: Channels whose variance is below epsilon.
        noisy: Channels that amplify noise.
        not_finite: Channels with a statistic that is not finite, or a variance below zero.
        never_updated: True if every mean is 0 and every variance 1, as when training begins.
        scale_histogram: gamma / sqrt(variance + epsilon) of the channels; None where none is
            finite.
        variance_histogram: Their variances, on a logarithmic scale; None where none is positive.
    """

    name: str
    graph: str
    nodes: tuple[str, ...]
    channels: int
    mean: tuple[float, float] | None
    variance: tuple[float, float] | None
    gamma: tuple[float, float] | None
    largest_gain: float | None
    dead_scale: tuple[int, ...] = ()
    dead_variance: tuple[int, ...] = ()
    noisy: tuple[int, ...] = ()
    not_finite: tuple[int, ...] = ()
    never_updated: bool = False
    scale_histogram: Histogram | None = None
    variance_histogram: Histogram | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.name,
            "graph": self.graph,
            "nodes": list(self.nodes),
            "channels": self.channels,
            "mean": None if self.mean is None else list(self.mean),
            "variance": None if self.variance is None else list(self.variance),
            "gamma": None if self.gamma is None else list(self.gamma),
            "largest_gain": self.largest_gain,
            "dead_scale": list(self.dead_scale),
            "dead_variance": list(self.dead_variance),
            "noisy": list(self.noisy),
            "not_finite": list(self.not_finite),
            "never_updated": self.never_updated,
            "histograms": {
                "scale": _form(self.scale_histogram),
                "variance": _form(self.variance_histogram),
            },
        }


def _form(found: Histogram | None) -> dict[str, Any] | None:
    return None if found is None else found.to_dict()


def finite(number: float) -> float | None:
    """Return a number that JSON has, or None."""
    return number if math.isfinite(number) else None
