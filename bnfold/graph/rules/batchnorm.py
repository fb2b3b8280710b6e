"""Read a BatchNormalization of any opset, or say why it is not an affine that may be folded.

Opset 1 and 6: inference only with is_test = 1; spatial = 0 keeps statistics per element.
Opset 7: inference unless the training outputs are used; spatial as before.
Opset 9: no spatial. Opset 14: training_mode. Opset 15: statistics may have a type of their own.

Source: the ONNX operator specification of BatchNormalization.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnfold.affine import Affine, Float64
from bnfold.graph.constants import FLOATS
from bnfold.graph.facts import Facts
from bnfold.graph.index import Node
from bnfold.graph.plan import Refusal
from bnfold.report import Reason

__all__ = ["DEFAULT_EPSILON", "BatchNorm", "channels", "read_batchnorm"]

PARAMETERS = ("scale", "bias", "mean", "variance")
DEFAULT_EPSILON = float(np.float32(1e-5))
"""What is added to the variance where the node does not say."""


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """The parameters of one BatchNormalization, float64 vectors of shape (C,).

    Attributes:
        gamma: Scale.
        beta: Bias.
        mean: Running mean.
        affine: What it computes, for a tensor of two axes: arrays of shape (1, C).
        kind: Element type of scale and bias.
        statistics_kind: Element type of mean and variance.
    """

    gamma: Float64
    beta: Float64
    mean: Float64
    affine: Affine
    kind: int
    statistics_kind: int

    @property
    def channels(self) -> int:
        """C."""
        return len(self.gamma)

    def at_rank(self, rank: int) -> Affine:
        """What it computes, for a tensor of ``rank`` axes: arrays of shape (1, C, 1, ...)."""
        return self.affine.map(lambda a: a.reshape(a.shape + (1,) * (rank - 2)))


def channels(node: Node, facts: Facts) -> int | None:
    """Number of channels, from the shape of any parameter."""
    for index in range(1, 5):
        dims = facts.dims(node.input(index))
        if dims is not None and len(dims) == 1 and isinstance(dims[0], int):
            return dims[0]
    return None


def read_batchnorm(node: Node, facts: Facts) -> BatchNorm | Refusal:
    """The parameters of ``node``, or why it cannot be folded whatever stands around it."""
    refusal = _not_foldable(node, facts)
    if refusal is not None:
        return refusal
    vectors: list[Float64] = []
    kinds: list[int] = []
    for index, role in enumerate(PARAMETERS, start=1):
        constant = facts.constant(node.input(index))
        if constant is None or constant.any_shape:
            return facts.not_constant(node, index, role)
        if len(constant.shape) != 1:
            return Refusal(Reason.NOT_PER_CHANNEL, f'the {role} of "{node.name}" is no vector')
        vectors.append(constant.float64)
        kinds.append(constant.elem_type)
    if len({len(vector) for vector in vectors}) > 1:
        return Refusal(Reason.NOT_PER_CHANNEL, f'the parameters of "{node.name}" differ in length')
    gamma, beta, mean, var = vectors
    epsilon = float(node.attribute("epsilon", DEFAULT_EPSILON))
    affine = Affine.from_batchnorm(gamma, beta, mean, var, epsilon, rank=2)
    if not affine.finite:
        return Refusal(
            Reason.NON_FINITE_STATISTICS,
            f'"{node.name}" has parameters that are not finite, or a variance + epsilon <= 0',
        )
    return BatchNorm(gamma, beta, mean, affine, kinds[0], kinds[2])


def _not_foldable(node: Node, facts: Facts) -> Refusal | None:
    if node in facts.excluded:
        return Refusal(Reason.EXCLUDED, f'"{node.name}" is excluded by name')
    if node.has_references:
        return Refusal(Reason.DYNAMIC_WEIGHT, f'attributes of "{node.name}" come from the caller')
    if not 0 < node.opset <= _newest_opset():
        return Refusal(Reason.UNSUPPORTED_OPSET, f"opset {node.opset} is not known")
    if len(node.inputs) != 5 or node.output() is None:
        return Refusal(Reason.DYNAMIC_WEIGHT, f'"{node.name}" lacks a parameter')
    training = bool(node.attribute("training_mode", 0))
    training |= node.opset < 7 and not node.attribute("is_test", 0)
    training |= any(value is not None for value in node.outputs[1:])
    if training:
        return Refusal(
            Reason.TRAINING_MODE, f'"{node.name}" normalizes with the statistics of the batch'
        )
    if not node.attribute("spatial", 1):
        return Refusal(
            Reason.NOT_PER_CHANNEL, f'"{node.name}" has spatial = 0: statistics per element'
        )
    source = node.inputs[0]
    if source is not None and source.elem_type and source.elem_type not in FLOATS:
        return Refusal(Reason.UNSUPPORTED_OPSET, f'the type of "{source.name}" is not understood')
    return None


def _newest_opset() -> int:
    import onnx  # noqa: PLC0415 - only for its version

    return int(onnx.defs.onnx_opset_version())
