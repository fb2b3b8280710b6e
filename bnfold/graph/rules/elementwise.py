"""Add, Sub, Mul, Div, Neg, Sum: with a constant an affine themselves, else they carry one.

With a constant c, and the affine A = (s, t) on the other side::

    eaten       the node joins the affine and goes; c / x is not affine
    x + c       A(x + c) = s x + A(c): the constant takes the shift, s goes on
    x * c       s (x c) = x (s c), if t = 0; downwards (s x + t) c = s (x c) + t c

Between computed tensors::

    x + y       s to both, t to one
    x * y       if t = 0: s to one of them
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bnfold.affine import Affine, Float64
from bnfold.graph.constants import FLOATS, Constant
from bnfold.graph.facts import Facts, fit
from bnfold.graph.index import Node, Value
from bnfold.graph.plan import Answer, Bypass, Refusal, Rule, SetConstant, Step, dense
from bnfold.report import Reason

__all__ = ["RULES", "ConstantOperand", "constant_operand"]


@dataclass(frozen=True, eq=False)
class ConstantOperand:
    """An elementwise node with one constant operand.

    Attributes:
        node: The node.
        index: Which input is computed.
        constant: The constant operand.
        values: Its values as float64, aligned to the rank of the result.
        affine: What the node does to the computed operand.
    """

    node: Node
    index: int
    constant: Constant
    values: Float64
    affine: Affine

    @property
    def computed(self) -> Value:
        """The computed operand."""
        value = self.node.inputs[self.index]
        assert value is not None  # noqa: S101 - constant_operand has seen it
        return value


def constant_operand(node: Node, rank: int | None, facts: Facts) -> ConstantOperand | Refusal:
    """Read an elementwise node as an affine of its computed operand.

    Args:
        node: Add, Sub, Mul, Div or Neg.
        rank: Rank of the result, or None to look it up.
        facts: Knowledge about the graph.
    """
    if node.op == "Neg":
        return _negation(node, rank, facts)
    found = _split(node, facts)
    if found is None:
        return Refusal(Reason.NONLINEAR, f'"{node.name}" has no constant operand')
    index, constant = found
    value = node.inputs[index]
    assert value is not None  # noqa: S101 - _split has seen it
    known = facts.rank(value)
    rank = rank if rank is not None else known
    if rank is None:
        return _unknown(node, value)
    values = _aligned(node, constant, rank)
    if values is None or (constant.data.ndim >= rank and known != rank):
        return _unknown(node, value)
    dims = facts.dims(value)
    for axis, length in enumerate(values.shape):
        if length != 1 and (known != rank or dims is None or dims[axis] != length):
            return _unknown(node, value)
    if not np.isfinite(values).all():
        return Refusal(Reason.NON_FINITE_STATISTICS, f'the constant of "{node.name}" is not finite')
    affine = _as_affine(node.op, index, values)
    if affine is None:
        return Refusal(Reason.NONLINEAR, f'"{node.name}" divides by it, or by zero')
    return ConstantOperand(node, index, constant, values, affine)


def _negation(node: Node, rank: int | None, facts: Facts) -> ConstantOperand | Refusal:
    value = node.input(0)
    rank = rank if rank is not None else facts.rank(value)
    if value is None or rank is None or value.elem_type not in FLOATS:
        return Refusal(Reason.UNKNOWN_SHAPE, f'the type or rank at "{node.name}" is unknown')
    minus = np.full((1,) * rank, -1.0)
    constant = Constant(value.elem_type, minus)
    return ConstantOperand(node, 0, constant, minus, Affine.of(minus, minus * 0.0))


def _split(node: Node, facts: Facts) -> tuple[int, Constant] | None:
    if len(node.inputs) != 2:
        return None
    right, left = facts.constant(node.inputs[1]), facts.constant(node.inputs[0])
    if (right is None) == (left is None):
        return None
    constant, index = (right, 0) if right is not None else (left, 1)
    assert constant is not None  # noqa: S101 - exactly one is
    return None if constant.any_shape else (index, constant)


def _aligned(node: Node, constant: Constant, rank: int) -> Float64 | None:
    """The values with the rank of the result; before opset 7 the axis is an attribute."""
    values = constant.float64
    if values.ndim > rank:
        return None
    axis = rank - values.ndim
    if node.opset < 7 and values.ndim:
        if not node.attribute("broadcast", 0) and values.ndim != rank:
            return None
        given = node.attribute("axis")
        axis = axis if given is None else int(given) % rank
    after = rank - axis - values.ndim
    return None if after < 0 else values.reshape((1,) * axis + values.shape + (1,) * after)


def _as_affine(op: str, index: int, c: Float64) -> Affine | None:
    one, zero = np.ones((1,) * c.ndim), np.zeros((1,) * c.ndim)
    match op, index:
        case "Add", _:
            return Affine(one, c, zero)
        case "Sub", 0:
            return Affine(one, zero, c)
        case "Sub", 1:
            return Affine(-one, c, zero)
        case "Mul", _:
            return Affine(c, zero, zero)
        case "Div", 0 if c.all():
            return Affine(1.0 / c, zero, zero)
    return None


def _unknown(node: Node, value: Value) -> Refusal:
    return Refusal(
        Reason.UNKNOWN_SHAPE,
        f'"{node.name}" may broadcast "{value.name}": its shape is not proved',
    )


# --- one constant operand


def _constant_backward(operand: ConstantOperand, demand: Affine) -> Answer:
    node = operand.node
    eaten = Step(
        passes={operand.index: operand.affine.then(demand)},
        edits=[Bypass(node, operand.index)],
        cost=-1,
    )
    kept = _keep_backward(operand, demand)
    producer = operand.computed.producer
    if kept is not None and producer is not None and producer.op == "MatMul":
        return [kept, eaten]  # the Add is the bias that a MatMul has not
    return [eaten] if kept is None else [eaten, kept]


def _keep_backward(operand: ConstantOperand, demand: Affine) -> Step | None:
    """The node stays and its constant takes the shift (Add, Sub), or the scale (Mul)."""
    c = operand.values
    match operand.node.op, operand.index:
        case "Add", _:
            new = demand.apply(c)
        case "Sub", 0:
            new = -demand.apply(-c)
        case "Sub", 1:
            new = demand.apply(c)
        case "Mul", _ if demand.is_linear:
            return _with_constant(operand, demand.scale * c, {})
        case _:
            return None
    return _with_constant(operand, new, {operand.index: demand.linear()})


def _constant_forward(operand: ConstantOperand, pending: Affine) -> Answer:
    out = pending.then(operand.affine)
    steps = [Step(passes={0: out}, edits=[Bypass(operand.node, operand.index)], cost=-1)]
    kept: Step | None = None
    match operand.node.op, operand.index:
        case "Add", _ if pending.is_shift:
            kept = _with_constant(operand, operand.values + pending.offset, {})
        case "Sub", 0 if pending.is_shift:
            kept = _with_constant(operand, operand.values - pending.offset, {})
        case "Sub", 1 if pending.is_shift:
            kept = _with_constant(operand, operand.values - pending.offset, {})
        case "Mul", _ if pending.is_linear:
            kept = _with_constant(operand, operand.values * pending.scale, {})
    if kept is not None:
        return [kept, *steps] if pending.is_shift else [*steps, kept]
    if operand.affine.is_linear:
        # m (s x + t) = s (m x) + m t: the node stays, and the shift goes on
        factor = operand.affine.scale
        steps.append(Step(passes={0: Affine.of(pending.scale, pending.offset * factor)}))
    return steps


def _with_constant(
    operand: ConstantOperand, new: Float64, passes: Mapping[int, Affine]
) -> Step | None:
    node, kind = operand.node, operand.constant.elem_type
    if node.opset < 7:
        return None
    drop = 0  # leading axes of length 1 that the stored constant has not
    while new.ndim - drop > operand.constant.data.ndim and new.shape[drop] == 1:
        drop += 1
    new = new.reshape(new.shape[drop:])
    data = dense(new, FLOATS[kind])
    trouble = data.out_of_range()
    if trouble == "overflows" or (trouble is not None and node.op == "Mul"):
        return None
    edit = SetConstant(node, 1 - operand.index, data, kind, "constant")
    keeps = {index: affine for index, affine in passes.items() if not affine.is_identity}
    return Step(passes=keeps, edits=[edit], absorbs=True)


# --- computed operands


def _sum_backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    """S to every operand, t to one of them: to a constant for choice."""
    demand = demands[0]
    scales: dict[int, Affine] = {}
    shifts: dict[int, Affine] = {}
    refusal: Refusal | None = None
    for index, value in enumerate(node.inputs):
        if value is None:
            return Refusal(Reason.NONLINEAR, f'"{node.name}" lacks an operand')
        scale = fit(demand.linear(), value, facts, node)
        if isinstance(scale, Refusal):
            return scale
        scales[index] = scale
        negative = node.op == "Sub" and index == 1
        whole = fit(_mirrored(demand) if negative else demand, value, facts, node)
        if isinstance(whole, Refusal):
            refusal = whole
        else:
            shifts[index] = whole
    if demand.is_linear:
        return [Step(passes=scales)]
    counts = [node.inputs.count(value) for value in node.inputs]
    if min(counts) == len(counts) > 1 and node.op != "Sub":  # each x of x + x takes t / 2
        each = Affine.of(demand.scale, demand.offset / len(counts))
        return [Step(passes=dict.fromkeys(scales, each))]
    shifts = {index: whole for index, whole in shifts.items() if counts[index] == 1}
    if not shifts and refusal is None:
        refusal = Refusal(Reason.FAN_OUT, f'"{node.name}" reads one tensor twice')
    if not shifts:
        assert refusal is not None  # noqa: S101 - no operand could take the shift
        return refusal
    order = sorted(shifts, key=lambda i: facts.constant(node.inputs[i]) is None)
    return [Step(passes={**scales, index: shifts[index]}) for index in order]


def _mirrored(affine: Affine) -> Affine:
    """The affine B with B(y) = -A(-y)."""
    return Affine(affine.scale, -affine.shift, -affine.center)


def _sum_forward(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
    lifted = _lifted(node, pending, facts)
    if isinstance(lifted, Refusal):
        return lifted
    first = next(iter(lifted.values()))
    if len(lifted) < len(node.inputs):
        first = Affine.identity(first.rank)
    if not all(np.array_equal(affine.scale, first.scale) for affine in lifted.values()):
        return Refusal(Reason.NONLINEAR, f'"{node.name}" adds a tensor without this scale')
    offset = np.zeros((1,) * first.rank)
    for index, affine in lifted.items():
        offset = offset - affine.offset if node.op == "Sub" and index else offset + affine.offset
    return [Step(passes={0: Affine(first.scale, offset, np.zeros((1,) * first.rank))})]


def _product_backward(node: Node, demand: Affine, facts: Facts) -> Answer:
    if not demand.is_linear:
        return Refusal(Reason.NONLINEAR, f'the shift does not pass the product "{node.name}"')
    steps: list[Step] = []
    refusal = Refusal(Reason.NONLINEAR, f'"{node.name}" has no operand to scale')
    for index, value in enumerate(node.inputs[: 1 if node.op == "Div" else 2]):
        if value is None or node.inputs.count(value) > 1:
            continue
        scale = fit(demand, value, facts, node)
        if isinstance(scale, Refusal):
            refusal = scale
        else:
            steps.append(Step(passes={index: scale}))
    return steps or refusal


def _product_forward(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
    if not all(affine.is_linear for affine in pending.values()):
        return Refusal(Reason.NONLINEAR, f'the shift does not pass the product "{node.name}"')
    if node.op == "Div" and 1 in pending:
        return Refusal(Reason.NONLINEAR, f'"{node.name}" divides by it')
    lifted = _lifted(node, pending, facts)
    if isinstance(lifted, Refusal):
        return lifted
    scale = np.ones((1,) * next(iter(lifted.values())).rank)
    for affine in lifted.values():
        scale = scale * affine.scale
    return [Step(passes={0: Affine.of(scale, np.zeros((1,) * scale.ndim))})]


def _lifted(node: Node, pending: Mapping[int, Affine], facts: Facts) -> dict[int, Affine] | Refusal:
    """The affines of the operands, all with the rank of the result."""
    ranks = [facts.rank(value) for value in node.inputs]
    known = [rank for rank in ranks if rank is not None]
    if len(known) < len(ranks):
        return Refusal(Reason.UNKNOWN_SHAPE, f'the rank of an operand of "{node.name}" is unknown')
    rank = max(known)
    return {
        index: affine.map(lambda a: a.reshape((1,) * (rank - a.ndim) + a.shape))
        for index, affine in pending.items()
    }


def _backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    demand = demands[0]
    if node.op == "Neg" or _split(node, facts) is not None:
        operand = constant_operand(node, demand.rank, facts)
        if isinstance(operand, ConstantOperand):
            return _constant_backward(operand, demand)
        if operand.reason is not Reason.UNKNOWN_SHAPE or node.op == "Neg":
            return operand
    if node.opset < 7:
        return _old_broadcast(node)
    if node.op in ("Mul", "Div"):
        return _product_backward(node, demand, facts)
    return _sum_backward(node, demands, facts)


def _forward(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
    if node.op == "Neg" or _split(node, facts) is not None:
        operand = constant_operand(node, next(iter(pending.values())).rank, facts)
        if isinstance(operand, Refusal):
            return operand
        return _constant_forward(operand, pending[operand.index])
    if node.opset < 7:
        return _old_broadcast(node)
    if node.op in ("Mul", "Div"):
        return _product_forward(node, pending, facts)
    return _sum_forward(node, pending, facts)


def _old_broadcast(node: Node) -> Refusal:
    return Refusal(
        Reason.UNSUPPORTED_OPSET, f'"{node.name}" is of an opset whose operands do not broadcast'
    )


_SUM = Rule(
    _backward,
    _forward,
    takes="any: a constant operand joins or takes the shift; of computed ones all take s, one t",
    gives="any with a constant operand; of computed ones all must bring the same scale",
    equation="s (x + y) + t = s x + (s y + t)",
)
_PRODUCT = Rule(
    _backward,
    _forward,
    takes="any with a constant operand; t = 0 between computed ones, s to one of them",
    gives="any with a constant operand; t = 0 between computed ones",
    equation="s (x y) = (s x) y",
)

RULES = {
    "Add": _SUM,
    "Sub": _SUM,
    "Neg": _SUM,
    "Sum": Rule(
        _sum_backward,
        _sum_forward,
        takes="any: all take s, one t",
        gives="all must bring the same scale",
        equation="s (x + y) + t = s x + (s y + t)",
    ),
    "Mul": _PRODUCT,
    "Div": _PRODUCT,
}
