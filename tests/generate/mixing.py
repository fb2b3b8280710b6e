"""Activations, normalizations of samples, several computed tensors, and subgraphs."""

from __future__ import annotations

from onnx import GraphProto, TensorProto, helper

from tests.generate.absorbers import MAX_SIZE, pointwise, size, spatial
from tests.generate.builder import Builder, Tensor, static
from tests.generate.sites import SITES, batchnorm, broadcast, denominator, over


def activation(b: Builder, x: Tensor) -> Tensor:
    op = b.pick(["Relu", "Relu", "LeakyRelu", "Abs"])
    alpha = b.pick([None, 0.2, -0.3]) if op == "LeakyRelu" else None
    return b.node(op, [x], x.shape, alpha=alpha)


def prelu(b: Builder, x: Tensor) -> Tensor | None:
    if x.rank < 2 or not x.has(1) or b.opset < 7:
        return None
    shape = b.pick([(1,), (x.length(1), *(1,) * (x.rank - 2))])
    return b.node("PRelu", [x, b.constant(b.normal(*shape), hint="a")], x.shape)


def wall(b: Builder, x: Tensor) -> Tensor | None:
    """Nothing passes here."""
    if b.chance(20):
        return over(b, x)
    op = b.pick(["Sigmoid", "Tanh", "Softmax"])
    if op == "Softmax" and x.rank < 1:
        return None
    axis = x.rank - 1 if op == "Softmax" else None
    return b.node(op, [x], x.shape, axis=axis)


def per_sample(b: Builder, x: Tensor) -> Tensor | None:
    """InstanceNormalization, GroupNormalization, LayerNormalization."""
    if not spatial(b, x) or b.kind not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        return None
    count = x.length(1)
    if b.chance(40) or b.opset < 17:
        given = [b.constant(b.normal(count), hint="g"), b.constant(b.normal(count), hint="b")]
        return b.node("InstanceNormalization", [x, *given], x.shape, epsilon=0.1)
    if b.opset >= 21 and b.chance(40):
        given = [b.constant(b.normal(count), hint="g"), b.constant(b.normal(count), hint="b")]
        return b.node("GroupNormalization", [x, *given], x.shape, epsilon=0.1, num_groups=count)
    axis = b.small(1, x.rank - 1)
    dims = x.shape[axis:]
    if not all(d.known for d in dims):
        return None
    shape = [d.length for d in dims]
    inputs: list[Tensor | str] = [x, b.constant(b.normal(*shape), hint="g")]
    if b.chance(60):
        inputs.append(b.constant(b.normal(*shape), hint="b"))
    return b.node("LayerNormalization", inputs, x.shape, axis=axis - x.rank, epsilon=0.1)


def partner(b: Builder, x: Tensor) -> Tensor:
    """Another tensor that broadcasts against x: an old one, a branch of x, x itself."""
    fitting = [y for y in b.pool if broadcast(x.shape, y.shape) is not None]
    match b.small(0, 4):
        case 0:
            found = pointwise(b, x)
        case 1:
            found = batchnorm(b, x)
        case 2 if spatial(b, x):
            ones = (static(1),) * (x.rank - 2)
            found = b.node("GlobalAveragePool", [x], (*x.shape[:2], *ones))
            found = pointwise(b, found) or found
        case 3 if b.chance(30):
            found = x
        case _:
            found = None
    return found or b.pick(fitting)


def combine(b: Builder, x: Tensor) -> Tensor | None:
    """Two computed tensors."""
    op = b.pick(["Add", "Add", "Add", "Sub", "Mul", "Sum", "Max", "Min", "Where", "Div"])
    y = partner(b, x)
    if op in ("Mul", "Div") and (op == "Div" or b.chance(60)):
        y = denominator(b, y)  # a gate
    shape = broadcast(x.shape, y.shape)
    if shape is None or size(shape) > MAX_SIZE:
        return None
    if op in ("Sum", "Max", "Min") and b.opset < 8:
        op = "Add"
    if op == "Where":
        return _where(b, x, y) if b.opset >= 9 else None
    pair = [x, y] if op == "Div" or b.chance(60) else [y, x]
    if op == "Sum" and b.chance(30):
        pair.append(x)
    return b.node(op, pair, shape)


def _where(b: Builder, x: Tensor, y: Tensor) -> Tensor:
    shape = broadcast(x.shape, y.shape)
    assert shape is not None
    if b.chance(50):
        mask = b.add_input(shape, TensorProto.BOOL, whole=True)
        return b.node("Where", [mask, x, y], shape)
    name = b.fresh("c")
    dims = [d.length if d.known and b.chance(50) else 1 for d in shape]
    mask = (b.normal(*dims) > 0).tobytes()
    b.initializers.append(helper.make_tensor(name, TensorProto.BOOL, dims, mask, raw=True))
    return b.node("Where", [name, x, y], shape)


def if_(b: Builder, x: Tensor) -> Tensor | None:
    """Two bodies that capture what there is, x among it, and give the shape of x."""
    if b.depth or b.kind not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        return None
    condition = b.add_input((), TensorProto.BOOL, whole=True)
    graphs: dict[str, GraphProto] = {}
    for name in ("then_branch", "else_branch"):
        with b.nested() as (nodes, initializers):
            value = x
            for _ in range(b.small(0, 3)):
                step = b.pick([pointwise, activation, *SITES])(b, value)
                value = step if step is not None and step.shape == x.shape else value
            if value is x:
                value = b.node("Identity", [x], x.shape)
            value.uses += 1
            output = helper.make_empty_tensor_value_info(value.name)
            output.type.tensor_type.elem_type = value.kind
            for _ in x.shape:
                output.type.tensor_type.shape.dim.add()
            graphs[name] = GraphProto(
                node=nodes, name=name, initializer=initializers, output=[output]
            )
    # what the bodies read of the outside counts as read: leaves become outputs of the model
    x.uses += 1
    return b.node("If", [condition], x.shape, **graphs)


MIXING = [*[combine] * 6, *[activation] * 3, prelu, per_sample, wall, if_]
