"""Damage, the same for the same seed: to the bytes of any file, and to the meaning of a model."""

from __future__ import annotations

import random
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

__all__ = ["mutate_bytes", "mutate_model"]

INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    64,
    255,
    1 << 16,
    1 << 31,
    (1 << 31) - 1,
    -(1 << 31),
    1 << 40,
    1 << 62,
)
OPERATORS = (
    *("Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv"),
    *("ConstantOfShape", "ConvTranspose", "DepthToSpace", "Div", "Expand", "Flatten", "GRU"),
    *("Gather", "Gemm", "GlobalAveragePool", "Identity", "InstanceNormalization", "LSTM", "MatMul"),
    *("LeakyRelu", "MaxPool", "Mul", "PRelu", "Pad", "ReduceMean", "Relu", "Reshape", "Resize"),
    *("Shape", "Slice", "Softmax", "SpaceToDepth", "Split", "Squeeze", "Sub", "Sum", "Tile"),
    *("Transpose", "Unsqueeze", "Upsample", "Where", "", "Nobody"),
)
ATTRIBUTES = (
    *("axis", "axes", "perm", "group", "pads", "strides", "dilations", "kernel_shape", "auto_pad"),
    *("epsilon", "momentum", "training_mode", "spatial", "alpha", "beta", "transA", "transB", "to"),
    *("mode", "ceil_mode", "count_include_pad", "blocksize", "keepdims", "allowzero", "value"),
    *("split", "num_outputs", "output_padding", "output_shape", "direction", "hidden_size"),
)


def mutate_bytes(data: bytes, draw: random.Random) -> bytes:
    """Return the bytes with one to eight pieces of damage."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 8))):
        at = draw.randrange(len(out) + 1)
        length = min(draw.choice((1, 1, 2, 4, 16, 256)), len(out) - at)
        match draw.randrange(8):
            case 0:
                del out[at:]
            case 1:
                del out[at : at + length]
            case 2:
                out[at:at] = draw.randbytes(length or 1)
            case 3:
                out[at:at] = out[at : at + length]
            case 4:
                out[at : at + length] = draw.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
            case 5:
                other = draw.randrange(len(out) + 1)
                out[at : at + length] = out[other : other + length]
            case _:
                if at < len(out):
                    out[at] ^= 1 << draw.randrange(8)
    return bytes(out)


def mutate_model(data: bytes, draw: random.Random) -> bytes:
    """Return the model with one to eight values changed: legal protobuf that means nonsense."""
    model = onnx.ModelProto.FromString(data)
    for _ in range(draw.choice((1, 1, 2, 4, 8))):
        graph = model.graph
        match draw.randrange(9):
            case 0 if graph.node:
                _rewire(graph, draw)
            case 1 if graph.node:
                draw.choice(graph.node).op_type = draw.choice(OPERATORS)
            case 2 if graph.node:
                _attribute(draw.choice(graph.node), draw)
            case 3 if graph.initializer:
                _reshape(draw.choice(graph.initializer), draw)
            case 4 if graph.node:
                _reorder(graph, draw)
            case 5 if model.opset_import:
                entry = draw.choice(model.opset_import)
                entry.version = draw.choice((*range(-1, 25), 1 << 40))
            case _:
                _any_field(model, draw)
    try:
        return bytes(model.SerializeToString())
    except (ValueError, DecodeError):  # too deep, say
        return mutate_bytes(data, draw)


def _names(graph: Any) -> list[str]:
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    return [*names, *(each.name for each in (*graph.initializer, *graph.input)), "", "nobody"]


def _rewire(graph: Any, draw: random.Random) -> None:
    node = draw.choice(graph.node)
    ends = draw.choice((node.input, node.input, node.output))
    name = draw.choice(_names(graph))
    if ends and draw.random() < 0.7:
        ends[draw.randrange(len(ends))] = name
    elif ends and draw.random() < 0.5:
        del ends[draw.randrange(len(ends))]
    else:
        ends.append(name)


def _attribute(node: Any, draw: random.Random) -> None:
    if node.attribute and draw.random() < 0.3:
        del node.attribute[draw.randrange(len(node.attribute))]
        return
    name = draw.choice(ATTRIBUTES)
    found = next((each for each in node.attribute if each.name == name), None)
    attribute = found if found is not None else node.attribute.add(name=name)
    attribute.Clear()
    attribute.name = name
    match draw.randrange(5):
        case 0:
            attribute.type, attribute.i = onnx.AttributeProto.INT, draw.choice(INTEGERS)
        case 1:
            attribute.type = onnx.AttributeProto.INTS
            attribute.ints.extend(draw.choices(INTEGERS, k=draw.randrange(6)))
        case 2:
            attribute.type = onnx.AttributeProto.FLOAT
            attribute.f = draw.choice((0.0, -1.0, 1e-38, 1e38, float("inf"), float("nan")))
        case 3:
            attribute.type = onnx.AttributeProto.STRING
            attribute.s = draw.choice((b"", b"SAME_UPPER", b"VALID", b"\xff", b"DCR", b"reflect"))
        case _:
            attribute.type = draw.choice(onnx.AttributeProto.AttributeType.values())


def _reshape(tensor: Any, draw: random.Random) -> None:
    """Give a tensor other dimensions, often as many elements as before."""
    dims = list(tensor.dims)
    match draw.randrange(6):
        case 0:
            draw.shuffle(dims)
        case 1:
            dims.insert(draw.randrange(len(dims) + 1), draw.choice((1, 0, -1, 1 << 62)))
        case 2 if dims:
            dims[draw.randrange(len(dims))] = draw.choice(INTEGERS)
        case 3:
            dims = [0]
            tensor.ClearField("raw_data")
        case 4:
            tensor.data_type = draw.randrange(30)
        case _:
            tensor.raw_data = draw.randbytes(len(tensor.raw_data))
    tensor.dims[:] = dims


def _reorder(graph: Any, draw: random.Random) -> None:
    nodes = list(graph.node)
    match draw.randrange(3):
        case 0:
            draw.shuffle(nodes)
        case 1:
            nodes.insert(draw.randrange(len(nodes) + 1), draw.choice(nodes))
        case _:
            del nodes[draw.randrange(len(nodes))]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _any_field(message: Any, draw: random.Random) -> None:
    """Walk down to a field at random, and change it whatever it is."""
    while True:
        present = message.ListFields()
        if not present:
            return
        field, value = draw.choice(present)
        is_list = hasattr(value, "extend")
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if draw.random() < 0.1:
                message.ClearField(field.name)
                return
            message = draw.choice(value) if is_list else value
            continue
        if draw.random() < 0.2:
            message.ClearField(field.name)
        elif is_list:
            value[draw.randrange(len(value))] = _other(field, draw)
        else:
            setattr(message, field.name, _other(field, draw))
        return


def _other(field: Any, draw: random.Random) -> Any:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return draw.choice(("", "x", "y", "a\0b", "\N{SNOWMAN}", "../x", "n" * 3000))
        case FieldDescriptor.TYPE_BYTES:
            return draw.randbytes(draw.randrange(300))
        case FieldDescriptor.TYPE_FLOAT | FieldDescriptor.TYPE_DOUBLE:
            return draw.choice((0.0, -1.0, float("nan"), float("inf"), 1e38))
        case FieldDescriptor.TYPE_ENUM:
            return draw.choice(field.enum_type.values).number
        case FieldDescriptor.TYPE_INT32:
            return draw.choice([each for each in INTEGERS if abs(each) < 1 << 31])
        case FieldDescriptor.TYPE_UINT64:
            return abs(draw.choice(INTEGERS))
        case _:
            return draw.choice(INTEGERS)
