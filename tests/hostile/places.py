"""Models whose external data, or which themselves, are no ordinary files in their folder.

Each function makes a case in an empty folder, ``secret`` one beside it, and returns what to read.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import TensorProto

from tests.hostile.graphs import bn_model

__all__ = ["PLACES"]

Make = Callable[[Path], Path]


def _external(folder: Path, **entries: str) -> Path:
    """A model whose first weight lies in external data, with these entries."""
    model = bn_model()
    weight = model.graph.initializer[0]
    data = weight.raw_data
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": "w.bin"} | entries).items():
        weight.external_data.add(key=key, value=value)
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    if not (folder / "w.bin").exists():
        (folder / "w.bin").write_bytes(data)
    return path


def _with(**entries: str) -> Make:
    return lambda folder: _external(folder, **entries)


def _data(make: Callable[[Path], object]) -> Make:
    """A case whose external data is what ``make`` puts at the path it is given."""

    def build(folder: Path) -> Path:
        path = _external(folder)
        (folder / "w.bin").unlink()
        make(folder / "w.bin")
        return path

    return build


def _model(make: Callable[[Path], object]) -> Make:
    """A case that is itself what ``make`` puts there."""

    def build(folder: Path) -> Path:
        make(folder / "m.onnx")
        return folder / "m.onnx"

    return build


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # the whole path may be longer than a socket's name can be
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


def _sparse(path: Path) -> None:
    """A terabyte without a byte of content."""
    with path.open("wb") as file:
        file.truncate(1 << 40)


def _itself(folder: Path) -> Path:
    """The data is the model's own file."""
    return _external(folder, location="m.onnx")


PLACES: dict[str, Make] = {
    "data at an absolute path": _with(location="/etc/passwd"),
    "data above": _with(location="../secret"),
    "data above, hidden": _with(location="a/../../secret"),
    "data above, for Windows": _with(location="..\\secret"),
    "data on a drive": _with(location="C:\\secret"),
    "data on a share": _with(location="\\\\host\\secret"),
    "data at a URL": _with(location="file:///etc/passwd"),
    "data of a process": _with(location="/proc/self/environ"),
    "data with NUL": _with(location="w.bin\0.txt"),
    "data without a name": _with(location=""),
    "data in the folder itself": _with(location="."),
    "data of a long name": _with(location="n" * 5000),
    "data that is the model": _itself,
    "a negative offset": _with(offset="-1"),
    "an offset past the end": _with(offset="1000000"),
    "a huge offset": _with(offset=str(1 << 63)),
    "an offset of a thousand digits": _with(offset="9" * 1000),
    "a negative length": _with(length="-1"),
    "a length past the end": _with(length="1000000"),
    "a huge length": _with(length=str(1 << 64)),
    "a length that overflows with its offset": _with(offset="16", length=str((1 << 64) - 16)),
    "data through a link out": _data(lambda path: path.symlink_to("../secret")),
    "data through a link to a device": _data(lambda path: path.symlink_to("/dev/zero")),
    "data through a loop of links": _data(lambda path: path.symlink_to("w.bin")),
    "data through a chain of links": _data(
        lambda path: (path.symlink_to("w2"), path.with_name("w2").symlink_to("/etc/passwd"))
    ),
    "data in a linked folder": _data(
        lambda path: (path.symlink_to("."), path.with_name("d").symlink_to("/etc"))
    ),
    "data in a FIFO": _data(os.mkfifo),
    "data in a socket": _data(_socket),
    "data in a folder": _data(Path.mkdir),
    "data that is missing": _data(lambda _: None),
    "data in a sparse terabyte": _data(_sparse),
    "a model that is a FIFO": _model(os.mkfifo),
    "a model that is a socket": _model(_socket),
    "a model that is a loop of links": _model(lambda path: path.symlink_to("m.onnx")),
    "a model that is a link to /dev/zero": _model(lambda path: path.symlink_to("/dev/zero")),
    "a model that is a link to /dev/random": _model(lambda path: path.symlink_to("/dev/random")),
    "a model that is a sparse terabyte": _model(_sparse),
    "an empty model": _model(lambda path: path.write_bytes(b"")),
    "a model of zeros": _model(lambda path: path.write_bytes(bytes(1 << 20))),
    "a model of noise": _model(lambda path: path.write_bytes(np.random.default_rng(0).bytes(9999))),
}
"""What is hostile about it -> makes it in an empty folder."""
