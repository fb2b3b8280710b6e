"""If, Loop and Scan: bodies that capture what there is, with normalizations inside."""

from __future__ import annotations

from onnx import GraphProto, TensorProto, helper

from tests.generate.absorbers import pointwise, size
from tests.generate.builder import Builder, Shape, Tensor, static
from tests.generate.sites import SITES

__all__ = ["BODIES"]

RUNTIME = (TensorProto.FLOAT, TensorProto.DOUBLE)


def _steps(b: Builder, x: Tensor) -> Tensor:
    """Up to three nodes that keep the shape of ``x``; one at least."""
    value = x
    for _ in range(b.small(0, 3)):
        step = b.pick([pointwise, _relu, *SITES])(b, value)
        value = step if step is not None and step.shape == x.shape else value
    value = b.node("Identity", [x], x.shape) if value is x else value
    value.uses += 1
    return value


def _relu(b: Builder, x: Tensor) -> Tensor:
    return b.node("Relu", [x], x.shape)


def _info(name: str, kind: int, rank: int | None):  # type: ignore[no-untyped-def]
    return helper.make_tensor_value_info(name, kind, None if rank is None else [None] * rank)


def if_(b: Builder, x: Tensor) -> Tensor | None:
    """Two bodies that give the shape of x."""
    if b.depth or b.kind not in RUNTIME:
        return None
    condition = b.add_input((), TensorProto.BOOL, whole=True)
    graphs: dict[str, GraphProto] = {}
    for name in ("then_branch", "else_branch"):
        with b.nested() as (nodes, initializers):
            value = _steps(b, x)
            output = _info(value.name, value.kind, x.rank)
            graphs[name] = GraphProto(
                node=nodes, name=name, initializer=initializers, output=[output]
            )
    # what the bodies read of the outside counts as read: leaves become outputs of the model
    x.uses += 1
    return b.node("If", [condition], x.shape, **graphs)


def loop(b: Builder, x: Tensor) -> Tensor | None:
    """A value that is carried on, and perhaps one that is kept of each round."""
    if b.depth or b.kind not in RUNTIME or b.opset < 11 or size(x.shape) > 500:
        return None
    rounds = b.small(1, 2)
    trips = b.integers([rounds], scalar=True)
    with b.nested() as (nodes, initializers):
        names = [b.fresh(hint) for hint in ("round", "going", "carried")]
        infos = [
            _info(names[0], TensorProto.INT64, 0), _info(names[1], TensorProto.BOOL, 0),
            _info(names[2], x.kind, x.rank),
        ]  # fmt: skip
        carried = Tensor(names[2], x.shape, x.kind)
        value = _steps(b, b.pick([carried, carried, x]))
        going = b.fresh("on")
        b.append("Identity", [names[1]], [going])
        outputs = [_info(going, TensorProto.BOOL, 0), _info(value.name, x.kind, x.rank)]
        shapes: list[Shape] = [x.shape]
        if b.chance(40):
            each = _steps(b, value)
            outputs.append(_info(each.name, x.kind, x.rank))
            shapes.append((static(rounds), *x.shape))
        body = GraphProto(
            node=nodes, name="body", initializer=initializers, input=infos, output=outputs
        )
    x.uses += 1
    return b.node("Loop", [trips, "", x], shapes, body=body)


def scan(b: Builder, x: Tensor) -> Tensor | None:
    """The slices of x one by one."""
    if b.depth or b.kind not in RUNTIME or b.opset < 11 or x.rank < 3 or 0 in x.shape[0].sizes:
        return None
    state = b.constant(b.normal(2), hint="state", plain=True)
    with b.nested() as (nodes, initializers):
        names = [b.fresh("state"), b.fresh("slice")]
        infos = [_info(names[0], x.kind, 1), _info(names[1], x.kind, x.rank - 1)]
        kept = b.fresh("kept")
        b.append("Identity", [names[0]], [kept])
        value = _steps(b, Tensor(names[1], x.shape[1:], x.kind))
        outputs = [_info(kept, x.kind, 1), _info(value.name, x.kind, x.rank - 1)]
        body = GraphProto(
            node=nodes, name="body", initializer=initializers, input=infos, output=outputs
        )
    x.uses += 1
    b.node("Scan", [state, x], [(static(2),), x.shape], body=body, num_scan_inputs=1)
    return b.pool[-2]


BODIES = [if_, loop, scan]
