"""Real inputs: every format, how many feeds they make, and what is wrong with them."""

from __future__ import annotations

import base64
import io
import json
import tracemalloc
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from check_pairs import text
from onnx import TensorProto, helper, numpy_helper

from bnfold.check import check
from bnfold.check.data import load_feeds, save_feed
from bnfold.check.feeds.feed import Feed
from bnfold.check.models.model import ValueSpec, open_model
from bnfold.errors import InputError


def specs_of(graph: str) -> tuple[tuple[ValueSpec, ...], tuple[ValueSpec, ...]]:
    opened = open_model(text(graph, opset=18), "reference")
    return opened.inputs, opened.outputs


ONE, ONE_OUT = specs_of("g (float[N,2] x) => (float[N,2] y) { y = Relu(x) }")
FIXED, _ = specs_of("g (float[4,2] x) => (float[4,2] y) { y = Relu(x) }")
TWO, TWO_OUT = specs_of(
    "g (float[N,2] x, int64[N] n) => (float[N,2] y, int64[N] m) { y = Relu(x)\n m = Neg(n) }"
)
WORDS, _ = specs_of("g (string[N] s) => (string[N] t) { t = Identity(s) }")
LISTS, _ = specs_of(
    "g (seq(float[N]) s, optional(float[N]) o) => (bool t) { t = OptionalHasElement(o) }"
)
X = np.arange(8, dtype=np.float32).reshape(4, 2)
N = np.arange(4)


def read(
    path: Path | Iterable[Path], specs: tuple[ValueSpec, ...] = ONE, **options: Any
) -> list[Feed]:
    paths = [path] if isinstance(path, Path) else list(path)
    return list(load_feeds(paths, specs, **options))


def same(feed: Feed, **arrays: np.ndarray) -> None:
    assert set(feed.arrays) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(feed.arrays[name], array)
    assert feed.given


# --- NumPy ---


def test_npz_by_name_with_more_in_it(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", x=X, n=N, label=np.zeros(9))
    (feed,) = read(tmp_path / "f.npz", TWO)
    same(feed, x=X, n=N)
    assert feed.name == str(tmp_path / "f.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_only_array_is_the_only_input(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "f.npz", X)
    same(read(tmp_path / "f.npz")[0], x=X)
    np.save(tmp_path / "f.npy", X)
    same(read(tmp_path / "f.npy")[0], x=X)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_stack_of_feeds_and_multiples_of_a_fixed_batch(
    tmp_path: Path, suffix: str, order: str
) -> None:
    stack = np.asarray(np.arange(24, dtype=np.float32).reshape(3, 4, 2), order=order)  # type: ignore[call-overload]
    path = tmp_path / f"f.{suffix}"

    def save(array: np.ndarray) -> None:
        np.save(path, array) if suffix == "npy" else np.savez(path, x=array)

    save(stack)
    for feed, array in zip(read(path), stack, strict=True):
        same(feed, x=array)
    assert [feed.name for feed in read(path)] == [f"{path} [{i}]" for i in range(3)]
    for feed, array in zip(read(path, FIXED), stack, strict=True):
        same(feed, x=array)
    save(np.asarray(stack.reshape(12, 2), order=order))  # type: ignore[call-overload]
    (one,) = read(path)
    assert one.arrays["x"].shape == (12, 2)
    for feed, array in zip(read(path, FIXED), stack, strict=True):
        same(feed, x=array)
    save(stack[:1])
    (one,) = read(path, FIXED)
    assert one.arrays["x"].shape == (4, 2)


def test_an_input_without_samples_goes_into_every_feed(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", x=np.stack([X, X + 1]), n=N)
    first, second = read(tmp_path / "f.npz", TWO)
    same(first, x=X, n=N)
    same(second, x=X + 1, n=N)


def test_samples_and_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        np.save(tmp_path / f"set_{number}.npy", X + number)
    feeds = read(tmp_path)
    assert [Path(feed.name).name for feed in feeds] == ["set_1.npy", "set_2.npy", "set_10.npy"]
    assert len(read(tmp_path, samples=2)) == 2
    assert len(read([tmp_path, tmp_path / "set_1.npy"])) == 4


def test_folder_of_arrays_named_like_the_inputs(tmp_path: Path) -> None:
    for number in range(2):
        folder = tmp_path / f"case{number}"
        folder.mkdir()
        np.save(folder / "x.npy", X + number)
        np.save(folder / "n.npy", N)
    same(read(tmp_path / "case0", TWO)[0], x=X, n=N)
    _, second = read(tmp_path, TWO)
    same(second, x=X + 1, n=N)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_one_feed_at_a_time_is_in_memory(tmp_path: Path, suffix: str) -> None:
    stack = np.zeros((40, 1, 2**16), np.float32)
    specs, _ = specs_of("g (float[1,65536] x) => (float[1,65536] y) { y = Relu(x) }")
    path = tmp_path / f"f.{suffix}"
    np.save(path, stack) if suffix == "npy" else np.savez_compressed(path, x=stack)
    tracemalloc.start()
    count = sum(1 for _ in load_feeds([path], specs))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 40
    assert peak < stack.nbytes / 5


@pytest.mark.parametrize("length", ["'a'", "None", "-1", "1.0", "(1,)", "True", 2**61, 10**30])
def test_shapes_of_no_array(length: object, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", X)
    data = (tmp_path / "f.npy").read_bytes()
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({length}, 8)}}\n".encode()
    (tmp_path / "f.npy").write_bytes(data[:8] + len(head).to_bytes(2, "little") + head + data[128:])
    with pytest.raises(InputError, match="not readable as"):
        read(tmp_path / "f.npy")


@pytest.mark.parametrize("kind", ["npz", "saved", "npy", "json", "pb"])
def test_damaged_files_are_one_line(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / f"f.{'npz' if kind == 'saved' else kind}"
    if kind == "npz":
        np.savez_compressed(path, x=np.stack([X, X]))
    elif kind == "saved":
        save_feed(Feed("f", {"x": X}, expected={"y": X}), path)
    elif kind == "npy":
        np.save(path, np.stack([X, X]))
    elif kind == "json":
        path.write_text(json.dumps([{"x": polygraphy(X)}]))
    else:
        path = write_set(tmp_path / "set", [X]) / "input_0.pb"
    whole = path.read_bytes()
    messages = []
    for trial in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(damaged[: None if trial % 3 else int(rng.integers(0, len(whole)))])
        try:
            read(path.parent if kind == "pb" else path)
        except InputError as error:
            messages.append(error.message)
    assert len(messages) > 30
    assert not any("\n" in message for message in messages)


# --- types ---

CONVERTED: dict[str, tuple[int, np.ndarray, bool]] = {
    "float64": (TensorProto.FLOAT, np.array([0.1]), True),
    "float16": (TensorProto.FLOAT, np.array([0.1], np.float16), True),
    "to-bfloat16": (TensorProto.BFLOAT16, np.array([1.5], np.float32), True),
    "too-large": (TensorProto.FLOAT16, np.array([1e6], np.float32), False),
    "infinity": (TensorProto.FLOAT16, np.array([np.inf, np.nan], np.float32), True),
    "integers-to-float": (TensorProto.FLOAT, np.array([1]), False),
    "float-to-integers": (TensorProto.INT64, np.array([1.0]), False),
    "narrower": (TensorProto.INT32, np.array([7]), True),
    "does-not-fit": (TensorProto.INT32, np.array([2**40]), False),
    "negative": (TensorProto.UINT8, np.array([-1]), False),
    "flags": (TensorProto.BOOL, np.array([0, 1]), True),
    "no-flags": (TensorProto.BOOL, np.array([0, 2]), False),
    "bool-to-int": (TensorProto.INT64, np.array([True]), True),
    "bool-to-float": (TensorProto.FLOAT, np.array([True]), False),
    "text": (TensorProto.STRING, np.array(["a", "\u00e9"]), True),
    "text-to-float": (TensorProto.FLOAT, np.array(["1.0"]), False),
    "float-to-text": (TensorProto.STRING, np.array([1.0]), False),
    "bytes-of-bfloat16": (TensorProto.BFLOAT16, np.array([1.5], ml_dtypes.bfloat16), True),
    "int4": (TensorProto.INT4, np.array([-8, 7]), True),
    "int4-does-not-fit": (TensorProto.INT4, np.array([8]), False),
    "big-endian": (TensorProto.FLOAT, np.array([0.1], ">f4"), True),
    "none": (TensorProto.INT64, np.zeros(0, np.int8), True),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_types_are_converted_without_loss_or_not_at_all(tmp_path: Path, name: str) -> None:
    elem_type, array, accepted = CONVERTED[name]
    np.save(tmp_path / "f.npy", array)
    spec = ValueSpec("x", "tensor", elem_type, ("N",))
    if not accepted:
        with pytest.raises(InputError) as caught:
            read(tmp_path / "f.npy", (spec,))
        assert f"'x' is {array.dtype}, but the model takes {spec.type_name}" in str(caught.value)
        assert caught.value.hint
        return
    (feed,) = read(tmp_path / "f.npy", (spec,))
    value = feed.arrays["x"]
    assert value.dtype == helper.tensor_dtype_to_np_dtype(elem_type)
    assert value.dtype.isnative
    np.testing.assert_array_equal(value, array.astype(value.dtype))


# --- ONNX ---


def write_set(folder: Path, inputs: list[Any], outputs: list[Any] = []) -> Path:  # noqa: B006
    folder.mkdir(parents=True)
    for kind, values in (("input", inputs), ("output", outputs)):
        for number, value in enumerate(values):
            proto = value if hasattr(value, "SerializeToString") else numpy_helper.from_array(value)
            (folder / f"{kind}_{number}.pb").write_bytes(proto.SerializeToString())
    return folder


def test_data_sets_with_a_third_opinion(tmp_path: Path) -> None:
    for number in (10, 2):
        write_set(tmp_path / f"test_data_set_{number}", [X + number, N], [X, -N])
    (tmp_path / "model.onnx").touch()
    first, second = read(tmp_path, TWO, output_specs=TWO_OUT)
    same(first, x=X + 2, n=N)
    same(second, x=X + 10, n=N)
    assert first.expected is not None
    assert list(first.expected) == ["y", "m"]
    np.testing.assert_array_equal(first.expected["m"], -N)
    (alone,) = read(tmp_path / "test_data_set_2", TWO)
    assert alone.expected is None


def test_names_in_a_data_set_go_before_positions(tmp_path: Path) -> None:
    inputs = [numpy_helper.from_array(N, "n"), numpy_helper.from_array(X, "x")]
    same(read(write_set(tmp_path / "set", inputs), TWO)[0], x=X, n=N)


def test_sequences_and_optionals_in_a_data_set(tmp_path: Path) -> None:
    sequence = numpy_helper.from_list([np.ones(2, np.float32), np.zeros(3, np.float32)], "s")
    optional = numpy_helper.from_optional(np.ones(2, np.float32), "o")
    (feed,) = read(write_set(tmp_path / "full", [sequence, optional]), LISTS)
    assert [len(item) for item in feed.arrays["s"]] == [2, 3]
    assert feed.arrays["o"].tolist() == [1, 1]
    (feed,) = read(write_set(tmp_path / "absent", [sequence]), LISTS)
    assert feed.arrays["o"] is None


def test_third_opinion_is_heard(tmp_path: Path) -> None:
    proto = text("g (float[N,2] x) => (float[N,2] y) { y = Relu(x) }")
    write_set(tmp_path / "test_data_set_0", [X], [X])
    (feed,) = read(tmp_path, ONE, output_specs=ONE_OUT)
    assert feed.expected is not None
    (first, _) = check(proto, proto, data=[tmp_path], samples=1)
    assert first.equivalent
    assert first.feeds == 1


# --- Polygraphy ---


def polygraphy(array: np.ndarray) -> dict[str, str]:
    content = io.BytesIO()
    np.save(content, array)
    text = base64.b64encode(content.getvalue()).decode()
    return {"array": text, "polygraphy_class": "ndarray"}


def test_polygraphy(tmp_path: Path) -> None:
    feeds = [{"x": polygraphy(X + i), "n": polygraphy(N)} for i in range(2)]
    (tmp_path / "list.json").write_text(json.dumps(feeds))
    (tmp_path / "one.json").write_text(json.dumps(feeds[0]))
    same(read(tmp_path / "list.json", TWO)[1], x=X + 1, n=N)
    same(read(tmp_path / "one.json", TWO)[0], x=X, n=N)
    assert len(read(tmp_path, TWO)) == 3


def test_old_polygraphy_and_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    content = io.BytesIO()
    np.save(content, X)
    old = {
        "array": content.getvalue().decode("latin-1"),
        "__polygraphy_encoded_ndarray": "polygraphy_serialized_json_type",
    }
    saved = io.BytesIO()
    torch.save(torch.from_numpy(X), saved)
    tensor = {
        "tensor": base64.b64encode(saved.getvalue()).decode(),
        "polygraphy_class": "Tensor",
    }
    (tmp_path / "f.json").write_text(json.dumps([{"x": old}, {"x": tensor}]))
    for feed in read(tmp_path / "f.json"):
        same(feed, x=X)


def test_a_pickle_that_would_not_end_in_polygraphys_json(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pairs = b"".join(b"q%ch%c\x86" % (at, at) for at in range(60))  # each of two of the last one
    saved = io.BytesIO()
    with zipfile.ZipFile(saved, "w") as archive:
        archive.writestr("w/data.pkl", b"\x80\x02}K\x01" + pairs + b"K\x01s.")
        archive.writestr("w/version", "3")
    tensor = base64.b64encode(saved.getvalue()).decode()
    content = [{"x": {"tensor": tensor, "polygraphy_class": "Tensor"}}]
    (tmp_path / "f.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="too deep or too long"):
        list(read(tmp_path / "f.json"))


# --- functions ---

LOADERS: dict[str, tuple[str, int]] = {
    "dict": ("return {'x': X, 'n': N, 'label': 3}", 1),
    "generator": ("yield {'x': X, 'n': N}; yield X, N", 2),
    "list-of-dicts": ("return [{'x': X, 'n': N}] * 3", 3),
    "tuple": ("return X, N", 1),
    "list": ("return [X, N]", 1),
    "list-of-tuples": ("return [(X, N)] * 2", 2),
    "stack": ("return {'x': np.stack([X, X]), 'n': N}", 2),
    "iterable": ("return map(lambda _: (X, N), range(2))", 2),
    "scalars": ("return {'x': X.tolist(), 'n': N.tolist()}", 1),
}
HEAD = "import numpy as np\nX = np.ones((4, 2), np.float32)\nN = np.arange(4)\ndef load():\n    "


@pytest.mark.parametrize("name", LOADERS)
def test_loader(tmp_path: Path, name: str) -> None:
    body, count = LOADERS[name]
    (tmp_path / "my.py").write_text(HEAD + body)
    feeds = read([], TWO, loader=f"{tmp_path / 'my.py'}:load")
    assert len(feeds) == count
    for feed in feeds:
        same(feed, x=np.ones((4, 2)), n=N)


def test_loader_of_torch_tensors_beside_its_own_modules(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "beside_my_loader.py").write_text("import torch\nX = torch.ones(4, 2)\n")
    (tmp_path / "my.py").write_text(
        "from beside_my_loader import X\n"
        "def load_data():\n    yield X\n    yield X.bfloat16().requires_grad_()\n    yield [X]\n"
    )
    feeds = read([], ONE, loader=str(tmp_path / "my.py"))
    assert len(feeds) == 3
    for feed in feeds:
        same(feed, x=np.ones((4, 2)))
    assert list(tmp_path.glob("my*")) == [tmp_path / "my.py"]


def test_loader_that_never_ends_is_read_as_far_as_asked(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(HEAD + "while True:\n        yield X")
    assert len(read([], ONE, loader=f"{tmp_path / 'my.py'}:load", samples=5)) == 5


def test_loader_through_the_check(tmp_path: Path) -> None:
    reference = text("g (float[N,2] x) => (float[N,2] y) { y = Identity(x) }")
    candidate = text("g (float[N,2] x) => (float[N,2] y) <float c = {12345.0}> { y = Min(x, c) }")
    (tmp_path / "my.py").write_text(HEAD + "print('here')\n    yield X\n    yield 3e4 * X")
    loader = f"{tmp_path / 'my.py'}:load"
    assert all(r.equivalent for r in check(reference, candidate, data_loader=loader, samples=1))
    reports = check(reference, candidate, data_loader=loader, samples=2)
    assert [(r.equivalent, r.feeds) for r in reports] == [(False, 2)] * 2


BAD_LOADERS = {
    "raises": ("yield X, N\n    1 / 0", "my.py:6: ZeroDivisionError: division by zero"),
    "import": ("import nowhere_to_be_found", "my.py:5: ModuleNotFoundError: No module named"),
    "syntax": ("x = (", "my.py:5: SyntaxError: '(' was never closed"),
    "exits": ("raise SystemExit", "my.py:5: SystemExit"),
    "nothing": ("return []", "it gives no inputs"),
    "number": ("return 3", "the data loader gives int"),
    "too-few": ("yield X, N, N", "3 values, but the model has 2 inputs"),
    "missing": ("yield {'x': X, 'nn': N}", "nothing for input 'n'; it has 'x', 'nn'"),
    "unnamed": ("yield X", "an array without a name, but the model has 2 inputs"),
    "different": ("yield {'x': np.stack([X] * 3), 'n': np.stack([N] * 2)}", "'x' holds 3 samples"),
    "none": ("yield {'x': None, 'n': N}", "'x' is nothing, but the model takes a tensor of float"),
}


@pytest.mark.parametrize("name", BAD_LOADERS)
def test_bad_loader(tmp_path: Path, name: str) -> None:
    body, message = BAD_LOADERS[name]
    (tmp_path / "my.py").write_text(HEAD + body)
    with pytest.raises(InputError) as caught:
        read([], TWO, loader=f"{tmp_path / 'my.py'}:load")
    assert message in caught.value.message
    assert str(tmp_path / "my.py") in caught.value.message or name == "number"
    assert "\n" not in caught.value.message + (caught.value.hint or "")


def test_no_such_loader(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text("load = 3")
    with pytest.raises(InputError, match="it has no function 'load'"):
        read([], loader=f"{tmp_path / 'my.py'}:load")
    with pytest.raises(InputError, match=r"nowhere\.py: no such file"):
        read([], loader="nowhere.py:load")


# --- what is wrong ---


def files(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    """A file or folder, and what is said about it."""
    np.savez(tmp_path / "misnamed.npz", X=X, n=N)
    np.save(tmp_path / "rank.npy", np.zeros(2, np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "cut.npy", X)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-9])
    np.save(tmp_path / "none.npy", np.zeros((0, 4, 2), np.float32))
    (tmp_path / "text.json").write_text('{"x": {"polygraphy_class": "Odd"}}')
    (tmp_path / "results.json").write_text('{"lst": [], "polygraphy_class": "RunResults"}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "image.png").touch()
    (tmp_path / "script.py").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "test_data_set_0").mkdir()
    write_set(tmp_path / "extra", [X, N, N])
    write_set(tmp_path / "damaged", [X])
    (tmp_path / "damaged" / "input_0.pb").write_bytes(b"\xff\xff")
    return {
        "misnamed": (tmp_path / "misnamed.npz", "nothing for input 'x'; it has 'X', 'n'"),
        "rank": (tmp_path / "rank.npy", "'x' has shape 2, but the model declares Nx2"),
        "objects": (tmp_path / "objects.npy", "not readable as .npy (it holds Python objects"),
        "cut": (tmp_path / "cut.npy", "'x' is not readable"),
        "none": (tmp_path / "none.npy", "'x' holds no samples"),
        "text": (tmp_path / "text.json", "an array of the unknown class 'Odd'"),
        "results": (tmp_path / "results.json", "it holds no inputs"),
        "broken": (tmp_path / "broken.json", "not readable as inputs of Polygraphy"),
        "image": (tmp_path / "image.png", "unknown kind of data"),
        "script": (tmp_path / "script.py", "unknown kind of data"),
        "empty": (tmp_path / "empty", "no data in this folder"),
        "no-inputs": (tmp_path / "test_data_set_0", "no input_*.pb"),
        "extra": (tmp_path / "extra", "input_1.pb: the model has no input for it"),
        "damaged": (tmp_path / "damaged", "input_0.pb: not a serialized tensor for 'x'"),
        "nowhere": (tmp_path / "nowhere.npz", "no such file"),
    }


def test_wrong_data(tmp_path: Path) -> None:
    for name, (path, message) in files(tmp_path).items():
        with pytest.raises(InputError) as caught:
            read(path, TWO if name == "misnamed" else ONE)
        assert str(path) in caught.value.message
        assert message in caught.value.message
        assert "\n" not in caught.value.message


def test_words_by_every_way(tmp_path: Path) -> None:
    words = np.array(["a", "\u00e9", ""], object)
    np.save(tmp_path / "f.npy", words.astype(str))
    same(read(tmp_path / "f.npy", WORDS)[0], s=words)
    folder = write_set(tmp_path / "set", [numpy_helper.from_array(words)])
    same(read(folder, WORDS)[0], s=words)
    assert read(folder, WORDS)[0].arrays["s"].dtype == object
