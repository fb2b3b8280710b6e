from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import store_models
from onnx import numpy_helper

from bnfold import store
from bnfold.errors import InputError, ModelError
from bnfold.store import files

NEW = store_models.weight(99, 64, 32, 3, 3)


class Failing:
    """A lazy tensor that raises in the middle."""

    shape = (3_000_000,)
    dtype = np.dtype(np.float32)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def blocks(self) -> Iterator[np.ndarray]:
        yield np.zeros(2_000_000, np.float32)
        raise self.error


def tree(directory: Path) -> dict[str, bytes]:
    """All files of a directory with their content; a leftover of any kind shows."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else b""
        for path in directory.rglob("*")
    }


def edit(model: store.LoadedModel, values: np.ndarray = NEW) -> store.LoadedModel:
    """Give the first initializer other values."""
    model.tensors.attach(model.proto.graph.initializer[0], store.ArraySource(values))
    return model


def edited_with(model: store.LoadedModel, source: Any) -> store.LoadedModel:
    tensor = model.proto.graph.initializer[0]
    tensor.ClearField("dims")
    tensor.dims.extend(source.shape)
    model.tensors.attach(tensor, source)
    return model


def values_of(path: Path) -> list[np.ndarray]:
    return [numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer]


def data_files(path: Path) -> set[str]:
    proto = onnx.load(path, load_external_data=False)
    return {
        entry.value
        for tensor in store.iter_tensors(proto)
        for entry in tensor.external_data
        if entry.key == "location"
    }


# --- byte identity


def test_untouched_models_are_written_byte_for_byte(proto: onnx.ModelProto, tmp_path: Path) -> None:
    data = proto.SerializeToString(deterministic=True)
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    for model in (store.load(path), store.from_bytes(data)):
        assert model.proto.ByteSize() < 30_000
        assert store.to_bytes(model) == data
        for unchanged in (False, True):
            assert store.save(model, tmp_path / "out.onnx", unchanged=unchanged) == len(data)
            assert (tmp_path / "out.onnx").read_bytes() == data
    assert set(tree(tmp_path)) == {"m.onnx", "out.onnx"}


def test_models_of_the_onnx_wheel_survive() -> None:
    directory = Path(onnx.__file__).parent / "backend" / "test" / "data"
    paths = sorted(directory.rglob("*.onnx"))
    assert paths
    for path in paths:
        canonical = onnx.ModelProto.FromString(path.read_bytes()).SerializeToString()
        assert store.to_bytes(store.load(path)) == canonical


def test_an_edit_leaves_everything_else(tmp_path: Path) -> None:
    proto = store_models.everything_model()
    model = store.from_bytes(proto.SerializeToString())
    values = store_models.weight(50, 40, 30)
    edit(model, values)
    store.save(model, tmp_path / "m.onnx")
    proto.graph.initializer[0].raw_data = values.tobytes()
    assert (tmp_path / "m.onnx").read_bytes() == proto.SerializeToString(deterministic=True)


def test_unchanged_keeps_bytes_that_protobuf_would_order_otherwise(tmp_path: Path) -> None:
    proto = store_models.conv_model()
    opset = b"\x42\x02\x10\x11"
    data = opset + proto.SerializeToString()  # a late field first
    store.save(store.from_bytes(data), tmp_path / "m.onnx", unchanged=True)
    assert (tmp_path / "m.onnx").read_bytes() == data


def test_external_tensors_keep_their_references_in_memory(external: Path) -> None:
    model = store.load(external)
    assert store.to_bytes(model) == external.read_bytes()
    edit(model)
    model.proto.graph.initializer[1].raw_data = bytes(256)
    first, second, third = onnx.load_from_string(store.to_bytes(model)).graph.initializer
    assert first.raw_data == NEW.tobytes()
    assert second.raw_data == bytes(256)
    assert third.data_location == onnx.TensorProto.EXTERNAL


# --- external data


def test_external_data_goes_beside_the_result(external: Path, tmp_path: Path) -> None:
    before = tree(external.parent)
    target = tmp_path / "out.onnx"
    written = store.save(edit(store.load(external)), target)
    assert data_files(target) == {"out.onnx.data"}
    assert written == target.stat().st_size + (tmp_path / "out.onnx.data").stat().st_size
    first, second, third = values_of(target)
    assert np.array_equal(first, NEW)
    assert np.array_equal(second, store_models.weight(1, 64))
    assert third.tolist() == [1, -1]
    assert tree(external.parent) == before
    proto = onnx.load(target, load_external_data=False)
    assert [entry.key for entry in proto.graph.initializer[0].external_data] == [
        "location",
        "offset",
        "length",
    ]
    assert store.load(target).size == written


def test_offsets_are_aligned_and_shared_bytes_are_written_once(tmp_path: Path) -> None:
    arrays = [store_models.weight(seed, count) for seed, count in enumerate((1, 2000, 300_000, 5))]
    tensors = [store_models.tensor(f"w{i}", array) for i, array in enumerate(arrays)]
    proto = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    onnx.save(
        proto, tmp_path / "m.onnx", save_as_external_data=True, location="d", size_threshold=0
    )
    model = store.load(tmp_path / "m.onnx")
    model.proto.graph.initializer.add().CopyFrom(model.proto.graph.initializer[2])
    store.save(model, tmp_path / "out.onnx")
    places = [
        {entry.key: entry.value for entry in tensor.external_data}
        for tensor in onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer
    ]
    assert [int(place["offset"]) for place in places] == [0, 64, 65536, 1_265_536, 65536]
    for found, array in zip(values_of(tmp_path / "out.onnx"), [*arrays, arrays[2]], strict=True):
        assert np.array_equal(found, array)


def test_new_big_tensors_go_where_the_others_are(external: Path, tmp_path: Path) -> None:
    model = store.load(external)
    for name, values in (("new", NEW), ("tiny", NEW[0, 0])):
        tensor = model.proto.graph.initializer.add(name=name, data_type=1, dims=values.shape)
        model.tensors.attach(tensor, store.ArraySource(values))
    store.save(model, tmp_path / "out.onnx")
    proto = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    assert [t.data_location for t in proto.graph.initializer] == [1, 1, 1, 1, 0]
    assert np.array_equal(values_of(tmp_path / "out.onnx")[3], NEW)


def test_embedded_and_external_tensors_of_one_model_stay_so(tmp_path: Path) -> None:
    tensors = [store_models.tensor(name, store_models.weight(0, 2000)) for name in "ab"]
    onnx.external_data_helper.set_external_data(tensors[1], "w.bin")
    (tmp_path / "w.bin").write_bytes(tensors[1].raw_data)
    tensors[1].ClearField("raw_data")
    proto = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    model = store.load(tmp_path / "m.onnx")
    for tensor in model.proto.graph.initializer:
        model.tensors.attach(tensor, store.ArraySource(store_models.weight(1, 2000)))
    store.save(model, tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer
    assert [tensor.data_location for tensor in written] == [0, 1]
    assert np.array_equal(values_of(tmp_path / "out.onnx")[1], store_models.weight(1, 2000))


def test_an_external_tensor_with_values_in_a_typed_field_becomes_ordinary(
    external: Path, tmp_path: Path
) -> None:
    model = store.load(external)
    bias = model.proto.graph.initializer[1]
    bias.ClearField("raw_data")
    bias.float_data.extend([1.0] * 64)
    store.save(model, tmp_path / "out.onnx")
    assert values_of(tmp_path / "out.onnx")[1].tolist() == [1.0] * 64
    assert b"bnfold-store" not in (tmp_path / "out.onnx").read_bytes()


def test_models_beyond_the_limit_of_protobuf_spill(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = edit(store.load(embedded))
    monkeypatch.setattr(files, "MAX_MODEL_BYTES", 10_000)
    store.save(model, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").stat().st_size < 1000
    assert np.array_equal(values_of(tmp_path / "out.onnx")[0], NEW)
    with pytest.raises(ModelError, match="more than a serialized model can have"):
        store.to_bytes(model)
    monkeypatch.setattr(files, "MAX_MODEL_BYTES", 100)
    before = tree(tmp_path)
    with pytest.raises(ModelError, match="even without its weights"):
        store.save(model, tmp_path / "out.onnx")
    assert tree(tmp_path) == before


# --- unchanged models with external data


def test_unchanged_beside_the_source_refers_to_the_same_data(external: Path) -> None:
    model = store.load(external)
    target = external.parent / "out.onnx"
    assert store.save(model, target, unchanged=True) == model.size
    assert target.read_bytes() == external.read_bytes()
    assert set(tree(external.parent)) == {"m.onnx", "m.onnx.data", "out.onnx"}


def test_unchanged_elsewhere_takes_its_data_along(external: Path, tmp_path: Path) -> None:
    proto = onnx.load(external)
    (tmp_path / "deep" / "sub").mkdir(parents=True)
    source = tmp_path / "deep" / "m.onnx"
    onnx.save(proto, source, save_as_external_data=True, location="sub/w", size_threshold=0)
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "n.onnx"
    for _ in range(2):  # the second time, the data is there already
        store.save(store.load(source), target, unchanged=True)
        assert target.read_bytes() == source.read_bytes()
        assert set(tree(target.parent)) == {"n.onnx", "sub", "sub/w"}
        assert (target.parent / "sub" / "w").read_bytes() == (source.parent / "sub/w").read_bytes()


def test_unchanged_does_not_overwrite_other_data(external: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx.data").write_bytes(b"mine")
    target = tmp_path / "m.onnx"
    store.save(store.load(external), target, unchanged=True)
    assert (tmp_path / "m.onnx.data").read_bytes() == b"mine"
    assert np.array_equal(values_of(target)[0], values_of(external)[0])


def test_unchanged_in_place_does_nothing(external: Path) -> None:
    link = external.parent / "link.onnx"
    link.symlink_to(external)
    before = external.stat()
    for path in (external, link):
        model = store.load(external)
        assert store.save(model, path, unchanged=True) == model.size
    assert external.stat() == before
    assert link.is_symlink()


# --- replacing


@pytest.mark.parametrize("kind", ["embedded", "external"])
def test_in_place(kind: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(kind)
    model = store.load(path)
    old = model.tensors.array(model.proto.graph.initializer[0])
    copy = old.copy()
    edit(model)
    store.save(model, path)
    assert np.array_equal(old, copy)  # views of the old file stay valid
    assert np.array_equal(values_of(path)[0], NEW)
    names = set(tree(path.parent))
    assert len(names) == (1 if kind == "embedded" else 2)
    store.save(edit(store.load(path), NEW * 2), path)
    assert np.array_equal(values_of(path)[0], NEW * 2)
    assert len(tree(path.parent)) == len(names)


def test_data_is_written_under_a_name_that_the_old_model_does_not_use(external: Path) -> None:
    model = edit(store.load(external))
    with store.stage(model, external) as staged:
        (name,) = data_files(staged.path)
        assert re.fullmatch(r"m\.onnx\.[0-9a-f]{8}\.data", name)
        assert np.array_equal(values_of(staged.path)[0], NEW)
        assert not np.array_equal(values_of(external)[0], NEW)
        staged.commit()
    assert set(tree(external.parent)) == {"m.onnx", name}


def test_the_same_edit_gives_the_same_bytes(external: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    store.save(edit(store.load(external)), target)
    before = tree(tmp_path)
    store.save(edit(store.load(external)), target)
    assert tree(tmp_path) == before
    store.save(edit(store.load(external), NEW * 2), target)
    third = tree(tmp_path)
    store.save(edit(store.load(external), NEW * 2), target)
    assert tree(tmp_path) == third


def test_data_that_another_model_uses_is_kept(external: Path) -> None:
    store.save(store.load(external), external.parent / "other.onnx", unchanged=True)
    store.save(edit(store.load(external)), external)
    assert (external.parent / "m.onnx.data").exists()
    assert not np.array_equal(values_of(external.parent / "other.onnx")[0], NEW)


def test_data_is_kept_where_a_neighbour_cannot_be_read(external: Path) -> None:
    (external.parent / "junk.onnx").write_text("junk")
    store.save(edit(store.load(external)), external)
    assert (external.parent / "m.onnx.data").exists()


def test_data_of_another_name_is_kept(conv: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(conv, path, save_as_external_data=True, location="weights", size_threshold=0)
    store.save(edit(store.load(path)), path)
    assert set(tree(tmp_path)) == {"m.onnx", "m.onnx.data", "weights"}


def test_permissions_are_kept_and_a_link_becomes_a_file(external: Path, tmp_path: Path) -> None:
    external.chmod(0o640)
    store.save(edit(store.load(external)), external)
    for path in external.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    umask = os.umask(0o027)
    try:
        store.save(store.load(external), tmp_path / "new.onnx")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new.onnx").stat().st_mode) == 0o640
    link = tmp_path / "link.onnx"
    link.symlink_to(tmp_path / "new.onnx")
    before = (tmp_path / "new.onnx").read_bytes()
    store.save(edit(store.load(external), NEW * 3), link)
    assert not link.is_symlink()
    assert (tmp_path / "new.onnx").read_bytes() == before


def test_staged_models_wait(embedded: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    with store.stage(edit(store.load(embedded)), target) as staged:
        assert staged.path.parent == tmp_path
        assert np.array_equal(values_of(staged.path)[0], NEW)
        assert not target.exists()
    assert set(tree(tmp_path)) == {"src", "src/m.onnx"}
    staged = store.stage(edit(store.load(embedded)), target)
    staged.commit()
    staged.commit()
    staged.discard()
    assert staged.nbytes == target.stat().st_size
    store.stage(edit(store.load(embedded)), target)  # dropped: cleans up after itself
    assert set(tree(tmp_path)) == {"src", "src/m.onnx", "out.onnx"}


# --- failures

FAULTS: dict[str, BaseException] = {
    "a bug": ZeroDivisionError("bug"),
    "interrupt": KeyboardInterrupt(),
    "disk full": OSError(errno.ENOSPC, "No space left on device"),
}


@pytest.mark.parametrize("kind", ["embedded", "external"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_while_computing_leaves_everything_as_it_was(
    fault: BaseException, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path: Path = request.getfixturevalue(kind)
    before = tree(tmp_path)
    for target in (path, tmp_path / "out.onnx"):
        model = edited_with(store.load(path), Failing(fault))
        expected = InputError if isinstance(fault, OSError) else type(fault)
        with pytest.raises(expected):
            store.save(model, target)
        assert tree(tmp_path) == before


CALLS = ["open", "write", "fsync", "replace", "rename", "copy_file_range"]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("unchanged", [False, True], ids=["edited", "unchanged"])
@pytest.mark.parametrize("kind", ["embedded", "external"])
def test_a_fault_of_the_system_leaves_everything_as_it_was(
    name: str,
    unchanged: bool,
    kind: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not hasattr(os, name):
        pytest.skip(f"no os.{name} here")
    path: Path = request.getfixturevalue(kind)
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "m.onnx"
    onnx.save(store_models.conv_model(), target)
    before = tree(tmp_path)
    real = getattr(os, name)
    messages: set[str] = set()
    for limit in range(20):
        model = store.load(path)
        if not unchanged:
            edit(model)
        calls = 0

        def failing(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **kwargs)
            calls += 1
            if calls > limit:  # noqa: B023 - used within this turn of the loop
                raise OSError(errno.EIO, "Input/output error")
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing)
            try:
                store.save(model, target, unchanged=unchanged)
            except InputError as error:
                messages.add(str(error))
                assert tree(tmp_path) == before
            else:
                break
    else:
        pytest.fail("it never succeeded")
    assert messages <= {f"{target}: cannot be written: input/output error"}
    assert len(values_of(target)) == 3


def test_an_interrupt_after_the_replacement_keeps_the_new_model(
    external: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def late(*args: Any) -> None:
        real(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", late)
        with pytest.raises(KeyboardInterrupt):
            store.save(edit(store.load(external)), external)
    assert np.array_equal(values_of(external)[0], NEW)


def test_copying_works_where_the_kernel_cannot(
    external: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    answers: list[tuple[str, Callable[..., int] | None]] = [
        ("refused", refuse),
        ("nothing", lambda *_: 0),
        ("absent", None),
    ]
    for name, answer in answers:
        with monkeypatch.context() as patch:
            if answer is None:
                patch.delattr(os, "copy_file_range", raising=False)
            else:
                patch.setattr(os, "copy_file_range", answer, raising=False)
            store.save(store.load(external), tmp_path / f"{name}.onnx")
        assert np.array_equal(values_of(tmp_path / f"{name}.onnx")[0], values_of(external)[0])


def test_a_source_that_shrinks_is_noticed(embedded: Path, tmp_path: Path) -> None:
    model = store.load(embedded)
    os.truncate(embedded, 5000)
    with pytest.raises(ModelError, match="changed while it was in use"):
        store.save(model, tmp_path / "out.onnx")
    assert set(tree(tmp_path)) == {"src", "src/m.onnx"}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere/m.onnx", "the directory '.*nowhere' does not exist"),
        ("src", "a directory, not a file"),
        ("pipe", "not a regular file"),
        ("n" * 300, "cannot be written: file name too long"),
    ],
)
def test_bad_targets_are_named(embedded: Path, tmp_path: Path, target: str, message: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    names = set(tree(tmp_path / "src"))
    for unchanged in (False, True):
        with pytest.raises(InputError, match=message) as caught:
            store.save(store.load(embedded), tmp_path / target, unchanged=unchanged)
        assert str(caught.value).startswith(f"{tmp_path / target}: ")
    assert set(tree(tmp_path / "src")) == names
    assert {path.name for path in tmp_path.iterdir()} == {"src", "pipe"}


def test_a_data_file_needs_a_name_in_utf8(external: Path, tmp_path: Path) -> None:
    target = tmp_path / os.fsdecode(b"\xff.onnx")
    with pytest.raises(InputError, match="cannot name external data"):
        store.save(edit(store.load(external)), target)
    assert set(tree(tmp_path)) == {"src", "src/m.onnx", "src/m.onnx.data"}


# --- memory

MEASURE = """
import resource, sys
import numpy as np
from bnfold import store

class Doubled:
    dtype = np.dtype(np.float32)
    def __init__(self, array):
        self.array, self.shape = array, array.shape
    def blocks(self):
        flat = self.array.reshape(-1)
        for first in range(0, flat.size, 1 << 19):
            yield flat[first : first + (1 << 19)] * np.float32(2)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = peak()
model = store.load(sys.argv[1])
for tensor in model.proto.graph.initializer:
    model.tensors.attach(tensor, Doubled(model.tensors.array(tensor)))
store.save(model, sys.argv[2])
print((peak() - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.parametrize("external", [False, True], ids=["embedded", "external"])
def test_memory_stays_near_one_tensor(tmp_path: Path, external: bool) -> None:
    array = np.ones(2_500_000, np.float32)  # 10 MB
    tensors = [store_models.tensor(f"w{i}", array) for i in range(16)]
    proto = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=external, location="d")
    paths = [str(tmp_path / name) for name in ("m.onnx", "out.onnx")]
    out = subprocess.run(
        [sys.executable, "-c", MEASURE, *paths], check=True, capture_output=True, text=True
    )
    assert int(out.stdout) < 60
    model = store.load(tmp_path / "out.onnx")
    assert model.tensors.array(model.proto.graph.initializer[15])[-1] == 2
