"""The backend test models of the onnx wheel: feeds can be drawn for them, and run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx.backend.test
import pytest

from bnfold.check.feeds.drawing import random_feeds
from bnfold.check.feeds.feed import Feed
from bnfold.check.feeds.hints import find_hints
from bnfold.check.models.model import open_model
from bnfold.check.runtimes.sessions import OrtRunner, ReferenceRunner, RunError, Runner
from bnfold.errors import InputError

DATA = Path(onnx.backend.test.__file__).parent / "data"
FOLDERS = ("pytorch-converted", "pytorch-operator", "simple")

# What stands in the way, by the start of the name.
UNDRAWABLE = {
    "test_affine_grid_2d_": "sizes that a decomposed operator takes apart",
    "test_attention_4d_diff_heads_mask4d_padded_kv": "the runtime refuses its own data too",
    "test_col2im": "an image that has to agree with strides, pads and dilations",
    "test_convinteger_with_padding": "the runtime refuses its own data too",
    "test_gradient_of_": "neither runtime has the operator",
    "test_image_decoder_": "bytes of an image file",
    "test_range_": "counts that a decomposed operator takes apart",
}


def refused(model: onnx.ModelProto | Path) -> str | None:
    """Why no feeds are drawn, or the first feed that does not run; None if all do."""
    opened = open_model(model, "reference")
    runner: Runner
    try:
        runner = OrtRunner(opened, "CPUExecutionProvider", "disable_all")
    except RunError:
        try:
            runner = ReferenceRunner(opened)
        except RunError as error:
            return str(error)

    def attempt(feed: Feed) -> str | None:
        try:
            runner.run(feed.arrays)
        except RunError as error:
            return str(error)
        return None

    hints = find_hints(opened.skeleton.proto, [spec.name for spec in opened.inputs])
    try:
        feeds = random_feeds(opened.inputs, hints, 0, attempt, samples=5)
    except InputError as error:
        return error.message
    errors = ((feed.name, error) for feed in feeds if (error := attempt(feed)))
    return next((f"{name}: {error}" for name, error in errors), None)


def is_known(name: str) -> bool:
    return any(name.startswith(start) for start in UNDRAWABLE)


@pytest.mark.parametrize("folder", FOLDERS)
def test_models_in_files(folder: str) -> None:
    paths = sorted(DATA.glob(f"{folder}/*/model.onnx"))
    assert len(paths) > 20
    found = {path.parent.name: why for path in paths if (why := refused(path)) is not None}
    assert {name: why for name, why in found.items() if not is_known(name)} == {}


def node_cases() -> Iterator[tuple[str, onnx.ModelProto]]:
    from onnx.backend.test.loader import load_node_model_tests  # noqa: PLC0415 - takes seconds

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from ((case.name, case.model) for case in load_node_model_tests())


@pytest.mark.slow
def test_models_of_single_operators() -> None:
    found, count = {}, 0
    for name, model in node_cases():
        count += 1
        if not is_known(name) and (why := refused(model)) is not None:
            found[name] = why
    assert count > 1000
    # Decomposed operators whose parameters only sometimes fit.
    few = {name: why for name, why in found.items() if not name.endswith("_expanded")}
    assert few == {}
    assert len(found) < 5
