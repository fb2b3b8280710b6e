"""How far two models are apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "CheckReport",
    "ExpectedComparison",
    "LayerError",
    "Localization",
    "OracleOpinion",
    "OutputComparison",
]


@dataclass(frozen=True)
class OracleOpinion:
    """How far both models are from the truth: the reference, computed in float64.

    Attributes:
        reference: Largest difference of the reference, as it ran, from the truth, relative to the
            largest element of the truth; None where there is no truth.
        candidate: The same for the candidate, as it ran.
        nearer: ``reference``, ``candidate``, or ``equal`` where the errors are of one size; None
            where there is no truth.
        exact: Largest difference of the candidate, computed in float64 itself, from the truth: what
            the two files differ by. None where it could not be computed.
        detail: Why there is no truth, or anything else that a reader has to know; or None.
    """

    reference: float | None
    candidate: float | None
    nearer: str | None
    exact: float | None = None
    detail: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: finite numbers only, None in place of the others."""
        return {
            "reference": None if self.reference is None else _finite(self.reference),
            "candidate": None if self.candidate is None else _finite(self.candidate),
            "nearer": self.nearer,
            "exact": None if self.exact is None else _finite(self.exact),
            "detail": self.detail,
        }


@dataclass(frozen=True)
class ExpectedComparison:
    """How far both models are from outputs that came with a caller's data.

    Attributes:
        output: Name of the graph output.
        feeds: Number of feeds that came with a value for it.
        reference_agrees: True if the reference is within the tolerance on all of them.
        candidate_agrees: The same for the candidate.
        reference: Largest difference of the reference, relative to the largest expected element.
        candidate: The same for the candidate.
    """

    output: str
    feeds: int
    reference_agrees: bool
    candidate_agrees: bool
    reference: float
    candidate: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: finite numbers only, None in place of the others."""
        return {
            "output": self.output,
            "feeds": self.feeds,
            "reference_agrees": self.reference_agrees,
            "candidate_agrees": self.candidate_agrees,
            "reference": _finite(self.reference),
            "candidate": _finite(self.candidate),
        }


@dataclass(frozen=True)
class OutputComparison:
    """How far one output of the candidate is from the reference, over all feeds.

    Attributes:
        name: Name of the graph output.
        equivalent: True if the output passes.
        difference: D = max|candidate - reference| / max|reference|, both upcast to float64.
        noise: Largest D of the reference against itself when its inputs move by one unit in the
            last place.
        ratio: ``difference / noise``, or None where that says nothing (no noise, exact outputs).
        max_abs: Largest absolute difference, in the units of the output.
        allowed: Largest ``difference`` that would have passed.
        worst_index: Index of the element with the largest difference, or None.
        detail: A sentence on anything beside the numbers (NaN in other places, an unstable output).
        argmax_agreement: For what looks like scores of classes (the last axis of 2 or 3): the
            fraction of rows, over all feeds, where the largest is the same class; else None. It is
            shown and decides nothing.
        oracle: Which of the two is nearer to the result in float64, where that was asked for.
    """

    name: str
    equivalent: bool
    difference: float
    noise: float
    ratio: float | None
    max_abs: float
    allowed: float
    worst_index: tuple[int, ...] | None
    detail: str | None = None
    argmax_agreement: float | None = None
    oracle: OracleOpinion | None = None

    @property
    def unstable(self) -> bool:
        """True if noise alone changes the output so much that it says little, as `detail` tells."""
        return "unstable: " in (self.detail or "")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: finite numbers only, None in place of the others."""
        return {
            "name": self.name,
            "equivalent": self.equivalent,
            "difference": _finite(self.difference),
            "noise": _finite(self.noise),
            "ratio": None if self.ratio is None else _finite(self.ratio),
            "max_abs": _finite(self.max_abs),
            "allowed": _finite(self.allowed),
            "worst_index": None if self.worst_index is None else list(self.worst_index),
            "detail": self.detail,
            "unstable": self.unstable,
            "argmax_agreement": self.argmax_agreement,
            "oracle": None if self.oracle is None else self.oracle.to_dict(),
        }


@dataclass(frozen=True)
class LayerError:
    """How far one tensor inside of the models is from the reference.

    Attributes:
        tensor: Name of the tensor, which both models have.
        reference_node: Node of the reference that produces it; where the tensor is wrong and
            several nodes lie between it and the tensors before, the last of them that the
            candidate does not have in the same form. None for a constant.
        reference_operator: Operator of that node, or None.
        candidate_node: The same for the candidate.
        candidate_operator: Operator of that node, or None.
        difference: D = max|candidate - reference| / max|reference|, where the candidate gets what
            the reference computed before this tensor.
        noise: Largest D of the reference against itself when what it gets is moved by one unit in
            the last place and its weights by about half of one.
        ratio: ``difference / noise``, or None where that says nothing (no noise, exact values).
        allowed: Largest ``difference`` that would have passed.
        beyond: True if the difference is more than noise.
        detail: A sentence on anything beside the numbers (another shape, a name that stands for
            another value), or None.
    """

    tensor: str
    reference_node: str | None
    reference_operator: str | None
    candidate_node: str | None
    candidate_operator: str | None
    difference: float
    noise: float
    ratio: float | None
    allowed: float
    beyond: bool
    detail: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: finite numbers only, None in place of the others."""
        return {
            "tensor": self.tensor,
            "reference_node": self.reference_node,
            "reference_operator": self.reference_operator,
            "candidate_node": self.candidate_node,
            "candidate_operator": self.candidate_operator,
            "difference": _finite(self.difference),
            "noise": _finite(self.noise),
            "ratio": None if self.ratio is None else _finite(self.ratio),
            "allowed": _finite(self.allowed),
            "beyond": self.beyond,
            "detail": self.detail,
        }


@dataclass(frozen=True)
class Localization:
    """Where two models part, tensor by tensor.

    Attributes:
        first: The first tensor in which the models part and from which the difference reaches an
            output, or None if there is none.
        layers: All tensors that were compared, in topological order.
        detail: A sentence on what was found or why nothing was, or None.
    """

    first: LayerError | None
    layers: tuple[LayerError, ...]
    detail: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "first": None if self.first is None else self.first.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
            "detail": self.detail,
        }


@dataclass(frozen=True)
class CheckReport:
    """One comparison of two models on one execution provider at one optimization level.

    Attributes:
        provider: Execution provider that ran, such as ``CPUExecutionProvider``, or
            ``onnx.reference`` for the ONNX reference evaluator.
        level: ``disable_all`` or ``default`` (graph optimization level of the runtime).
        equivalent: True if every output passes.
        outputs: One comparison for each graph output, in graph order.
        feeds: Number of feeds that were compared.
        warnings: Sentences about the runtime itself, for example a reference that changes when
            the runtime optimizes it.
        detail: Why nothing could be compared (inputs that differ, a candidate that does not run),
            or None.
        nodes: Number of nodes of the reference by execution provider, as the runtime assigned
            them; None where it does not tell.
        tf32: What the candidate computes with TF32, against the same reference, where that was
            asked for. No verdict.
        failing_feed: File with the inputs on which the models differ most, or None.
        localization: Where the models part, or None where that was not asked for.
        expected: Both models against the outputs that came with a caller's data.
    """

    provider: str
    level: str
    equivalent: bool
    outputs: tuple[OutputComparison, ...]
    feeds: int = 0
    warnings: tuple[str, ...] = ()
    detail: str | None = None
    nodes: Mapping[str, int] | None = None
    tf32: tuple[OutputComparison, ...] | None = None
    failing_feed: str | None = None
    localization: Localization | None = None
    expected: tuple[ExpectedComparison, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of this comparison."""
        return {
            "provider": self.provider,
            "level": self.level,
            "equivalent": self.equivalent,
            "feeds": self.feeds,
            "outputs": [output.to_dict() for output in self.outputs],
            "warnings": list(self.warnings),
            "detail": self.detail,
            "nodes": None if self.nodes is None else dict(self.nodes),
            "tf32": None if self.tf32 is None else [output.to_dict() for output in self.tf32],
            "failing_feed": self.failing_feed,
            "localization": None if self.localization is None else self.localization.to_dict(),
            "expected": [comparison.to_dict() for comparison in self.expected],
        }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
