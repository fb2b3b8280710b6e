"""What became of every site of a model."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bnfold._version import __version__
from bnfold.report.checks import CheckReport
from bnfold.report.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from bnfold.recalibrate.report import NormStatistics

__all__ = ["BRANCH", "REASONS", "FoldReport", "Reason", "Verdict"]

BRANCH = "branch"
"""``kind`` of the verdicts on branches of linear operators, which are merged and not folded."""


class Reason(enum.StrEnum):
    """Why a site was kept. The values are stable codes that others match on."""

    TRAINING_MODE = "training_mode"
    FAN_OUT = "fan_out"
    GRAPH_OUTPUT = "graph_output"
    GRAPH_INPUT = "graph_input"
    CAPTURED = "captured"
    OVERRIDABLE_INITIALIZER = "overridable_initializer"
    DYNAMIC_WEIGHT = "dynamic_weight"
    NONLINEAR = "nonlinear"
    PADDING_SHIFT = "padding_shift"
    SIGN = "sign"
    UNKNOWN_SHAPE = "unknown_shape"
    NOT_PER_CHANNEL = "not_per_channel"
    PER_SAMPLE_NORM = "per_sample_norm"
    NON_FINITE_STATISTICS = "non_finite_statistics"
    OVERFLOW = "overflow"
    CUSTOM_DOMAIN = "custom_domain"
    UNSUPPORTED_OPSET = "unsupported_opset"
    NO_LINEAR_NEIGHBOUR = "no_linear_neighbour"
    EXCLUDED = "excluded"
    NO_GAIN = "no_gain"


REASONS: dict[Reason, str] = {
    Reason.TRAINING_MODE: "it normalizes with the statistics of the batch",
    Reason.FAN_OUT: "the tensor that would change is also used elsewhere",
    Reason.GRAPH_OUTPUT: "the tensor that would change is an output of the graph",
    Reason.GRAPH_INPUT: "the tensor that would change is an input of the graph or function",
    Reason.CAPTURED: "the tensor that would change is shared with a subgraph",
    Reason.OVERRIDABLE_INITIALIZER: "a weight is also a graph input: callers may replace it",
    Reason.DYNAMIC_WEIGHT: "a weight is not a constant, or cannot be changed",
    Reason.NONLINEAR: "an operator on the way does not let the affine pass",
    Reason.PADDING_SHIFT: "a shift would not reach what is padded",
    Reason.SIGN: "a negative scale does not pass a maximum or an activation",
    Reason.UNKNOWN_SHAPE: "a rank, a length or what happens to an axis is not proved",
    Reason.NOT_PER_CHANNEL: "the affine varies along another axis than the weights",
    Reason.PER_SAMPLE_NORM: "a normalization takes its statistics from the sample itself",
    Reason.NON_FINITE_STATISTICS: "parameters are not finite, or variance + epsilon <= 0",
    Reason.OVERFLOW: "the storage type cannot hold the result, or loses its precision",
    Reason.CUSTOM_DOMAIN: "an operator of another domain than ONNX",
    Reason.UNSUPPORTED_OPSET: "an operator version that is not known or not handled",
    Reason.NO_LINEAR_NEIGHBOUR: "there is nothing on either side that could take it",
    Reason.EXCLUDED: "the user asked to keep it",
    Reason.NO_GAIN: "folding it would add as much work as it removes",
}
"""What each reason code means, for people."""


@dataclass(frozen=True)
class Verdict:
    """What became of one site.

    Attributes:
        name: Node name; the name of its first output where the node has none.
        kind: Operator of the site, such as ``BatchNormalization``; ``Affine`` for a chain of
            elementwise operators with constants; ``branch`` for linear operators that are merged.
        graph: Where the site stands: ``main``, the path of a subgraph or the name of a function.
        channels: Number of channels, or None where it is not known.
        folded: True if the site is gone.
        direction: ``backward`` or ``forward``; ``parallel`` or ``series`` for what a merge has
            taken out; None for a site that was kept.
        into: Names of the nodes that took the affine in.
        through: Names of the nodes that the affine passed on its way.
        reason: Why the site was kept, or None.
        detail: One sentence that names the node that blocks, or None.
    """

    name: str
    kind: str
    graph: str
    channels: int | None
    folded: bool
    direction: str | None = None
    into: tuple[str, ...] = ()
    through: tuple[str, ...] = ()
    reason: Reason | None = None
    detail: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of this verdict."""
        return {
            "name": self.name,
            "kind": self.kind,
            "graph": self.graph,
            "channels": self.channels,
            "verdict": "folded" if self.folded else "kept",
            "direction": self.direction,
            "into": list(self.into),
            "through": list(self.through),
            "reason": None if self.reason is None else self.reason.value,
            "detail": self.detail,
        }


@dataclass(frozen=True)
class FoldReport:
    """Everything that ``optimize`` or ``inspect`` has to say about one model.

    Attributes:
        model: Path of the model as given, or None for a model in memory.
        output: Path that was written, or None.
        sites: One verdict for each site of the file, in graph order.
        nodes_before: Number of nodes of the main graph before.
        nodes_after: Number of nodes of the main graph after.
        bytes_before: Size of the model with its external data, in bytes.
        bytes_after: Size of the written model with its external data, in bytes, or None.
        checks: The proof, or empty where none was asked for.
        hints: One-line advice, such as that ``--freeze-initializers`` would fold more.
        statistics: What can be seen of the statistics of each normalization without data; None
            where nobody asked.
        operators_before: Number of nodes of the main graph by operator, before; None where they
            are not ONNX operators.
        operators_after: The same after.
    """

    model: str | None
    output: str | None
    sites: tuple[Verdict, ...]
    nodes_before: int
    nodes_after: int
    bytes_before: int | None = None
    bytes_after: int | None = None
    checks: tuple[CheckReport, ...] = ()
    hints: tuple[str, ...] = field(default=())
    statistics: tuple[NormStatistics, ...] | None = None
    operators_before: Mapping[str, int] | None = None
    operators_after: Mapping[str, int] | None = None

    @property
    def folded(self) -> tuple[Verdict, ...]:
        """The affine sites that are gone."""
        return tuple(site for site in self.sites if site.folded and site.kind != BRANCH)

    @property
    def kept(self) -> tuple[Verdict, ...]:
        """The affine sites that stayed."""
        return tuple(site for site in self.sites if not site.folded and site.kind != BRANCH)

    @property
    def merged(self) -> tuple[Verdict, ...]:
        """The branches that became one with others."""
        return tuple(site for site in self.sites if site.folded and site.kind == BRANCH)

    @property
    def apart(self) -> tuple[Verdict, ...]:
        """The branches that stayed apart, although they could be merged."""
        return tuple(site for site in self.sites if not site.folded and site.kind == BRANCH)

    @property
    def equivalent(self) -> bool | None:
        """True if every check passed, False if one did not, None if none was made."""
        return all(check.equivalent for check in self.checks) if self.checks else None

    def to_dict(self) -> dict[str, Any]:
        """Return the stable JSON form; ``statistics`` is in it where somebody asked."""
        statistics = [] if self.statistics is None else [each.to_dict() for each in self.statistics]
        return {
            "schema_version": SCHEMA_VERSION,
            "bnfold": __version__,
            "model": self.model,
            "output": self.output,
            "summary": {
                "sites": len(self.folded) + len(self.kept),
                "folded": len(self.folded),
                "kept": len(self.kept),
                "merged": len(self.merged),
                "nodes_before": self.nodes_before,
                "nodes_after": self.nodes_after,
                "bytes_before": self.bytes_before,
                "bytes_after": self.bytes_after,
            },
            "operators": self._operators(),
            "sites": [site.to_dict() for site in self.sites],
            "checks": [check.to_dict() for check in self.checks],
            "hints": list(self.hints),
            **({} if self.statistics is None else {"statistics": statistics}),
        }

    def _operators(self) -> dict[str, dict[str, int]] | None:
        if self.operators_before is None or self.operators_after is None:
            return None
        return {"before": dict(self.operators_before), "after": dict(self.operators_after)}
