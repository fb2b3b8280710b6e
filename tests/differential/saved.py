"""Failing models as files: the model as protobuf text, its feeds and the options of the fold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from tests.generate.builder import Case

__all__ = ["CASES", "load", "save", "saved"]

CASES = Path(__file__).with_name("cases")


def save(folder: Path, name: str, case: Case, options: dict[str, object]) -> Path:
    """Write a case; returns the path of the model.

    Args:
        folder: Is made if it is not there.
        name: File name without suffix.
        case: The model with its feeds, which are stored as float64.
        options: Of the fold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.textproto"
    onnx.save(case.model, path)
    feeds = [
        {
            key: {"kind": str(array.dtype), "shape": array.shape, "values": array.ravel().tolist()}
            for key, array in feed.items()
        }
        for feed in case.feeds
    ]
    content = json.dumps({"options": options, "feeds": feeds}, separators=(",", ":"))
    path.with_suffix(".json").write_text(content + "\n", encoding="utf-8")
    return path


def saved(folder: Path = CASES) -> Iterator[str]:
    """The names of all cases in a folder."""
    yield from sorted(path.stem for path in folder.glob("*.textproto"))


def load(name: str, folder: Path = CASES) -> tuple[Case, dict[str, object]]:
    """A case and the options of its fold."""
    path = folder / f"{name}.textproto"
    content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    feeds = [
        {
            key: np.array(each["values"], _dtype(each["kind"])).reshape(each["shape"])
            for key, each in feed.items()
        }
        for feed in content["feeds"]
    ]
    return Case(onnx.load(path), feeds), content["options"]


def _dtype(name: str) -> np.dtype:
    kind = onnx.TensorProto.BFLOAT16
    return onnx.helper.tensor_dtype_to_np_dtype(kind) if name == "bfloat16" else np.dtype(name)
