from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import store_models
from onnx import TensorProto, numpy_helper

from bnfold import store
from bnfold.errors import ModelError
from bnfold.store import dtypes
from bnfold.store.tensors import THRESHOLD

SHAPES = [(), (0,), (3, 0, 2), (1,), (7,), (5, 13)]
TYPES = sorted(dtypes._TYPES.keys() & TensorProto.DataType.values())  # what this onnx knows


def sample(data_type: int, shape: tuple[int, ...]) -> np.ndarray:
    """Random bits of any element type, every value of it valid."""
    dtype, bits = dtypes._TYPES[data_type]
    rng = np.random.default_rng(data_type)
    count = int(np.prod(shape))
    if data_type == TensorProto.BOOL:
        return rng.integers(0, 2, shape).astype(bool)
    if bits < 8:
        return rng.integers(0, 2**bits, count, np.uint8).view(dtype).reshape(shape)
    return rng.integers(0, 256, count * dtype.itemsize, np.uint8).view(dtype).reshape(shape)


def same(first: np.ndarray, second: np.ndarray) -> bool:
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    if first.dtype.itemsize == 1:  # types smaller than a byte ignore its high bits
        return np.array_equal(first.astype(np.float32), second.astype(np.float32), equal_nan=True)
    return first.tobytes() == second.tobytes()


def model_with(*tensors: TensorProto) -> store.LoadedModel:
    proto = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    return store.from_bytes(proto.SerializeToString())


class Blocks:
    """A lazy tensor made of given blocks."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, *blocks: np.ndarray) -> None:
        self.shape, self.dtype, self._blocks = shape, np.dtype(dtype), blocks

    def blocks(self) -> Iterator[np.ndarray]:
        yield from self._blocks


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("data_type", TYPES, ids=TensorProto.DataType.Name)
def test_raw_data_is_that_of_onnx_in_both_directions(
    data_type: int, shape: tuple[int, ...]
) -> None:
    array = sample(data_type, shape)
    proto = numpy_helper.from_array(array, "t")
    assert proto.data_type == data_type
    model = model_with(proto)
    tensor = model.proto.graph.initializer[0]
    found = model.tensors.array(tensor)
    assert same(found, array)
    assert not found.flags.writeable
    assert model.tensors.nbytes(tensor) == len(proto.raw_data)
    third = array.size // 3
    flat = array.reshape(-1)
    source = Blocks(shape, array.dtype, flat[:third], flat[third:])
    model.tensors.attach(tensor, source)
    assert onnx.load_from_string(store.to_bytes(model)).graph.initializer[0] == proto


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("data_type", TYPES, ids=TensorProto.DataType.Name)
def test_typed_fields_are_read_as_onnx_reads_them(data_type: int, count: int) -> None:
    dtype, bits = dtypes._TYPES[data_type]
    field = dtypes._FIELDS.get(data_type, "int32_data")
    rng = np.random.default_rng(count)
    values: list[Any]
    if field in {"float_data", "double_data"}:
        parts = 2 if dtype.kind == "c" else 1
        values = rng.standard_normal(count * parts).astype(np.float32).tolist()
    elif bits in {2, 4}:
        values = rng.integers(0, 256, -(-count * bits // 8)).tolist()
    elif data_type == TensorProto.BOOL:
        values = rng.integers(0, 2, count).tolist()
    elif dtype.kind == "i":
        values = rng.integers(-100, 100, count).tolist()
    else:
        values = rng.integers(0, 2 ** min(bits, 31) - 1, count).tolist()
    proto = TensorProto(name="t", data_type=data_type, dims=[count])
    getattr(proto, field).extend(values)
    model = model_with(proto)
    with np.errstate(invalid="ignore"):
        assert same(
            model.tensors.array(model.proto.graph.initializer[0]), numpy_helper.to_array(proto)
        )


def test_strings_come_as_bytes() -> None:
    proto = TensorProto(name="s", data_type=TensorProto.STRING, dims=[2, 1])
    proto.string_data.extend([b"a", b"\xff"])
    model = model_with(proto)
    array = model.tensors.array(model.proto.graph.initializer[0])
    assert array.tolist() == [[b"a"], [b"\xff"]]
    assert model.tensors.nbytes(model.proto.graph.initializer[0]) == 2


def test_big_tensors_are_views_of_the_file_and_small_ones_stay_in_the_skeleton(
    conv: onnx.ModelProto, embedded: Any
) -> None:
    model = store.load(embedded)
    big, small, shape = model.proto.graph.initializer
    assert not big.HasField("raw_data")
    assert small.raw_data == conv.graph.initializer[1].raw_data
    assert shape.raw_data == conv.graph.initializer[2].raw_data
    assert model.proto.ByteSize() < 1000
    array = model.tensors.array(big)
    assert not array.flags.owndata
    model.tensors.release()
    del model
    assert same(array, numpy_helper.to_array(conv.graph.initializer[0]))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0


def test_threshold_is_exact() -> None:
    below, at = (np.zeros(count, np.uint8) for count in (THRESHOLD - 1, THRESHOLD))
    model = model_with(numpy_helper.from_array(below, "b"), numpy_helper.from_array(at, "a"))
    assert [t.HasField("raw_data") for t in model.proto.graph.initializer] == [True, False]


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, copy.copy, lambda t: t.FromString(t.SerializeToString())]
)
def test_a_copy_is_the_same_tensor(duplicate: Any, embedded: Any) -> None:
    model = store.load(embedded)
    tensor = model.proto.graph.initializer[0]
    twin = duplicate(tensor)
    twin.name = "twin"
    assert same(model.tensors.array(twin), model.tensors.array(tensor))
    model.proto.graph.initializer.append(twin)
    first, *_, last = onnx.load_from_string(store.to_bytes(model)).graph.initializer
    assert first.raw_data == last.raw_data


def test_shape_inference_works_on_the_skeleton(proto: onnx.ModelProto) -> None:
    model = store.from_bytes(proto.SerializeToString())
    inferred = onnx.shape_inference.infer_shapes(model.proto)
    plain = onnx.shape_inference.infer_shapes(proto)
    assert list(inferred.graph.value_info) == list(plain.graph.value_info)
    assert list(inferred.graph.output) == list(plain.graph.output)


def test_every_tensor_is_iterated(proto: onnx.ModelProto) -> None:
    def count(message: Any) -> int:
        if isinstance(message, TensorProto):
            return 1
        return sum(
            count(child)
            for field, value in message.ListFields()
            if field.message_type
            for child in (value if field.is_repeated else [value])
        )

    assert len(list(store.iter_tensors(proto))) == count(proto)


@pytest.mark.parametrize("size", [3, 5000])
def test_attached_values_are_found_and_written(size: int) -> None:
    before, after = store_models.weight(0, size), store_models.weight(1, size)
    model = model_with(store_models.typed("t", 1, "float_data", before.tolist()))
    tensor = model.proto.graph.initializer[0]
    model.tensors.attach(tensor, store.ArraySource(after))
    assert not tensor.float_data
    assert same(model.tensors.array(tensor), after)
    written = onnx.load_from_string(store.to_bytes(model)).graph.initializer[0]
    assert written == numpy_helper.from_array(after, "t")


def test_a_source_may_be_shared_and_replaced() -> None:
    model = model_with(*(store_models.tensor(name, store_models.weight(0, 2000)) for name in "ab"))
    first, second = model.proto.graph.initializer
    source = store.ArraySource(store_models.weight(1, 2000))
    model.tensors.attach(first, store.ArraySource(store_models.weight(2, 2000)))
    model.tensors.attach(first, source)
    model.tensors.attach(second, source)
    written = onnx.load_from_string(store.to_bytes(model)).graph.initializer
    assert [t.raw_data for t in written] == [source.array.tobytes()] * 2


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 3), np.float64), np.zeros((3, 2), np.float32), np.zeros(6, np.float32)],
    ids=["type", "transposed", "flat"],
)
def test_a_source_must_fit(array: np.ndarray) -> None:
    model = model_with(store_models.tensor("w", np.zeros((2, 3), np.float32)))
    with pytest.raises(ValueError, match=r"tensor 'w' is float32\[2, 3\], its source"):
        model.tensors.attach(model.proto.graph.initializer[0], store.ArraySource(array))


@pytest.mark.parametrize("given", [1999, 2001])
def test_a_source_that_gives_too_much_or_too_little_is_a_bug(given: int) -> None:
    model = model_with(store_models.tensor("w", store_models.weight(0, 2000)))
    source = Blocks((2000,), np.float32, np.zeros(given, np.float32))
    model.tensors.attach(model.proto.graph.initializer[0], source)
    with pytest.raises(RuntimeError, match=f"gave {given * 4} bytes instead of 8000"):
        store.to_bytes(model)


@pytest.mark.parametrize(
    ("change", "message"),
    {
        "no data": ({"raw_data": None}, "number of elements"),
        "segment": ({"segment": TensorProto.Segment(begin=0, end=1)}, "segments"),
        "wrong size": ({"raw_data": b"123"}, "has 3 bytes of data, but float32.4. needs 16"),
        "negative": ({"dims": [-4]}, "negative"),
        "rank": ({"dims": [1] * 100 + [4]}, "dimension"),
        "absurd rank": ({"dims": [1] * 5000}, "too many dimensions"),
        "unknown type": ({"data_type": 99}, "type 99"),
        "unknown type, typed field": ({"data_type": 99, "raw_data": None}, "unknown"),
        "raw strings": ({"data_type": 8}, "cannot be raw data"),
        "foreign mark": ({"data_location": 1}, "not loaded with it"),
    }.values(),
)
def test_bad_data_is_named(change: dict[str, Any], message: str) -> None:
    model = model_with(store_models.tensor("w", np.zeros(4, np.float32)))
    tensor = model.proto.graph.initializer[0]
    for field, value in change.items():
        tensor.ClearField(field)
        if value is not None:
            tensor.MergeFrom(TensorProto(**{field: value}))
    with pytest.raises(ModelError, match=message) as caught:
        model.tensors.array(tensor)
    assert str(caught.value).startswith("model in memory: tensor 'w' ")


def test_raw_data_put_beside_a_mark_is_an_error_not_lost() -> None:
    model = model_with(store_models.tensor("w", store_models.weight(0, 2000)))
    tensor = model.proto.graph.initializer[0]
    tensor.raw_data = b"new"
    for use in (lambda: model.tensors.array(tensor), lambda: store.to_bytes(model)):
        with pytest.raises(ModelError, match="has raw_data although"):
            use()


def test_a_tensor_of_another_store_is_an_error() -> None:
    first, second = (
        model_with(store_models.tensor("w", store_models.weight(0, 2000))) for _ in "ab"
    )
    first.proto.graph.initializer.append(second.proto.graph.initializer[0])
    with pytest.raises(ModelError, match="was not loaded with it"):
        store.to_bytes(first)


def test_names_in_messages_are_one_short_line() -> None:
    with pytest.raises(ModelError) as caught:
        model_with(TensorProto(name="a\nb" * 5000, data_type=1, dims=[2], raw_data=b"1"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_integers_of_four_bits_are_packed_across_blocks() -> None:
    values = np.arange(5, dtype=np.int8).astype(ml_dtypes.int4)
    blocks = Blocks((5,), ml_dtypes.int4, *(values[i : i + 1] for i in range(5)))
    assert b"".join(dtypes.encode(blocks.blocks(), TensorProto.INT4)) == b"\x10\x32\x04"
