"""Everything that bnfold writes: how a folder looks before, and the call that changes it."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from bnfold import store
from bnfold.check.data.replay import save_feed
from bnfold.check.feeds.feed import Feed
from bnfold.cli import main
from bnfold.pipeline import optimize
from bnfold.recalibrate import recalibrate

__all__ = ["SLOW", "WRITERS", "Writer"]

MODELS = Path(__file__).parents[2] / "models"

Call = Callable[[], object]


class Writer(NamedTuple):
    """One kind of output.

    Attributes:
        prepare: Fills an empty folder.
        target: The file that is written.
        read: Gives the content of a whole file, and raises for any other.
        ready: Gives the call that writes the target in the current folder; what takes long and
            writes nothing is done before.
    """

    prepare: Callable[[Path], None]
    target: str
    read: Callable[[Path], object]
    ready: Callable[[Path], Call]


# --- folders


def _embedded(folder: Path) -> None:
    shutil.copy(MODELS / "digits.onnx", folder / "m.onnx")
    model = onnx.load(MODELS / "digits.onnx")
    model.producer_name = "what was there before"
    onnx.save(model, folder / "old.onnx")


def _external(folder: Path) -> None:
    for name in ("m.onnx", "old.onnx"):
        model = onnx.load(MODELS / "digits.onnx")
        for tensor in model.graph.initializer if name == "old.onnx" else ():
            tensor.raw_data = bytes(len(tensor.raw_data))
        onnx.save(
            model,
            folder / name,
            save_as_external_data=True,
            location=f"{name}.data",
            size_threshold=0,
        )


def _elsewhere(folder: Path) -> None:
    (folder / "from").mkdir()
    _external(folder / "from")


def _program(folder: Path) -> None:
    shutil.copy(MODELS / "digits.pt2", folder / "m.pt2")


def _state(folder: Path) -> None:
    shutil.copy(MODELS / "digits.state_dict.pt", folder / "m.pt")


def _beside(name: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        _embedded(folder)
        match Path(name).suffix:
            case ".json":
                (folder / name).write_text('{"model": "before"}')
            case ".html":
                (folder / name).write_text("<html>before</html>")
            case ".npz":
                np.savez(folder / name, before=np.zeros(9))

    return prepare


# --- content


def _model(path: Path) -> object:
    return onnx.load(path).SerializeToString(deterministic=True)


def _archive(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return sorted((entry.filename, entry.CRC) for entry in archive.infolist())


def _json(path: Path) -> object:
    return json.loads(path.read_text())["model"]


def _page(path: Path) -> object:
    text = path.read_text()
    assert text.rstrip().endswith("</html>")
    return text.startswith("<html>before")


# --- calls


def _optimize(source: str, target: str | None) -> Callable[[Path], Call]:
    def ready(_: Path) -> Call:
        return lambda: optimize(source, target, in_place=target is None, check=False)

    return ready


def _copy(_: Path) -> Call:
    return lambda: store.save(store.load("from/m.onnx"), "m.onnx", unchanged=True)


def _recalibrate(_: Path) -> Call:
    images = np.load(MODELS / "digits_heldout.npz")["images"][:64]
    return lambda: recalibrate("m.onnx", "old.onnx", data=[{"images": images}])


def _save_program(target: str) -> Callable[[Path], Call]:
    def ready(folder: Path) -> Call:
        import torch  # noqa: PLC0415 - slow, and only some need it

        from bnfold.torch import convert  # noqa: PLC0415

        program = torch.export.load(folder / "m.pt2")
        return lambda: convert._save(program, Path(target))

    return ready


def _from_state(_: Path) -> Call:
    from bnfold import torch  # noqa: PLC0415 - slow, and only some need it

    arch = f"{MODELS / 'train_digits.py'}:DigitsNet"
    shape = {"": (1, 1, 8, 8)}
    return lambda: torch.optimize("m.pt", "out.onnx", arch=arch, inputs=shape, check=False)


def _report(name: str) -> Callable[[Path], Call]:
    def ready(_: Path) -> Call:
        main.get_command(None, "inspect")

        def call() -> None:
            try:
                main.main(["inspect", "m.onnx", "--quiet", "--report", name])
            except SystemExit as end:
                if end.code:
                    raise

        return call

    return ready


def _feed(_: Path) -> Call:
    feed = Feed("drawn", {"x": np.ones((64, 1000), np.float32)})
    return lambda: save_feed(feed, "m.failing.npz")


WRITERS: dict[str, Writer] = {
    "new": Writer(_embedded, "new.onnx", _model, _optimize("m.onnx", "new.onnx")),
    "embedded": Writer(_embedded, "old.onnx", _model, _optimize("m.onnx", "old.onnx")),
    "external": Writer(_external, "old.onnx", _model, _optimize("m.onnx", "old.onnx")),
    "embedded-in-place": Writer(_embedded, "m.onnx", _model, _optimize("m.onnx", None)),
    "external-in-place": Writer(_external, "m.onnx", _model, _optimize("m.onnx", None)),
    "copy-with-data": Writer(_elsewhere, "m.onnx", _model, _copy),
    "json": Writer(_beside("report.json"), "report.json", _json, _report("report.json")),
    "html": Writer(_beside("report.html"), "report.html", _page, _report("report.html")),
    "failing-feed": Writer(_beside("m.failing.npz"), "m.failing.npz", _archive, _feed),
    "program": Writer(_program, "out.pt2", _archive, _save_program("out.pt2")),
    "program-in-place": Writer(_program, "m.pt2", _archive, _save_program("m.pt2")),
    "recalibrated": Writer(_external, "old.onnx", _model, _recalibrate),
    "state-dict": Writer(_state, "out.onnx", _model, _from_state),
}

SLOW = ("embedded", "external", "html", "program", "program-in-place", "recalibrated", "state-dict")
"""Those that take a while, and those that others are much like."""
