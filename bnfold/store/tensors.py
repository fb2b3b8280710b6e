"""The tensor store: where the bytes of the big tensors of a model are.

A tensor of the skeleton whose bytes are elsewhere says so as ONNX itself does, with
``data_location = EXTERNAL``, and carries in ``external_data`` a *mark*: a location that begins with
128 random bits drawn when the store was made. So shape inference accepts it, a copy of the
TensorProto means the same tensor, and no file can contain one.

A small tensor that lay in external data is an ordinary tensor with ``raw_data`` in the skeleton,
because shapes may depend on it. Its mark stays, to say that it goes back outside.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx

from bnfold.errors import ModelError
from bnfold.store.dtypes import (
    STRING,
    Array,
    decode,
    describe,
    dtype_of,
    encode,
    from_fields,
    payload_nbytes,
    quoted,
    text_of,
)
from bnfold.store.files import DataFile, FileRange

__all__ = [
    "THRESHOLD",
    "ArraySource",
    "LazyBytes",
    "LazyTensor",
    "Record",
    "TensorStore",
    "iter_tensors",
]

THRESHOLD = 4096
"""Bytes from which a tensor stays out of the skeleton."""

_BLOCK_ELEMENTS = 1 << 20
_OPEN_FILES = 64
_DATA_FIELDS = (
    "segment",
    "float_data",
    "int32_data",
    "string_data",
    "int64_data",
    "raw_data",
    "double_data",
    "uint64_data",
    "external_data",
    "data_location",
)


class LazyTensor(Protocol):
    """A tensor that is computed when it is needed, block by block.

    It may be evaluated more than once, and gives the same bytes every time.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions of the tensor."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its elements as they are stored."""

    def blocks(self) -> Iterator[Array]:
        """Yield consecutive C-contiguous pieces of the flattened tensor, a few MB each at most."""


class ArraySource:
    """A `LazyTensor` that is an array in memory.

    Attributes:
        array: The array, in the type in which it is stored.
    """

    def __init__(self, array: Array) -> None:
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions of the array."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its elements."""
        return self.array.dtype

    def blocks(self) -> Iterator[Array]:
        """Yield the elements in C order, a million at a time."""
        flat = np.ascontiguousarray(self.array).reshape(-1)
        for first in range(0, flat.size, _BLOCK_ELEMENTS):
            yield flat[first : first + _BLOCK_ELEMENTS]


class LazyBytes:
    """The bytes of ``raw_data`` of a lazy tensor.

    Attributes:
        source: The lazy tensor.
        nbytes: Number of bytes.
    """

    def __init__(self, source: LazyTensor, data_type: int, nbytes: int) -> None:
        self.source = source
        self.nbytes = nbytes
        self._data_type = data_type

    def blocks(self) -> Iterator[memoryview]:
        """Yield the bytes in order.

        Raises:
            RuntimeError: The source gives more or fewer elements than its shape says.
        """
        done = 0
        for block in encode(iter(self.source.blocks()), self._data_type):
            done += len(block)
            yield block
        if done != self.nbytes:
            raise RuntimeError(f"a lazy tensor gave {done} bytes instead of {self.nbytes}")


@dataclass(frozen=True)
class Record:
    """Where the bytes of one marked tensor are, and how they are written again.

    Attributes:
        payload: The bytes.
        external: Whether they go to the external data file rather than into the model.
        field: Number of the TensorProto field that they were cut from.
        says_default: Whether the tensor said ``data_location = DEFAULT`` in so many words.
        entries: The ``external_data`` that the tensor came with, or None.
        location: The file that it named, or None.
    """

    payload: FileRange | LazyBytes
    external: bool = False
    field: int = 9
    says_default: bool = False
    entries: tuple[onnx.StringStringEntryProto, ...] | None = None
    location: str | None = None


class TensorStore:
    """The tensors of one model, by the marks that their TensorProtos carry."""

    def __init__(self, label: str) -> None:
        """Make an empty store.

        Args:
            label: How messages name the model.
        """
        self.label = label
        self._prefix = f"bnfold-store:{secrets.token_hex(16)}:"
        self._records: list[Record] = []
        self._open: OrderedDict[int, DataFile] = OrderedDict()
        self._uses_external = False

    @property
    def prefix(self) -> str:
        """What every mark of this store begins with."""
        return self._prefix

    def add(self, record: Record) -> str:
        """Store a record and return the mark of the tensor that it belongs to."""
        self._records.append(record)
        self._uses_external |= record.external
        return f"{self._prefix}{len(self._records) - 1}"

    def lookup(self, entry: onnx.StringStringEntryProto) -> Record | None:
        """Return the record that an entry of ``external_data`` marks, or None."""
        value = text_of(entry.value)
        if entry.key != "location" or not value.startswith(self._prefix):
            return None
        return self._records[int(value.removeprefix(self._prefix))]

    def find(self, tensor: onnx.TensorProto) -> Record | None:
        """Return the record of a tensor, or None for one that carries no mark of this store.

        Raises:
            ModelError: The tensor refers to data that this store does not hold, or has data of
                its own beside the mark.
        """
        record = None
        for entry in tensor.external_data:
            record = self.lookup(entry) or record
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            if record is None:
                raise self._error(tensor, "refers to external data that was not loaded with it")
            if tensor.HasField("raw_data"):
                raise self._error(tensor, "has raw_data although its data is external")
        return record

    def array(self, tensor: onnx.TensorProto) -> Array:
        """Return the values of a tensor.

        Args:
            tensor: A TensorProto of the skeleton, or a copy of one.

        Returns:
            A read-only array of the tensor's shape in its storage type (`ml_dtypes` for bfloat16
            and the 8-bit and smaller types). A view of the mapped file where the bytes lie there;
            attached tensors are evaluated; strings come as an object array of bytes.

        Raises:
            ModelError: The tensor's data does not fit its type and shape.
        """
        record = self.find(tensor)
        if tensor.HasField("segment"):
            raise self._error(tensor, "is stored in segments, which nobody supports")
        try:
            nbytes = payload_nbytes(tensor)
            if tensor.data_location == onnx.TensorProto.EXTERNAL and record is not None:
                payload: memoryview | bytes = self._bytes(record)
            elif tensor.HasField("raw_data"):
                payload = tensor.raw_data
            else:
                return from_fields(tensor)
            if nbytes is None:
                raise self._error(tensor, f"is {describe(tensor)}, which cannot be raw data")
            if nbytes != len(payload):
                raise self.size_error(tensor, len(payload), nbytes)
            return decode(payload, tensor.data_type, tuple(tensor.dims))
        except ValueError as error:
            raise self._error(tensor, f"is {describe(tensor)}: {error}") from error

    def attach(self, tensor: onnx.TensorProto, source: LazyTensor) -> None:
        """Give a tensor other values; they are computed when the model is saved.

        Whatever data the tensor had is forgotten. It stays inside the model or outside, as it was;
        a new big tensor goes outside where the model has external data. Small tensors are
        evaluated at once and become ordinary ``raw_data``.

        Args:
            tensor: A TensorProto with name, dims and data_type set.
            source: Its values.

        Raises:
            ValueError: Shape or type of `source` are not those of the tensor.
        """
        dtype = dtype_of(tensor.data_type)
        if dtype is None or dtype != source.dtype or tuple(tensor.dims) != tuple(source.shape):
            raise ValueError(
                f"tensor {quoted(tensor.name)} is {describe(tensor)}, "
                f"its source {source.dtype.name}{list(source.shape)}"
            )
        nbytes = payload_nbytes(tensor)
        assert nbytes is not None  # noqa: S101 - the type is a known one
        before = self.find(tensor)
        for field in _DATA_FIELDS:
            tensor.ClearField(field)
        payload = LazyBytes(source, tensor.data_type, nbytes)
        external = self._uses_external if before is None else before.external
        if nbytes < THRESHOLD:
            external = before is not None and before.external
            tensor.raw_data = b"".join(payload.blocks())
        else:
            tensor.data_location = onnx.TensorProto.EXTERNAL
        if external or nbytes >= THRESHOLD:
            mark = self.add(Record(payload, external=external))
            tensor.external_data.add(key="location", value=mark)

    def nbytes(self, tensor: onnx.TensorProto) -> int:
        """Return how many bytes the values of a tensor take as ``raw_data``.

        Raises:
            ModelError: The type is unknown or a dimension negative.
        """
        if tensor.data_type == STRING:
            return sum(len(string) for string in tensor.string_data)
        try:
            nbytes = payload_nbytes(tensor)
        except ValueError as error:
            raise self._error(tensor, f"is {describe(tensor)}: {error}") from error
        if nbytes is None:
            raise self._error(tensor, f"is {describe(tensor)}: its element type is unknown")
        return nbytes

    def release(self) -> None:
        """Give mapped pages back to the system; arrays stay valid and read them again."""
        for file in self._open.values():
            file.release()

    def touch(self, file: DataFile) -> None:
        """Note that a file is in use; of many files only the latest stay open."""
        self._open[id(file)] = file
        self._open.move_to_end(id(file))
        if len(self._open) > _OPEN_FILES:
            self._open.popitem(last=False)[1].close()

    def check(self, proto: onnx.ModelProto) -> None:
        """Check that the skeleton can be written: every tensor's data is there.

        Raises:
            ModelError: A tensor refers to data that this store does not hold.
        """
        for tensor in iter_tensors(proto):
            self.find(tensor)

    def size_error(self, tensor: onnx.TensorProto, found: int, needed: int) -> ModelError:
        """Return the error for a tensor that has the wrong number of bytes."""
        return self._error(
            tensor, f"has {found} bytes of data, but {describe(tensor)} needs {needed}"
        )

    def _error(self, tensor: onnx.TensorProto, problem: str) -> ModelError:
        return ModelError(f"{self.label}: tensor {quoted(tensor.name)} {problem}")

    def _bytes(self, record: Record) -> memoryview:
        payload = record.payload
        if isinstance(payload, FileRange):
            self.touch(payload.file)
            return payload.view()
        out = bytearray(payload.nbytes)
        position = 0
        for block in payload.blocks():
            out[position : position + len(block)] = block
            position += len(block)
        return memoryview(out).toreadonly()


def iter_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every TensorProto of a model, in the order in which protobuf writes them.

    Those of nodes, subgraphs, functions, training graphs and sparse tensors are among them.
    """
    yield from _of_graph(proto.graph)
    for training in proto.training_info:
        yield from _of_graph(training.initialization)
        yield from _of_graph(training.algorithm)
    for function in proto.functions:
        yield from _of_nodes(function.node)
        yield from _of_attributes(function.attribute_proto)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from _of_nodes(graph.node)
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from _of_sparse(sparse)


def _of_nodes(nodes: Any) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        if node.attribute:
            yield from _of_attributes(node.attribute)


def _of_attributes(attributes: Any) -> Iterator[onnx.TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        if attribute.HasField("g"):
            yield from _of_graph(attribute.g)
        yield from attribute.tensors
        for graph in attribute.graphs:
            yield from _of_graph(graph)
        if attribute.HasField("sparse_tensor"):
            yield from _of_sparse(attribute.sparse_tensor)
        for sparse in attribute.sparse_tensors:
            yield from _of_sparse(sparse)


def _of_sparse(sparse: onnx.SparseTensorProto) -> Iterator[onnx.TensorProto]:
    if sparse.HasField("values"):
        yield sparse.values
    if sparse.HasField("indices"):
        yield sparse.indices
