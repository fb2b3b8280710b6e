"""Shapes of values, and the proof of which axes a reshape keeps, splits or merges.

Shapes come from ONNX shape inference on the skeleton. A dimension is an int, or a string: two equal
strings are the same length at run time, and a length that nothing is known of gets a string that
nothing else has. So axes are compared by proof and never by lengths that coincide.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto

from bnfold.affine import Affine, Float64, require_small
from bnfold.graph.index import Graph, Scope, Value

__all__ = ["Dims", "broadcast", "harmless", "infer", "joint", "reshape"]

Dims = tuple[int | str, ...]
Group = tuple[range, range]

MAX_LENGTH = 1 << 22
"""Longest axis that counts as known: arrays of that length are made for an affine along it."""

MAX_PROPAGATED = 1 << 12
"""Most elements of a shape that inference is left to compute with."""

MAX_VECTOR = 1 << 14
"""Longest vector that inference is left to take for a shape, where it is not known to be none."""

MAX_EQUATION = 1 << 8
"""Longest equation of an Einsum that inference is left to read, for a time that grows with its
square."""

_CRASHES = {"EyeLike", "RegexFullMatch"}
"""Operators whose inference ends the process where the type of an input is not known."""

_CRASHING_DOMAINS = {"ai.onnx.ml", "ai.onnx.preview.training"}
"""Domains of more such operators."""

_UNKNOWN = "bnfold.unknown"
"""A domain that inference knows nothing of, and so lets alone."""

_PROPAGATES = {"Cast", "Concat", "Gather", "Size", "Slice", "Squeeze", "Unsqueeze"}
"""Operators through which inference follows the values of shapes, beside arithmetic."""

_ARITHMETIC = {"Add", "Sub", "Mul"}
_SHAPES = {"Shape": 64, "Size": 1}
_KEEP_LENGTH = {"Cast", "Identity", "Squeeze", "Unsqueeze", "Slice"}


def infer(graph: Graph) -> None:
    """Fill in ``shape`` and ``elem_type`` of every value, where inference can tell."""
    unknown = (f"?{number}" for number in itertools.count())
    copy = harmless(graph.model)
    for info in copy.graph.input:
        for dim in info.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value") and not dim.dim_param:
                dim.dim_param = next(unknown)
    _help(copy.graph, {})
    try:
        inferred = _inferred(copy)
    except Exception:  # noqa: BLE001 - whatever inference dislikes only costs knowledge
        inferred = copy
    _read_graph(graph.main, inferred.graph, iter(graph.scopes[1:]), unknown)
    for scope in graph.scopes:
        for value in scope.values.values():
            if value.tensor is not None:
                value.shape = tuple(value.tensor.dims)
                value.elem_type = value.tensor.data_type
    _substitute(graph, dict(_channels(graph.main)))


def _inferred(model: ModelProto) -> ModelProto:
    """Infer with the values of shapes, where no vector is long enough to take them for one.

    Inference takes whatever has one axis for a shape, and writes it down length by length.
    """
    plain = onnx.shape_inference.infer_shapes(model)
    long = set(_long_vectors(plain.graph))
    if long and model.functions:
        return plain
    if long:
        _isolate(model.graph, long)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _long_vectors(graph: GraphProto) -> Iterator[str]:
    yield from (
        tensor.name
        for tensor in graph.initializer
        if len(tensor.dims) == 1 and tensor.dims[0] > MAX_VECTOR
    )
    for info in itertools.chain(graph.input, graph.value_info, graph.output):
        dims = info.type.tensor_type.shape.dim
        if len(dims) == 1 and dims[0].dim_value > MAX_VECTOR:
            yield info.name
    for node in graph.node:
        for inner in _bodies(node):
            yield from _long_vectors(inner)


def _isolate(graph: GraphProto, long: set[str]) -> None:
    """Hide the nodes that would compute with a long vector as with a shape."""
    for node in graph.node:
        for inner in _bodies(node):
            _isolate(inner, long)
        if not long.isdisjoint(node.input) and _propagates(node):
            node.domain = _UNKNOWN


def _propagates(node: NodeProto) -> bool:
    """Whether inference follows values through a node, or through what it is written out as."""
    if node.op_type in _PROPAGATES:
        return True
    try:
        schema: Any = onnx.defs.get_schema(node.op_type)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def _bodies(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        yield from [attribute.g] if attribute.HasField("g") else attribute.graphs


def harmless(model: ModelProto) -> ModelProto:
    """Return a copy in which nothing is left that native inference of shapes fails at.

    It runs in this process, where a crash, a hang or terabytes are no exceptions.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    for scope in (copy, *copy.functions):
        scope.opset_import.add(domain=_UNKNOWN, version=1)
    for function in copy.functions:
        _bound_nodes(function.node, {})
    _bound_graph(copy.graph, {})
    return copy


def _help(graph: GraphProto, outer: dict[str, TensorProto]) -> None:
    """Give inference what it lacks, in its own copy of the graph.

    It does not see the initializers outside a body, so a Reshape there would tell nothing.
    """
    known = dict(outer)
    known.update((t.name, t) for t in graph.initializer if t.data_type == TensorProto.INT64)
    for node in graph.node:
        if node.op_type == "GroupNormalization" and node.domain in ("", "ai.onnx"):
            # inference knows nothing of it, and so of nothing behind it
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            known[node.output[0]] = node.attribute[0].t
        for inner in _bodies(node):
            captured = {name for each in inner.node for name in each.input} & known.keys()
            for name in sorted(captured):
                if known[name].data_type == TensorProto.INT64 and len(known[name].dims) < 2:
                    inner.initializer.add().CopyFrom(known[name])
                    inner.initializer[-1].name = name
            _help(inner, known)


def _bound_graph(graph: GraphProto, outer: dict[str, int]) -> None:
    """Keep inference from computing with long vectors.

    It computes the values of shapes element by element, and takes every Add, Sub, Mul and Concat
    for a computation of shapes: of a vector of 2^40 elements, which is easily declared, too.
    """
    lengths = dict(outer)
    for tensor in graph.initializer:
        if len(tensor.dims) < 2:
            lengths[tensor.name] = math.prod(tensor.dims)
    _bound_nodes(graph.node, lengths)


def _bound_nodes(nodes: Any, lengths: dict[str, int]) -> None:
    """Replace what would compute with more than a shape can have by what only has its type.

    Args:
        nodes: In the order of the file.
        lengths: At most how many elements a value has, for those that may be shapes; extended.
    """
    for node in nodes:
        for inner in _bodies(node):
            _bound_graph(inner, lengths)
        if _is_harmful(node):
            node.domain = _UNKNOWN
            continue
        length = _longest(node, lengths)
        if length is not None and length <= MAX_PROPAGATED:
            lengths.update(dict.fromkeys(node.output, length))
        elif node.op_type in _ARITHMETIC:
            node.op_type = "Div"  # the same types, and no values
        elif node.op_type == "Concat" and length is not None:
            node.op_type = "Identity"
            del node.input[:], node.attribute[:]


def _is_harmful(node: NodeProto) -> bool:
    if node.op_type == "Einsum":
        return any(len(attribute.s) > MAX_EQUATION for attribute in node.attribute)
    return node.op_type in _CRASHES or node.domain in _CRASHING_DOMAINS


def _longest(node: NodeProto, lengths: dict[str, int]) -> int | None:
    """How many elements the result has at most, or None where it is no computation of shapes."""
    if node.op_type in _SHAPES:
        return _SHAPES[node.op_type]
    if node.op_type == "Constant":
        tensor = node.attribute[0].t if node.attribute else TensorProto()
        return math.prod(tensor.dims) if len(tensor.dims) < 2 else None
    known = [lengths.get(name) for name in node.input]
    if node.op_type in _KEEP_LENGTH:
        return known[0] if known else None
    if node.op_type == "Gather" and len(known) == 2 and known[0] is not None:
        return known[1]
    parts = [length for length in known if length is not None]
    if len(parts) < len(known) or node.op_type not in _ARITHMETIC | {"Concat"}:
        return None
    return sum(parts) if node.op_type == "Concat" else max(parts, default=None)


def _channels(scope: Scope) -> Iterator[tuple[str, int]]:
    """Symbols that can only have one length, because of a parameter of a node that always runs."""
    for node in scope.nodes:
        parameter = node.input(1)
        dims = None if parameter is None else parameter.shape
        if dims is None or not all(isinstance(dim, int) for dim in dims):
            continue
        numbers = [dim for dim in dims if isinstance(dim, int)]
        if node.op == "BatchNormalization" and len(numbers) == 1:
            lengths = (numbers[0], numbers[0])
        elif node.op == "Conv" and len(numbers) > 2:
            lengths = (numbers[1] * node.attribute("group", 1), numbers[0])
        elif node.op == "ConvTranspose" and len(numbers) > 2:
            lengths = (numbers[0], numbers[1] * node.attribute("group", 1))
        else:
            continue
        for value, length in zip((node.input(0), node.output()), lengths, strict=True):
            shape = (value.shape or ()) if value is not None else ()
            if len(shape) > 1 and isinstance(shape[1], str):
                yield shape[1], length


def _substitute(graph: Graph, lengths: dict[str, int]) -> None:
    if not lengths:
        return
    for scope in graph.scopes:
        for value in scope.values.values():
            if value.shape is not None:
                value.shape = tuple(
                    lengths.get(dim, dim) if isinstance(dim, str) else dim for dim in value.shape
                )


def _read_graph(
    scope: Scope, proto: GraphProto, nested: Iterator[Scope], unknown: Iterator[str]
) -> None:
    for info in itertools.chain(proto.input, proto.value_info, proto.output):
        value = scope.values.get(info.name)
        if value is not None:
            _read_type(value, info.type, unknown)
    for node in proto.node:
        # the order in which Graph indexes nested scopes: attributes are unique by name
        for attribute in {a.name: a for a in node.attribute}.values():
            graphs = [attribute.g] if attribute.HasField("g") else attribute.graphs
            for inner in graphs:
                _read_graph(next(nested), inner, nested, unknown)


def _read_type(value: Value, kind: TypeProto, unknown: Iterator[str]) -> None:
    if not kind.HasField("tensor_type"):
        return
    tensor = kind.tensor_type
    value.elem_type = value.elem_type or tensor.elem_type
    if tensor.HasField("shape"):
        dims = [_dim(dim) for dim in tensor.shape.dim]
        if value.shape is None or len(value.shape) != len(dims):
            value.shape = tuple(next(unknown) if dim is None else dim for dim in dims)


def _dim(dim: Any) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if 0 <= dim.dim_value <= MAX_LENGTH else None
    return str(dim.dim_param) or None


def broadcast(dims: Dims, constant: tuple[int, ...]) -> Dims:
    """The shape of a tensor combined with a constant; a length that meets n > 1 can only be 1 or n.

    Args:
        dims: Shape of the tensor.
        constant: Shape of the constant.
    """
    rank = max(len(dims), len(constant))
    left = (1,) * (rank - len(dims)) + dims
    right = (1,) * (rank - len(constant)) + constant
    return tuple(b if b != 1 else a for a, b in zip(left, right, strict=True))


def joint(operands: Sequence[Dims], label: str) -> Dims:
    """The shape of operands that are broadcast together; lengths that are not known get names.

    Args:
        operands: Shapes of the operands.
        label: What the names are formed from.
    """
    rank = max((len(dims) for dims in operands), default=0)
    aligned = [(1,) * (rank - len(dims)) + dims for dims in operands]
    result: list[int | str] = []
    for axis in range(rank):
        lengths = {dims[axis] for dims in aligned} - {1}
        numbers = [length for length in lengths if isinstance(length, int)]
        if numbers:
            result.append(numbers[0])
        else:
            result.append(f"?{label}.{axis}" if len(lengths) > 1 else next(iter(lengths), 1))
    return tuple(result)


def reshape(affine: Affine, source: Dims, target: Dims) -> Affine | None:
    """Follow a reshape of the tensor, in row-major order.

    Args:
        affine: Acts on the tensor of shape ``source``.
        source: Shape before.
        target: Shape after; the number of elements is the same.

    Returns:
        The affine that acts alike on the reshaped tensor, or None where that cannot be proved from
        the shapes: an axis along which it varies is merged with, or split into, unknown lengths.
    """
    if 0 in source or 0 in target:
        return None
    groups = _groups(source, target)
    if groups is None:
        return None
    for before, after in groups:
        if not affine.axes.isdisjoint(before) and not _known(before, after, source, target):
            return None
    try:
        return affine.map(lambda array: _regroup(array, groups, source, target))
    except ValueError:  # the lengths that the model declares contradict its parameters, or are huge
        return None


def _known(before: range, after: range, source: Dims, target: Dims) -> bool:
    if len(before) == len(after) == 1:
        return True
    lengths = [source[i] for i in before] + [target[i] for i in after]
    return all(isinstance(length, int) for length in lengths)


def _regroup(array: Float64, groups: Sequence[Group], source: Dims, target: Dims) -> Float64:
    shape: list[int] = []
    for before, after in groups:
        if all(array.shape[axis] == 1 for axis in before):
            shape += [1] * len(after)
            continue
        if len(before) == len(after) == 1:
            shape.append(array.shape[before[0]])
            continue
        full = list(array.shape)
        for axis in before:
            length = source[axis]
            assert isinstance(length, int)  # noqa: S101 - _known has proved it
            full[axis] = length
        require_small(full)
        array = np.broadcast_to(array, full)
        shape += [length for axis in after if isinstance(length := target[axis], int)]
    return array.reshape(shape)


def _groups(source: Dims, target: Dims) -> list[Group] | None:
    """Cut both shapes where provably as many elements lie before (or behind) the cut."""
    cuts = {(0, 0), (len(source), len(target))}
    cuts |= _equal_products(source, target)
    backwards = _equal_products(source[::-1], target[::-1])
    cuts |= {(len(source) - i, len(target) - j) for i, j in backwards}
    ordered = sorted(cuts)
    if any(b[1] < a[1] for a, b in itertools.pairwise(ordered)):
        return None
    groups = [(range(a[0], b[0]), range(a[1], b[1])) for a, b in itertools.pairwise(ordered)]
    return [group for group in groups if len(group[0]) or len(group[1])]


def _equal_products(source: Dims, target: Dims) -> set[tuple[int, int]]:
    products: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for count in range(len(source) + 1):
        products.setdefault(_product(source[:count]), []).append(count)
    cuts: set[tuple[int, int]] = set()
    for count in range(len(target) + 1):
        for other in products.get(_product(target[:count]), ()):
            cuts.add((other, count))
    return _one_to_one(cuts)


def _one_to_one(cuts: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Axes of length 1 make several cuts equal: pair them in order, so that ranges never cross."""
    chosen: set[tuple[int, int]] = set()
    last = (-1, -1)
    for cut in sorted(cuts):
        if cut[0] > last[0] and cut[1] > last[1]:
            chosen.add(cut)
            last = cut
    return chosen


def _product(dims: Dims) -> tuple[int, tuple[str, ...]]:
    number = math.prod(dim for dim in dims if isinstance(dim, int))
    return number, tuple(sorted(dim for dim in dims if isinstance(dim, str)))
