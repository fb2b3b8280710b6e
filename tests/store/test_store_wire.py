from __future__ import annotations

import random
from collections.abc import Callable

import onnx
import pytest
import store_models
from google.protobuf.message import DecodeError

from bnfold import store
from bnfold.errors import ModelError
from bnfold.store import wire


def test_schema_names_every_field_that_leads_to_a_tensor() -> None:
    messages = {
        descriptor.name: descriptor
        for descriptor in onnx.ModelProto.DESCRIPTOR.file.message_types_by_name.values()
    }
    leads = {"TensorProto"}
    while True:
        more = {
            name
            for name, descriptor in messages.items()
            if name not in leads
            and any(
                field.message_type and field.message_type.name in leads
                for field in descriptor.fields
            )
        }
        if not more:
            break
        leads |= more
    expected = {
        name: {
            field.number: (field.message_type.name, field.is_repeated)
            for field in messages[name].fields
            if field.message_type and field.message_type.name in leads
        }
        for name in leads - {"TensorProto"}
    }
    assert {name: dict(fields) for name, fields in wire.SCHEMA.items()} == expected


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**63, 2**64 - 1])
def test_varints_round_trip(value: int) -> None:
    encoded = wire.encode_varint(value)
    assert wire.read_varint(memoryview(encoded), 0, len(encoded)) == (value, len(encoded))


@pytest.mark.parametrize(
    ("data", "error"),
    {
        "truncated tag": (b"\xff", wire.MalformedError),
        "endless varint": (b"\x08" + b"\xff" * 11, wire.MalformedError),
        "varint beyond 64 bits": (b"\x08" + b"\xff" * 9 + b"\x7f", wire.MalformedError),
        "field number zero": (b"\x00\x01", wire.MalformedError),
        "field number too large": (b"\xf8\xff\xff\xff\xff\x01\x00", wire.MalformedError),
        "length past the end": (b"\x3a\x05abc", wire.MalformedError),
        "huge length": (b"\x3a" + b"\xff" * 9 + b"\x01", wire.MalformedError),
        "truncated fixed32": (b"\x0d\x00\x00", wire.MalformedError),
        "truncated fixed64": (b"\x09\x00\x00", wire.MalformedError),
        "wire type 6": (b"\x0e\x00", wire.MalformedError),
        "end of a group": (b"\x0c", wire.MalformedError),
        "group": (b"\x0b\x0c", wire.UnusualError),
    }.values(),
)
def test_malformed_fields_are_refused(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        list(wire.read_fields(memoryview(data), 0, len(data)))


def length_delimited(number: int, payload: bytes) -> bytes:
    return bytes(wire.header(number, len(payload))) + payload


def model_of(graph: bytes) -> bytes:
    return b"\x08\x08" + length_delimited(7, graph) + length_delimited(8, b"\x10\x11")


def raw(data: bytes) -> bytes:
    return length_delimited(9, data)


BIG, OTHER = b"\x01" * 8192, b"\x02" * 8192
FLOATS = b"\x08\x80\x10\x10\x01"  # dims 2048, float


def attribute(payload: bytes) -> bytes:
    return length_delimited(1, length_delimited(5, b"\x0a\x01v" + payload))


UNUSUAL = {
    "raw_data twice": length_delimited(5, FLOATS + raw(BIG) + raw(OTHER)),
    "raw_data before dims": length_delimited(5, raw(BIG) + FLOATS),
    "small raw_data after big": length_delimited(5, FLOATS + raw(OTHER) + raw(BIG)),
    "float_data in two parts": length_delimited(
        5, FLOATS + length_delimited(4, BIG[:4096]) + length_delimited(4, BIG[4096:])
    ),
    "empty float_data beside raw_data": length_delimited(5, FLOATS + b"\x22\x00" + raw(BIG)),
    "data_location twice": length_delimited(5, FLOATS + raw(BIG) + b"\x70\x01\x70\x00"),
    "data_location as five bytes": length_delimited(
        5, FLOATS + raw(BIG) + b"\x70\x80\x80\x80\x80\x00"
    ),
    "attribute tensor in two parts": attribute(
        length_delimited(5, FLOATS + raw(BIG)) + length_delimited(5, raw(OTHER))
    ),
    "attribute tensor, then its dims": attribute(
        length_delimited(5, raw(BIG)) + length_delimited(5, FLOATS)
    ),
    "a group beside": length_delimited(5, FLOATS + raw(BIG)) + b"\xc3\x3e\x08\x01\xc4\x3e",
    "lengths as five bytes": b"\x2a\x89\xc0\x80\x80\x00" + FLOATS + b"\x4a\x80\xc0\x00" + BIG,
    "node field with another wire type": b"\x08\x05" + length_delimited(5, FLOATS + raw(BIG)),
}


@pytest.mark.parametrize("graph", UNUSUAL.values(), ids=UNUSUAL)
def test_legal_oddities_mean_what_protobuf_says(graph: bytes) -> None:
    data = model_of(graph)
    plain = onnx.ModelProto.FromString(data)
    model = store.from_bytes(data)
    assert store.to_bytes(model) == plain.SerializeToString(deterministic=True)
    for cut, whole in zip(store.iter_tensors(model.proto), store.iter_tensors(plain), strict=True):
        expected = onnx.numpy_helper.to_array(whole)
        assert model.tensors.array(cut).tobytes() == expected.tobytes()


def test_a_graph_in_two_parts_is_merged() -> None:
    part = length_delimited(5, FLOATS + raw(BIG))
    data = b"\x08\x08" + length_delimited(7, part) + length_delimited(7, part)
    model = store.from_bytes(data)
    assert len(model.proto.graph.initializer) == 2
    assert store.to_bytes(model) == onnx.ModelProto.FromString(data).SerializeToString()


@pytest.mark.parametrize("levels", [10, 24, 25, 26, 33, 40, 2000])
def test_nesting_is_accepted_as_deep_as_protobuf_does(levels: int) -> None:
    graph = length_delimited(5, FLOATS + raw(BIG))
    for _ in range(levels):
        graph = attribute(length_delimited(6, graph))
    data = model_of(graph)
    try:
        plain = onnx.ModelProto.FromString(data)
    except DecodeError:
        with pytest.raises(ModelError, match="damaged"):
            store.from_bytes(data)
    else:
        assert store.to_bytes(store.from_bytes(data)) == plain.SerializeToString()


@pytest.mark.parametrize("build", store_models.MODELS.values(), ids=store_models.MODELS)
def test_damaged_models_are_refused_or_read_as_protobuf_reads_them(
    build: Callable[[], onnx.ModelProto],
) -> None:
    whole = build().SerializeToString(deterministic=True)
    model = store.from_bytes(whole)
    payloads = [store_record.payload for store_record in model.tensors._records]
    structure = set(range(len(whole)))
    for payload in payloads:
        structure -= set(range(payload.offset + 8, payload.offset + payload.nbytes - 4))
    positions = sorted(structure)
    rng = random.Random(7)  # noqa: S311 - not for secrets
    refused = 0
    for case in range(1500):
        data = bytearray(whole)
        position = rng.choice(positions)
        match case % 5:
            case 0:
                del data[position:]
            case 1:
                del data[position : position + rng.randrange(1, 20)]
            case 2:
                data[position:position] = rng.randbytes(rng.randrange(1, 12))
            case _:
                for _ in range(rng.randrange(1, 4)):
                    data[rng.choice(positions)] = rng.randrange(256)
        try:
            model = store.from_bytes(bytes(data))
        except ModelError as error:
            assert "\n" not in str(error)  # noqa: PT017 - the loop needs both outcomes
            refused += 1
            continue
        plain = onnx.ModelProto.FromString(data)
        assert store.to_bytes(model) == plain.SerializeToString(deterministic=True)
    assert 0 < refused < 1500
