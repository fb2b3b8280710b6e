"""What a rule may ask about a graph: constants, shapes, ranks, why something is unknown."""

from __future__ import annotations

from dataclasses import dataclass, field

from bnfold.affine import Affine
from bnfold.graph import shapes
from bnfold.graph.constants import Constant, Constants
from bnfold.graph.index import Node, Value
from bnfold.graph.plan import Refusal
from bnfold.graph.shapes import Dims
from bnfold.report import Reason

__all__ = ["EFFORT", "EFFORT_PER_NODE", "Facts", "fit", "length_of", "unknown_length"]

EFFORT = 1 << 14
EFFORT_PER_NODE = 6
"""What all plans of a model may cost: few nodes can be laid so that each site goes past all."""

SAME_SHAPE = {
    "BatchNormalization", "Relu", "LeakyRelu", "PRelu", "Identity", "Dropout", "Sigmoid", "Tanh",
    "Clip", "Cast", "InstanceNormalization", "GroupNormalization", "Elu", "Selu", "HardSigmoid",
    "HardSwish", "Softmax",
}  # fmt: skip
CONVOLUTIONS = {"Conv", "ConvTranspose"}
ARITHMETIC = {"Add", "Sub", "Mul", "Div"}
SAME_RANK = SAME_SHAPE | {
    "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Transpose", "Concat", "Slice",
    "Split", "Pad",
}  # fmt: skip


@dataclass
class Facts:
    """Read-only knowledge for rules.

    Attributes:
        constants: Evaluates constant expressions.
        excluded: Nodes that the user asked to leave alone.
        effort: What plans may still cost, in answers of rules about small tensors.
    """

    constants: Constants
    excluded: set[Node] = field(default_factory=set)
    effort: int = EFFORT

    def constant(self, value: Value | None) -> Constant | None:
        """The float constant that a value is, or None."""
        found = self.constants.get(value)
        return found if found is not None and found.is_float else None

    def integers(self, value: Value | None) -> list[int] | None:
        """The values of a small integer tensor, or None where it is not constant."""
        found = self.constants.get(value)
        if found is None or found.is_float or found.any_shape or found.data.size > 1 << 20:
            return None
        return found.integers()

    def dims(self, value: Value | None) -> Dims | None:
        """The shape of a value, or None where not even the rank is known.

        Inference is sometimes silent in subgraphs: then from what keeps the shape of its input,
        and from arithmetic with constants.
        """
        stretched: list[tuple[int, ...]] = []
        for _ in range(64):
            if value is None or value.shape is not None:
                break
            node = value.producer
            if node is None or value is not node.output() or node.op in CONVOLUTIONS:
                break
            if node.op in SAME_SHAPE:
                value = node.input(0)
                continue
            constants = [self.constants.get(operand) for operand in node.inputs]
            known = [c.shape for c in constants if c is not None and not c.any_shape]
            if node.op not in ARITHMETIC or node.opset < 7 or len(known) != 1:
                return None
            stretched += known
            value = node.inputs[0 if constants[0] is None else 1]
        dims = None if value is None else value.shape
        if value is not None and dims is None:
            dims = self._dims_of_weight(value)
        for shape in reversed(stretched):
            dims = None if dims is None else shapes.broadcast(dims, shape)
        return dims

    def _dims_of_weight(self, value: Value) -> Dims | None:
        """The shape of what a convolution computes: its channels, and lengths of its own."""
        node = value.producer
        if node is None or node.op not in CONVOLUTIONS or value is not node.output():
            return None
        weight = self.constants.get(node.input(1))
        if weight is None or weight.any_shape or len(weight.shape) < 3:
            return None
        channels, group = weight.shape[0], node.attribute("group", 1)
        if node.op == "ConvTranspose":
            channels = weight.shape[1] * group
        spatial = (f"?{node.scope.label}.{value.name}.{i}" for i in range(2, len(weight.shape)))
        return (f"?{node.scope.label}.{value.name}.0", channels, *spatial)

    def rank(self, value: Value | None) -> int | None:
        """The rank of a value; where inference is silent, from the weights of its producers."""
        for _ in range(64):
            if value is None:
                return None
            dims = self.dims(value)
            if dims is not None:
                return len(dims)
            node = value.producer
            if node is None:
                return None
            constant = self.constants.get(value) if node.op == "Constant" else None
            if constant is not None:
                return len(constant.shape)
            if node.op in ("Conv", "ConvTranspose"):
                value = node.input(1)
            elif node.op == "Gemm":
                return 2
            elif node.op in SAME_RANK:
                value = node.input(0)
            else:
                return None
        return None

    def not_constant(self, node: Node, index: int, role: str) -> Refusal:
        """Why input ``index`` of ``node`` is not a constant."""
        value = node.input(index)
        name = "" if value is None else value.name
        if value is not None and self.constants.is_overridable(value):
            return Refusal(
                Reason.OVERRIDABLE_INITIALIZER,
                f'the {role} "{name}" of "{node.name}" is a graph input: callers may replace it',
            )
        return Refusal(
            Reason.DYNAMIC_WEIGHT, f'the {role} "{name}" of "{node.name}" is not a float constant'
        )


def fit(affine: Affine, value: Value, facts: Facts, node: Node) -> Affine | Refusal:
    """Restrict an affine of a broadcast result to one operand.

    The operand's axes align with the last axes of the result. It can follow only where the affine
    does not vary along an axis that broadcasting stretches.

    Args:
        affine: Acts on the result.
        value: The operand.
        facts: For its shape.
        node: For the message.
    """
    rank = facts.rank(value)
    if rank is None or rank > affine.rank:
        return Refusal(Reason.UNKNOWN_SHAPE, f'the rank of "{value.name}" is unknown')
    extra = affine.rank - rank
    dims = facts.dims(value)
    for axis in affine.axes:
        length = None if axis < extra or dims is None else dims[axis - extra]
        if axis < extra or length == 1:
            return Refusal(
                Reason.NOT_PER_CHANNEL,
                f'"{node.name}" broadcasts "{value.name}" along the axis of the affine',
            )
        sizes = {array.shape[axis] for array in (affine.scale, affine.shift, affine.center)} - {1}
        if {length} != sizes:
            return Refusal(
                Reason.UNKNOWN_SHAPE,
                f'axis {axis - extra} of "{value.name}" is not proved to be {max(sizes)} long',
            )
    return affine.map(lambda array: array.reshape(array.shape[extra:]))


def length_of(value: Value | None, axis: int, facts: Facts) -> int | None:
    """The length of one axis of a value, or None where it is unknown."""
    dims = facts.dims(value)
    length = None if dims is None or not -len(dims) <= axis < len(dims) else dims[axis]
    return length if isinstance(length, int) else None


def unknown_length(node: Node, axis: int) -> Refusal:
    """The refusal for an axis of unknown length."""
    return Refusal(Reason.UNKNOWN_SHAPE, f'the length of axis {axis} at "{node.name}" is unknown')
