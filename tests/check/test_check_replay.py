"""The saved feed: bit for bit, in any type, under any name, and the command that runs it again."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from check_pairs import text
from onnx import TensorProto, helper

from bnfold.check import check
from bnfold.check.data import load_feeds, replay_command, save_feed
from bnfold.check.feeds.draws import numpy_dtype
from bnfold.check.feeds.feed import Feed
from bnfold.check.models.model import ValueSpec
from bnfold.errors import InputError

BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.uint64}
NAMES = ["a/b:0", "file", "bnfold.json", "../x", "", "x\ny", "\u00e9 x", "/abs", "a~1", "long" * 99]


def tensor(name: str, elem_type: int, rank: int = 1) -> ValueSpec:
    return ValueSpec(name, "tensor", elem_type, (None,) * rank)


def through_a_file(feed: Feed, specs: list[ValueSpec], tmp_path: Path) -> Feed:
    save_feed(feed, tmp_path / "feed.npz")
    (again,) = load_feeds([tmp_path / "feed.npz"], specs)
    return again


TYPES = [
    name
    for name, number in TensorProto.DataType.items()
    if name not in {"UNDEFINED", "STRING"} and numpy_dtype(number) is not None
]


@pytest.mark.parametrize("name", TYPES)
def test_every_type_keeps_its_bits(tmp_path: Path, name: str) -> None:
    elem_type = TensorProto.DataType.Value(name)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(elem_type))
    rng = np.random.default_rng(0)
    if name == "BOOL":
        array = rng.integers(0, 2, 64).astype(bool)
    elif dtype.itemsize == 1 and "INT4" not in name and "INT2" not in name and "FLOAT4" not in name:
        array = np.arange(256, dtype=np.uint8).view(dtype)
    elif dtype.type.__module__ == "ml_dtypes" and dtype.itemsize == 1:
        array = rng.integers(0, 2, 64).astype(dtype)
    else:
        array = np.frombuffer(rng.bytes(64 * dtype.itemsize), dtype)
    again = through_a_file(Feed("f", {"x": array}), [tensor("x", elem_type)], tmp_path)
    value = again.arrays["x"]
    assert value.dtype == dtype
    bits = BITS[dtype.itemsize]
    np.testing.assert_array_equal(value.view(bits), array.view(bits))


def test_names_scalars_and_shapes(tmp_path: Path) -> None:
    arrays = {name: np.float32(index) for index, name in enumerate(NAMES)}
    arrays |= {"none": np.zeros((0, 3), np.float32), "columns": np.asfortranarray(np.eye(3))}
    specs = [tensor(name, TensorProto.FLOAT, 0) for name in NAMES]
    specs += [tensor("none", TensorProto.FLOAT, 2), tensor("columns", TensorProto.DOUBLE, 2)]
    again = through_a_file(Feed("f", arrays), specs, tmp_path)
    for name, value in arrays.items():
        assert again.arrays[name].shape == value.shape
        np.testing.assert_array_equal(again.arrays[name], value)


def test_strings_sequences_optionals_and_maps(tmp_path: Path) -> None:
    half = np.array([1, 2], ml_dtypes.bfloat16)
    arrays: dict[str, Any] = {
        "s": np.array([["a\0", "\u00e9", "\udcff"]], object),
        "q": [half, half + half, np.zeros(0, ml_dtypes.bfloat16)],
        "empty": [],
        "o": None,
        "full": half,
        "m": {"a": 0.1, "b": float("inf")},
    }
    element = tensor("", TensorProto.BFLOAT16)
    specs = [
        tensor("s", TensorProto.STRING, 2),
        ValueSpec("q", "sequence", 0, None, element),
        ValueSpec("empty", "sequence", 0, None, element),
        ValueSpec("o", "optional", 0, None, element),
        ValueSpec("full", "optional", 0, None, element),
        ValueSpec("m", "map", 0, None, tensor("", TensorProto.FLOAT, 0), TensorProto.STRING),
    ]
    feed = Feed("f", arrays, expected={"y/0": half, "s": arrays["s"]})
    again = through_a_file(feed, specs, tmp_path)
    assert again.arrays["s"].tolist() == arrays["s"].tolist()
    assert [item.tolist() for item in again.arrays["q"]] == [[1, 2], [2, 4], []]
    assert again.arrays["q"][2].dtype == ml_dtypes.bfloat16
    assert again.arrays["empty"] == []
    assert again.arrays["o"] is None
    assert again.arrays["full"].tolist() == [1, 2]
    assert again.arrays["m"] == arrays["m"]
    assert again.expected is not None
    np.testing.assert_array_equal(again.expected["y/0"], half)


def test_numpy_reads_plain_tensors(tmp_path: Path) -> None:
    save_feed(Feed("f", {"a/b": np.eye(2, dtype=np.float16)}), tmp_path / "feed.npz")
    with np.load(tmp_path / "feed.npz") as archive:
        np.testing.assert_array_equal(archive["a/b"], np.eye(2))


def test_a_batch_is_not_cut_again(tmp_path: Path) -> None:
    spec = ValueSpec("x", "tensor", TensorProto.FLOAT, (2, 3))
    save_feed(Feed("f", {"x": np.zeros((4, 3), np.float32)}), tmp_path / "feed.npz")
    with pytest.raises(InputError, match="'x' has shape 4x3, but the model declares 2x3"):
        list(load_feeds([tmp_path / "feed.npz"], [spec]))


def test_saved_whole_with_the_usual_permissions(tmp_path: Path) -> None:
    feed = Feed("f", {"x": np.zeros(3)})
    before = os.umask(0o027)
    try:
        save_feed(feed, tmp_path / "feed.npz")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "feed.npz").stat().st_mode) == 0o640
    with pytest.raises(ValueError, match="Object arrays"):
        save_feed(Feed("f", {"x": np.array([(1, {})], [("a", "i4"), ("b", "O")])}), tmp_path / "f")
    with pytest.raises(InputError, match="cannot be written: "):
        save_feed(feed, tmp_path / "nowhere" / "feed.npz")
    with pytest.raises(InputError, match="cannot be written: "):
        save_feed(feed, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["feed.npz"]


def test_command() -> None:
    options = {
        "level": "basic",
        "provider": ("cpu", "cuda"),
        "rtol": None,
        "oracle": True,
        "localize": False,
        "seed": 0,
    }
    command = replay_command("a b.onnx", "-c.onnx", Path("it's.npz"), options)
    assert shlex.split(command) == [
        *("bnfold", "check", "a b.onnx", "./-c.onnx", "--data", "it's.npz", "--samples", "1"),
        *("--level", "basic", "--provider", "cpu", "--provider", "cuda", "--oracle"),
        *("--seed", "0"),
    ]


def test_a_failure_fails_again(tmp_path: Path) -> None:
    graph = (
        "g (float16[N] h, seq(float[N]) q, string[N] s, optional(float[N]) o) => "
        "(float[N] y, float[M] z, string[N] t, bool b) {{ a = Cast<to=1>(h)\n y = {}(a)\n "
        "z = ConcatFromSequence<axis=0>(q)\n t = Identity(s)\n b = OptionalHasElement(o) }}"
    )
    reference, candidate = (text(graph.format(op), opset=18) for op in ("Neg", "Abs"))
    path = tmp_path / "failing.npz"
    first = check(reference, candidate, failing_feed=path)
    assert not any(report.equivalent for report in first)
    again = check(reference, candidate, data=[path], samples=1)
    assert [report.outputs[0].max_abs for report in again] == [r.outputs[0].max_abs for r in first]
    assert all(report.equivalent for report in check(reference, reference, data=[path], samples=1))
