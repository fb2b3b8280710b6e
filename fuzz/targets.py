"""One function for each reader: any bytes go in, and nothing but a `BnfoldError` may come out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import onnx

from bnfold import store
from bnfold.check.data import load_feeds
from bnfold.check.models.model import ValueSpec
from bnfold.check.verdict.tolerances import load_tolerances
from bnfold.config.find import read_document
from bnfold.errors import BnfoldError, ModelError
from bnfold.graph.fold import FoldOptions, fold_model
from bnfold.store import wire

__all__ = ["TARGETS"]

_FLOAT = onnx.TensorProto.FLOAT
_SPECS = (ValueSpec("x", "tensor", _FLOAT, (None, 4)), ValueSpec("n", "tensor", 7, ()))
_LARGEST = 1 << 16


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="bnfold-fuzz-"))


def _file(name: str, data: bytes) -> Path:
    path = _folder() / name
    path.write_bytes(data)
    return path


def walk(data: bytes) -> None:
    """The wire walk: what it passes on unchanged is the message itself."""
    buffer = memoryview(data)
    try:
        pieces = wire.rewrite(buffer, enter=lambda *_: True, tensor=lambda _: None)
    except (wire.MalformedError, wire.UnusualError):
        return
    assert b"".join(piece for piece in pieces if isinstance(piece, memoryview)) == data  # noqa: S101


def load(data: bytes) -> None:
    """The loader; what it takes is written again byte for byte, or as another form of the same."""
    model = store.from_bytes(data, base_dir=_folder())
    for tensor in store.iter_tensors(model.proto):
        if model.tensors.nbytes(tensor) < _LARGEST:
            model.tensors.array(tensor)
    store.to_bytes(model)


def fold(data: bytes) -> None:
    """Constant expressions, shapes, sites, plans, merges."""
    fold_model(store.from_bytes(data), FoldOptions(ones_channel=True))


def feeds(data: bytes) -> None:
    """Inputs: an archive, an array or Polygraphy's JSON, as the first byte says."""
    name = (".npz", ".npy", ".json")[data[0] % 3] if data else ".npz"
    for _ in load_feeds([_file(f"feed{name}", data[1:])], _SPECS, samples=4):
        pass


def settings(data: bytes) -> None:
    """Tolerances as JSON and TOML, and the configuration."""
    name = ("tolerances.json", "tolerances.toml", "bnfold.toml")[data[0] % 3] if data else "x.json"
    path = _file(name, data[1:])
    if name == "bnfold.toml":
        read_document(path)
    else:
        load_tolerances(path, ["y"])


def archive(data: bytes) -> None:
    """What kind of PyTorch file this is; torch is not asked."""
    from bnfold.torch.files import kind_of  # noqa: PLC0415 - imports torch's package

    kind_of(_file("model.pt", data))


TARGETS: dict[str, Callable[[bytes], None]] = {
    function.__name__: function for function in (walk, load, fold, feeds, settings, archive)
}
"""Name -> function."""

REFUSALS = (BnfoldError, ModelError)
"""What a reader may raise."""
