from __future__ import annotations

import os
import socket
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import store_models
from onnx import TensorProto, numpy_helper

from bnfold import store
from bnfold.errors import ModelError
from bnfold.store.load import external_locations


def check_refused(path: Path, message: str, *, hint: str | None = None) -> None:
    with pytest.raises(ModelError) as caught:
        store.load(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")


CONTENT = {
    "empty": (b"", "the file is empty", "export it again"),
    "git lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
        "this is a Git LFS pointer",
        "git lfs pull",
    ),
    "html": (b"\n<!DOCTYPE html><html></html>", "this is an HTML page", "download failed"),
    "text": (b"hello, world\n", "this is text", ""),
    "utf-8 text": ("gr\u00fc\u00df dich\n".encode(), "this is text", ""),
    "json": (b'{"format": 1}', "this is text", ""),
    "pickle": (b"\x80\x02}q\x00.", "this is a Python pickle", "torch.onnx.export"),
    "gzip": (b"\x1f\x8b\x08\x00abc", "this is a gzip archive", ""),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "this is an HDF5 file", ""),
    "tflite": (b"\x1c\x00\x00\x00TFL3abc", "this is a TensorFlow Lite model", ""),
    "ort": (b"\x1c\x00\x00\x00ORTMabc", "ONNX Runtime's own format", ""),
    "safetensors": (b"\x10\x00\x00\x00\x00\x00\x00\x00" + b'{"a": {}}', "safetensors", ""),
    "noise": (bytes(range(255, 0, -1)) * 40, "not an ONNX model", ""),
    "zeros": (bytes(100), "not an ONNX model", ""),
    "no graph": (onnx.ModelProto(ir_version=8).SerializeToString(), "has no graph", ""),
    "deep": (b"\x08\x08" + b"\x3a\xff\xff\x7f" * 3000, "truncated or damaged", ""),
}


@pytest.mark.parametrize(("data", "message", "hint"), CONTENT.values(), ids=CONTENT)
def test_files_that_are_no_models_are_named(
    tmp_path: Path, data: bytes, message: str, hint: str
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    check_refused(path, message, hint=hint)


def test_a_zip_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", "x")
    check_refused(path, "a zip archive, such as PyTorch saves", hint="torch.onnx.export")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99, 0.9999])
def test_truncated_models_are_named(embedded: Path, keep: float) -> None:
    data = embedded.read_bytes()
    embedded.write_bytes(data[: int(len(data) * keep)])
    check_refused(embedded, "truncated or damaged", hint="export it again")


def test_places_without_a_file_are_named(tmp_path: Path) -> None:
    check_refused(tmp_path / "missing.onnx", "no such file")
    check_refused(tmp_path, "a directory, not a file", hint="name a file")
    (tmp_path / "plain").write_text("x")
    check_refused(tmp_path / "plain" / "m.onnx", "no such file")
    (tmp_path / "loop.onnx").symlink_to(tmp_path / "loop.onnx")
    check_refused(tmp_path / "loop.onnx", "cannot be read")
    check_refused(tmp_path / "nul\0.onnx", "no such file")


def test_pipes_devices_and_sockets_do_not_block(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_refused(pipe, "not a regular file")
    check_refused(Path("/dev/zero"), "not a regular file")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        check_refused(tmp_path / "socket", "not a regular file")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads anything")
def test_unreadable_files_are_named(embedded: Path) -> None:
    embedded.chmod(0)
    check_refused(embedded, "cannot be read: permission denied")


def test_a_model_is_read_from_a_path_or_a_string(embedded: Path) -> None:
    model = store.load(str(embedded))
    assert model.path == embedded
    assert model.size == embedded.stat().st_size
    assert store.from_bytes(embedded.read_bytes()).path is None


def external_model(directory: Path, data: bytes = b"", **entries: str) -> Path:
    """A model with one float32 tensor of 2000 elements in external data."""
    tensor = TensorProto(name="w", data_type=1, dims=[2000], data_location=TensorProto.EXTERNAL)
    for key, value in ({"location": "w.bin"} | entries).items():
        tensor.external_data.add(key=key, value=value)
    proto = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor]))
    path = directory / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    if data:
        (directory / "w.bin").write_bytes(data)
    return path


VALUES = store_models.weight(0, 2000)
RAW = VALUES.tobytes()
LFS = b"version https://git-lfs.github.com/spec/v1\n"


@pytest.mark.parametrize(
    ("data", "entries"),
    {
        "location only": (RAW, {}),
        "longer file": (RAW + b"more", {}),
        "offset": (b"\0" * 5 + RAW, {"offset": "5"}),
        "offset, length and checksum": (
            b"\0" * 64 + RAW + b"more",
            {"offset": "64", "length": "8000", "checksum": "0"},
        ),
        "unknown key": (RAW, {"basepath": "/", "other": "x"}),
        "dotted location": (RAW, {"location": "./w.bin"}),
        "leading zeros": (RAW, {"offset": "000"}),
    }.values(),
)
def test_external_data_is_found(tmp_path: Path, data: bytes, entries: dict[str, str]) -> None:
    path = external_model(tmp_path, data, **entries)
    model = store.load(path)
    tensor = model.proto.graph.initializer[0]
    assert np.array_equal(model.tensors.array(tensor), VALUES)
    assert model.size == path.stat().st_size + len(data)
    in_memory = store.from_bytes(path.read_bytes(), base_dir=tmp_path)
    assert store.to_bytes(in_memory) == path.read_bytes()


@pytest.mark.parametrize(
    ("data", "entries", "message"),
    {
        "missing": (b"", {}, "external data 'w.bin': no such file"),
        "too short": (
            RAW[:-1],
            {},
            "needs bytes 0 to 8000 of its external data 'w.bin', which has",
        ),
        "offset past the end": (RAW, {"offset": "9000"}, "needs bytes 9000 to 17000"),
        "length past the end": (RAW, {"offset": "4", "length": "8000"}, "needs bytes 4 to 8004"),
        "length too small": (RAW, {"length": "7996"}, "has 7996 bytes of data"),
        "negative offset": (RAW, {"offset": "-4"}, "offset is '-4', not a number"),
        "offset in words": (RAW, {"offset": "four"}, "offset is 'four', not a number"),
        "foreign digits": (RAW, {"offset": "\u0663"}, "not a number"),
        "underscores": (RAW, {"length": "8_000"}, "not a number"),
        "huge length": (RAW, {"length": "9" * 5000}, "not a number"),
        "absolute": (RAW, {"location": "/etc/passwd"}, "outside the model's directory"),
        "parent": (RAW, {"location": "../w.bin"}, "outside the model's directory"),
        "hidden parent": (RAW, {"location": "a/../../w.bin"}, "outside the model's directory"),
        "windows drive": (RAW, {"location": "C:\\w.bin"}, "outside the model's directory"),
        "windows parent": (RAW, {"location": "..\\w.bin"}, "outside the model's directory"),
        "no location": (RAW, {"location": ""}, "outside the model's directory"),
        "nul": (RAW, {"location": "w\0.bin"}, "no such file"),
        "directory": (RAW, {"location": "."}, "a directory"),
        "forged mark": (RAW, {"location": f"bnfold-store:{'0' * 32}:0"}, "no such file"),
        "lfs pointer": (LFS, {}, "needs bytes"),
    }.values(),
)
def test_bad_external_data_is_named(
    tmp_path: Path, data: bytes, entries: dict[str, str], message: str
) -> None:
    path = external_model(tmp_path, data, **entries)
    hints = {b"": "download the data file", LFS: "git lfs pull"}
    check_refused(path, message, hint=hints.get(data))


def test_external_data_without_a_directory_is_refused(tmp_path: Path) -> None:
    path = external_model(tmp_path, RAW)
    with pytest.raises(ModelError, match="no directory is known"):
        store.from_bytes(path.read_bytes())


def test_external_strings_are_refused(tmp_path: Path) -> None:
    path = external_model(tmp_path, RAW)
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].data_type = TensorProto.STRING
    path.write_bytes(proto.SerializeToString())
    check_refused(path, "strings in external data")


def test_a_pipe_as_external_data_does_not_block(tmp_path: Path) -> None:
    path = external_model(tmp_path)
    os.mkfifo(tmp_path / "w.bin")
    check_refused(path, "external data 'w.bin': not a regular file")


def test_links_out_of_the_directory_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(RAW)
    (tmp_path / "models").mkdir()
    path = external_model(tmp_path / "models")
    (tmp_path / "models" / "w.bin").symlink_to(tmp_path / "secret")
    check_refused(path, "a link that leads out of the model's directory", hint="copy")


def test_links_of_a_cache_are_followed(tmp_path: Path) -> None:
    for name in ("blobs", "snapshots", "snapshots/onnx"):
        (tmp_path / name).mkdir()
    path = external_model(tmp_path / "snapshots" / "onnx")
    path.rename(tmp_path / "blobs" / "0001")
    (tmp_path / "blobs" / "0002").write_bytes(RAW)
    path.symlink_to("../../blobs/0001")
    (path.parent / "w.bin").symlink_to("../../blobs/0002")
    model = store.load(path)
    assert np.array_equal(model.tensors.array(model.proto.graph.initializer[0]), VALUES)
    (tmp_path / "elsewhere").write_bytes(RAW)
    (path.parent / "w.bin").unlink()
    (path.parent / "w.bin").symlink_to(tmp_path / "elsewhere")
    check_refused(path, "leads out")


def test_hard_links_and_links_within_the_directory_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real.bin").write_bytes(RAW)
    (tmp_path / "hard.bin").hardlink_to(tmp_path / "real.bin")
    (tmp_path / "w.bin").symlink_to("hard.bin")
    model = store.load(external_model(tmp_path))
    assert np.array_equal(model.tensors.array(model.proto.graph.initializer[0]), VALUES)


def test_small_external_tensors_are_in_the_skeleton_for_shape_inference(external: Path) -> None:
    model = store.load(external)
    big, _, shape = model.proto.graph.initializer
    assert not big.HasField("raw_data")
    assert numpy_helper.to_array(shape).tolist() == [1, -1]
    inferred = onnx.shape_inference.infer_shapes(model.proto)
    dims = inferred.graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [1, 64 * 6 * 6]


@pytest.mark.parametrize("dims", [[0], [3, 0], []], ids=str)
def test_external_tensors_may_be_empty_or_scalar(tmp_path: Path, dims: list[int]) -> None:
    path = external_model(tmp_path, RAW)
    proto = onnx.load(path, load_external_data=False)
    del proto.graph.initializer[0].dims[:]
    proto.graph.initializer[0].dims.extend(dims)
    path.write_bytes(proto.SerializeToString())
    model = store.load(path)
    assert model.tensors.array(model.proto.graph.initializer[0]).shape == tuple(dims)
    store.save(model, tmp_path / "out.onnx")
    again = onnx.load(tmp_path / "out.onnx").graph.initializer[0]
    assert numpy_helper.to_array(again).shape == tuple(dims)


def test_hundreds_of_data_files_need_few_descriptors(tmp_path: Path) -> None:
    resource: Any = pytest.importorskip("resource")
    tensors = []
    for index in range(300):
        tensor = TensorProto(name=f"w{index}", data_type=1, dims=[2000], data_location=1)
        tensor.external_data.add(key="location", value=f"w{index}.bin")
        (tmp_path / f"w{index}.bin").write_bytes((VALUES + index).tobytes())
        tensors.append(tensor)
    proto = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        model = store.load(tmp_path / "m.onnx")
        for index, tensor in enumerate(model.proto.graph.initializer):
            assert np.array_equal(model.tensors.array(tensor), VALUES + index)
        store.save(model, tmp_path / "out.onnx")
        (tmp_path / "w0.bin").write_bytes(RAW[::-1])
        with pytest.raises(ModelError, match="changed while it was in use"):
            model.tensors.array(model.proto.graph.initializer[0])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    written = onnx.load(tmp_path / "out.onnx").graph.initializer
    assert np.array_equal(numpy_helper.to_array(written[299]), VALUES + 299)


def test_external_locations(embedded: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_text("junk")
    external_model(tmp_path)
    assert external_locations(tmp_path / "m.onnx") == {"w.bin"}
    assert external_locations(tmp_path / "junk.onnx") is None
    assert external_locations(embedded) == set()
