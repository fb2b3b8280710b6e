"""Element types of ONNX tensors: how many bits each element takes, and how NumPy reads them.

The table is written out rather than taken from ``onnx.helper``: older releases of ``onnx`` map
bfloat16 and the 8-bit floats to float32 there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx

__all__ = [
    "STRING",
    "Array",
    "decode",
    "describe",
    "dtype_of",
    "encode",
    "from_fields",
    "payload_nbytes",
    "quoted",
    "text_of",
]

Array = npt.NDArray[Any]

STRING = 8
_BOOL = 9

_TYPES: dict[int, tuple[np.dtype[Any], int]] = {
    number: (np.dtype(scalar), bits)
    for number, scalar, bits in (
        (1, np.float32, 32),
        (2, np.uint8, 8),
        (3, np.int8, 8),
        (4, np.uint16, 16),
        (5, np.int16, 16),
        (6, np.int32, 32),
        (7, np.int64, 64),
        (_BOOL, np.bool_, 8),
        (10, np.float16, 16),
        (11, np.float64, 64),
        (12, np.uint32, 32),
        (13, np.uint64, 64),
        (14, np.complex64, 64),
        (15, np.complex128, 128),
        (16, ml_dtypes.bfloat16, 16),
        (17, ml_dtypes.float8_e4m3fn, 8),
        (18, ml_dtypes.float8_e4m3fnuz, 8),
        (19, ml_dtypes.float8_e5m2, 8),
        (20, ml_dtypes.float8_e5m2fnuz, 8),
        (21, ml_dtypes.uint4, 4),
        (22, ml_dtypes.int4, 4),
        (23, ml_dtypes.float4_e2m1fn, 4),
        (24, ml_dtypes.float8_e8m0fnu, 8),
        (25, ml_dtypes.uint2, 2),
        (26, ml_dtypes.int2, 2),
        (27, ml_dtypes.float6_e2m3fn, 6),
        (28, ml_dtypes.float6_e3m2fn, 6),
    )
}
"""TensorProto.DataType -> (NumPy type of one element, bits of one element in raw_data)."""

_FIELDS = {1: "float_data", 14: "float_data", 11: "double_data", 15: "double_data"} | {
    7: "int64_data",
    12: "uint64_data",
    13: "uint64_data",
}
"""Where elements lie that are not in raw_data; all other types share int32_data."""

_CHUNK = 1 << 20
_MAX_RANK = 1000
_SHOWN_DIMS = 12
_SHOWN_TEXT = 200


def dtype_of(data_type: int) -> np.dtype[Any] | None:
    """Return the NumPy type of an element, or None for strings and types unknown to bnfold."""
    entry = _TYPES.get(data_type)
    return entry and entry[0]


def payload_nbytes(tensor: onnx.TensorProto) -> int | None:
    """Return how many bytes ``raw_data`` of this shape and type has, sub-byte types packed.

    Returns:
        The number of bytes, or None where it is not determined: strings, unknown types.

    Raises:
        ValueError: A dimension is negative, or there are absurdly many.
    """
    if len(tensor.dims) > _MAX_RANK:
        raise ValueError("too many dimensions")
    if any(dim < 0 for dim in tensor.dims):
        raise ValueError("a dimension is negative")
    entry = _TYPES.get(tensor.data_type)
    return entry and -(-math.prod(tensor.dims) * entry[1] // 8)


def describe(tensor: onnx.TensorProto) -> str:
    """Return type and shape for a message, such as ``float32[64, 3, 7, 7]``."""
    dtype = dtype_of(tensor.data_type)
    name = "string" if tensor.data_type == STRING else dtype and dtype.name
    dims = [str(dim) for dim in tensor.dims[: _SHOWN_DIMS + 1]]
    if len(dims) > _SHOWN_DIMS:
        dims[-1] = "..."
    return f"{name or f'type {tensor.data_type}'}[{', '.join(dims)}]"


def text_of(value: str | bytes) -> str:
    """Return the text of a protobuf string; one that is not valid UTF-8 comes as bytes."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def quoted(value: str | bytes) -> str:
    """Return text from a file in quotes: one line, of bounded length, nothing unprintable."""
    text = text_of(value)
    if len(text) > _SHOWN_TEXT:
        text = f"{text[:_SHOWN_TEXT]}..."
    return "'" + "".join(each if each.isprintable() else "\ufffd" for each in text) + "'"


def decode(payload: memoryview | bytes, data_type: int, shape: tuple[int, ...]) -> Array:
    """Read the bytes of ``raw_data`` as an array.

    Args:
        payload: The bytes, as many as `payload_nbytes` says.
        data_type: TensorProto.DataType, a numeric one.
        shape: Dimensions of the tensor.

    Returns:
        A read-only array: a view of `payload`, unpacked where elements are smaller than a byte.
    """
    dtype, bits = _TYPES[data_type]
    if bits % 8:
        array = _unpack(np.frombuffer(payload, np.uint8), math.prod(shape), bits).view(dtype)
    else:
        # On a big-endian machine the second conversion swaps; elsewhere neither does anything.
        array = np.frombuffer(payload, dtype.newbyteorder("<")).astype(dtype, copy=False)
    array = array.reshape(shape)
    array.flags.writeable = False
    return array


def encode(blocks: Iterator[Array], data_type: int) -> Iterator[memoryview]:
    """Turn consecutive blocks of elements into the bytes of ``raw_data``.

    Args:
        blocks: Pieces of the flattened tensor, in the type of its elements.
        data_type: TensorProto.DataType, a numeric one.
    """
    dtype, bits = _TYPES[data_type]
    if bits % 8 == 0:
        little = dtype.newbyteorder("<")
        for block in blocks:
            flat = np.ascontiguousarray(block, little).reshape(-1)
            yield flat.view(np.uint8).data
        return
    # Elements that do not fill a byte wait for the next block.
    waiting = np.empty(0, np.uint8)
    group = 8 // math.gcd(bits, 8)
    for block in blocks:
        values = np.concatenate([waiting, np.ascontiguousarray(block).reshape(-1).view(np.uint8)])
        whole = len(values) // group * group
        waiting = values[whole:]
        yield _pack(values[:whole], bits).data
    yield _pack(waiting, bits).data


def from_fields(tensor: onnx.TensorProto) -> Array:
    """Read a tensor whose elements lie in ``float_data``, ``int32_data`` and the like.

    Returns:
        A new read-only array in the tensor's shape. Strings come as an object array of bytes.

    Raises:
        ValueError: The number of elements is not that of the shape, or the type is unknown.
    """
    shape = tuple(tensor.dims)
    if tensor.data_type == STRING:
        array = np.empty(len(tensor.string_data), object)
        array[:] = list(tensor.string_data)
    elif (entry := _TYPES.get(tensor.data_type)) is None:
        raise ValueError("its element type is unknown")
    else:
        dtype, bits = entry
        field = _FIELDS.get(tensor.data_type, "int32_data")
        if field == "int32_data":
            # Each entry holds the bits of one element, or a byte of packed 2- or 4-bit elements.
            entries = np.array(tensor.int32_data, np.int32)
            width = np.dtype(f"u{dtype.itemsize}")
            array = entries.astype(width)
            if bits == 6:
                array &= 0x3F
            elif bits < 8:
                if len(array) != payload_nbytes(tensor):
                    raise ValueError("the number of elements is not that of its shape")
                array = _unpack(array, math.prod(shape), bits)
            array = array.view(dtype)
        elif field in {"float_data", "double_data"}:
            real = np.float32 if field == "float_data" else np.float64
            array = np.array(getattr(tensor, field), real).view(dtype)
        else:
            array = np.array(getattr(tensor, field), field.removesuffix("_data")).astype(dtype)
    if array.size != math.prod(shape):
        raise ValueError("the number of elements is not that of its shape")
    array = array.reshape(shape)
    array.flags.writeable = False
    return array


def _unpack(packed: Array, count: int, bits: int) -> Array:
    """Spread a little-endian stream of `bits`-bit elements over one byte each."""
    group = 8 // np.gcd(bits, 8)
    width = group * bits // 8
    out = np.empty(-(-count // group) * group, np.uint8)
    shifts = np.arange(0, group * bits, bits, dtype=np.uint32)
    for first in range(0, len(out) // group, _CHUNK):
        chunk = packed[first * width : (first + _CHUNK) * width]
        words = np.zeros((-(-len(chunk) // width), 4), np.uint8)
        padded = np.zeros(len(words) * width, np.uint8)
        padded[: len(chunk)] = chunk
        words[:, :width] = padded.reshape(-1, width)
        values = words.view("<u4") >> shifts & (2**bits - 1)
        out[first * group : first * group + values.size] = values.reshape(-1)
    return out[:count]


def _pack(values: Array, bits: int) -> Array:
    """Undo `_unpack`; a last group that is not full is filled with zero bits."""
    group = 8 // np.gcd(bits, 8)
    width = group * bits // 8
    padded = np.zeros(-(-len(values) // group) * group, np.uint32)
    padded[: len(values)] = values & (2**bits - 1)
    shifts = np.arange(0, group * bits, bits, dtype=np.uint32)
    words = np.bitwise_or.reduce(padded.reshape(-1, group) << shifts, axis=1).astype("<u4")
    packed = words.view(np.uint8).reshape(-1, 4)[:, :width].reshape(-1)
    return np.ascontiguousarray(packed[: -(-len(values) * bits // 8)])
