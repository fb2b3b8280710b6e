"""Sizes, data, tolerances and the feed that is saved."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from check_pairs import layers, network, planted, text
from onnx import numpy_helper

from bnfold.check import check, inprocess
from bnfold.check.data import load_feeds, save_feed
from bnfold.check.feeds.drawing import random_feeds
from bnfold.check.feeds.draws import KINDS
from bnfold.check.feeds.feed import Feed, apply_shapes
from bnfold.check.feeds.hints import find_hints
from bnfold.check.feeds.source import FeedSource
from bnfold.check.models import pairs
from bnfold.check.models.model import Model, open_model
from bnfold.check.request import Request
from bnfold.check.runtimes.sessions import OrtRunner, RunError
from bnfold.errors import InputError, ProviderError
from bnfold.report import CheckReport

IMAGE = text("g (float[N,3,H,W] x, float[N,K] z) => (float[N,3,H,W] y) { y = Relu(x) }")
IDS = text(
    "g (int64[N,L] i) => (float[N,L,2] y) <float[3,2] w = {1, 2, 3, 4, 5, 6}> { y = Gather(w, i) }"
)


def feeds_of(
    proto: onnx.ModelProto, *, seed: int = 0, only: dict[str, int] | None = None, **asked: Any
) -> list[Feed]:
    """The feeds for a model that runs if every size in `only` is as it says."""
    opened = open_model(proto, "reference")
    specs = apply_shapes(opened.inputs, asked.get("inputs", {}), asked.get("dims", {}))
    hints = find_hints(opened.skeleton.proto, [spec.name for spec in specs])

    def attempt(feed: Feed) -> str | None:
        sizes = dict(zip("NCHW", feed.arrays["x"].shape, strict=False)) if only else {}
        return next((f"{k} is {sizes[k]}" for k, v in (only or {}).items() if sizes[k] != v), None)

    return list(random_feeds(specs, hints, seed, attempt))


def test_every_symbol_has_several_sizes_and_the_same_in_all_inputs() -> None:
    feeds = feeds_of(IMAGE)
    shapes = [feed.arrays["x"].shape for feed in feeds]
    assert all(len({shape[axis] for shape in shapes}) == 3 for axis in (0, 2, 3))
    assert {shape[0] for shape in shapes} == {1, 2, 3}
    assert all(feed.arrays["x"].shape[0] == feed.arrays["z"].shape[0] for feed in feeds)


def test_size_that_runs_is_found() -> None:
    feeds = feeds_of(IMAGE, only={"H": 224, "W": 224})
    assert {feed.arrays["x"].shape[2:] for feed in feeds} == {(224, 224)}
    # Where one row takes time there are few with more.
    assert sorted(len(feed.arrays["x"]) for feed in feeds) == [1] * 6 + [2] * 2
    assert {feed.name.split()[0] for feed in feeds} == set(KINDS)


def test_feeds_hang_on_the_seed_alone() -> None:
    first, again, other = feeds_of(IMAGE), feeds_of(IMAGE), feeds_of(IMAGE, seed=1)
    for one, two, three in zip(first, again, other, strict=True):
        assert one.name == two.name
        np.testing.assert_array_equal(one.arrays["x"], two.arrays["x"])
        assert not np.array_equal(one.arrays["x"], three.arrays["x"])


def test_feeds_are_signed_wide_and_different_at_the_border() -> None:
    feeds = {feed.name.split()[0]: feed.arrays["x"] for feed in feeds_of(IMAGE)}
    assert set(feeds) == set(KINDS)
    assert feeds["wide"].max() > 500
    assert feeds["wide"].min() < -500
    assert np.abs(feeds["wide"]).min() < 1e-3
    assert feeds["unit"].min() >= 0
    assert feeds["negative"].max() < 0
    assert 0.8 < (feeds["sparse"] == 0).mean() < 1
    border = feeds["border"]
    assert np.abs(border[:, :, 0]).mean() > 2 * np.abs(border[:, :, 1:-1, 1:-1]).mean()


def test_ids_lie_in_the_table() -> None:
    values = np.concatenate([feed.arrays["i"].ravel() for feed in feeds_of(IDS)])
    assert (values.min(), values.max()) == (0, 2)


def test_asked_sizes_are_used() -> None:
    for feed in feeds_of(IMAGE, inputs={"x": (2, 3, 5, 7)}, dims={"K": 4}):
        assert feed.arrays["x"].shape == (2, 3, 5, 7)
        assert feed.arrays["z"].shape == (2, 4)


def test_only_input_needs_no_name() -> None:
    stack = layers(1)
    pair = network(stack, folded=False), network(stack, folded=True)
    assert all(report.equivalent for report in check(*pair, inputs={"": (2, 3, 12, 12)}))
    assert all(report.equivalent for report in check(*pair, dims={"N": 2}))


REFUSED = {
    "input": ({"inputs": {"q": (1,)}}, "there is no input 'q'"),
    "no-name": ({"inputs": {"": (1,)}}, "an input shape lacks its name"),
    "symbol": ({"dims": {"Q": 1}}, "no input has a dimension 'Q'"),
    "negative": ({"dims": {"N": -1}}, "-1 is not a size"),
    "rank": ({"inputs": {"x": (1, 3)}}, "input 'x': 1x3 does not fit Nx3xHxW"),
    "fixed": ({"inputs": {"x": (1, 4, 8, 8)}}, "input 'x': 1x4x8x8 does not fit Nx3xHxW"),
    "contradiction": ({"inputs": {"x": (1, 3, 8, 8)}, "dims": {"N": 2}}, "does not fit"),
    "rtol": ({"rtol": 1e-3}, "rtol and atol have to be given together"),
    "provider": ({"providers": ("tpu",)}, "unknown provider 'tpu'"),
    "no-provider": ({"providers": ()}, "no provider"),
    "no-such-data": ({"data": ["nowhere.npz"]}, "nowhere.npz: no such file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unusable_option(name: str) -> None:
    options, message = REFUSED[name]
    with pytest.raises(InputError) as caught:
        check(IMAGE, IMAGE, **options)
    assert message in caught.value.message
    assert caught.value.hint


def test_tolerances_replace_the_rule() -> None:
    reference = text("g (float[N,4] x) => (float[N,4] y) { y = Identity(x) }")
    scaled = text("g (float[N,4] x) => (float[N,4] y) <float k = {1.001}> { y = Mul(x, k) }")
    assert not any(report.equivalent for report in check(reference, scaled))
    assert all(report.equivalent for report in check(reference, scaled, rtol=0.002, atol=0.0))
    assert not any(report.equivalent for report in check(reference, scaled, rtol=5e-4, atol=0.0))
    assert not any(report.equivalent for report in check(reference, scaled, rtol=0.0, atol=1e-3))


def sorting(tmp_path: Path, array: np.ndarray, kind: str) -> Path:
    """Write an array in one of the forms of data."""
    path = tmp_path / f"data.{kind}"
    if kind == "npz":
        np.savez(path, x=array, label=np.zeros(3))
    elif kind == "npy":
        np.save(path, array)
    else:
        path = tmp_path / "case"
        for number in range(2):
            folder = path / f"test_data_set_{number}"
            folder.mkdir(parents=True)
            tensor = numpy_helper.from_array(array)
            (folder / "input_0.pb").write_bytes(tensor.SerializeToString())
            (folder / "output_0.pb").write_bytes(tensor.SerializeToString())
    return path


@pytest.mark.parametrize("kind", ["npz", "npy", "folder"])
def test_data_shows_what_random_feeds_cannot(tmp_path: Path, kind: str) -> None:
    reference = text("g (float[N,4] x) => (float[N,4] y) { y = Identity(x) }")
    candidate = text("g (float[N,4] x) => (float[N,4] y) <float c = {12345.0}> { y = Min(x, c) }")
    assert all(report.equivalent for report in check(reference, candidate))
    path = sorting(tmp_path, np.full((5, 4), 20000, np.float32), kind)
    reports = check(reference, candidate, data=[path])
    assert not any(report.equivalent for report in reports)
    assert reports[0].outputs[0].max_abs == 20000 - 12345


def test_data_feeds_what_cannot_be_drawn(tmp_path: Path) -> None:
    proto = text("g (complex64[N] x) => (complex64[N] y) { y = Identity(x) }")
    tensor = numpy_helper.from_array(np.ones(2, np.complex64))
    (tmp_path / "input_0.pb").write_bytes(tensor.SerializeToString())
    (first,) = check(proto, proto, data=[tmp_path])
    assert first.equivalent


BAD_DATA = {
    "missing-input": ({"x": np.zeros((1, 3, 4, 4), np.float32)}, "nothing for input 'z'"),
    "shape": (
        {"x": np.zeros((1, 4, 4, 4), np.float32), "z": np.zeros((1, 2), np.float32)},
        "'x' has shape 1x4x4x4, but the model declares ?x3x?x?",
    ),
    "type": (
        {"x": np.full((1, 3, 4, 4), "a"), "z": np.zeros((1, 2), np.float32)},
        "'x' is <U1, but the model takes float",
    ),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data(name: str, tmp_path: Path) -> None:
    arrays, message = BAD_DATA[name]
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(InputError) as caught:
        check(IMAGE, IMAGE, data=[tmp_path / "data.npz"])
    assert message in caught.value.message.replace("Nx3xHxW", "?x3x?x?")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"text"])
@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_unreadable_data(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"data.{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not readable"):
        check(IMAGE, IMAGE, data=[path])


def test_data_that_the_reference_does_not_run_is_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.array([[7]]))
    with pytest.raises(InputError, match=r"ids\.npy: the reference does not run on it"):
        check(IDS, IDS, data=[tmp_path / "ids.npy"])


def test_failing_feed_is_saved_and_fails_again(tmp_path: Path) -> None:
    stack = layers(2)
    reference, candidate = network(stack, folded=False), network(stack, folded=True)
    wrong = network(planted(stack, "sign", 1), folded=True)
    path = tmp_path / "failing.npz"
    check(reference, candidate, failing_feed=path)
    assert not path.exists()
    check(reference, wrong, failing_feed=path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["failing.npz"]
    reports = check(reference, wrong, data=[path])
    assert not any(report.equivalent for report in reports)


def test_saved_feed_is_read_back_as_it_was(tmp_path: Path) -> None:
    proto = text(
        "g (bfloat16[N] file, string[N] s, float16[N] h, bool[N] b) => (bool[N] y) { y = Not(b) }"
    )
    arrays = {
        "file": np.array([1.5, -2.0], ml_dtypes.bfloat16),
        "s": np.array(["a", ""], dtype=object),
        "h": np.array([1, np.inf], np.float16),
        "b": np.array([True, False]),
    }
    save_feed(Feed("f", arrays), tmp_path / "feed.npz")
    (feed,) = load_feeds([tmp_path / "feed.npz"], open_model(proto, "reference").inputs)
    for name, array in arrays.items():
        assert feed.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(feed.arrays[name], array)


def test_failing_feed_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        save_feed(Feed("f", {"x": np.zeros(1)}), tmp_path / "nowhere" / "feed.npz")


def test_progress_tells_each_feed() -> None:
    lines: list[str] = []
    (first, _) = check(IDS, IDS, progress=lines.append)
    feeds = [line for line in lines if ": feed " in line]
    assert len(feeds) == first.feeds
    assert feeds[0].startswith("CPUExecutionProvider: feed 1 of ")
    assert lines[0] == "CPUExecutionProvider: loading the reference"


class Exhausted(OrtRunner):
    """A runtime that has memory for some rows only, if a model's label has a word in it."""

    rows = 2
    only = ""

    def __init__(self, model: Model, *arguments: Any, **more: Any) -> None:
        super().__init__(model, *arguments, **more)
        self.limited = self.only in model.label

    def run(self, arrays: Mapping[str, Any]) -> list[Any]:
        if self.limited and any(len(value) > self.rows for value in arrays.values()):
            raise RunError("Failed to allocate memory for requested buffer", out_of_memory=True)
        return super().run(arrays)


def compared(monkeypatch: pytest.MonkeyPatch, *, rows: int, only: str = "") -> list[CheckReport]:
    monkeypatch.setattr(Exhausted, "rows", rows)
    monkeypatch.setattr(Exhausted, "only", only)
    monkeypatch.setattr(pairs, "OrtRunner", Exhausted)
    reports: list[CheckReport] = []
    data = IDS.SerializeToString()
    Request(data, data).run(progress=lambda _: None, learned=reports.append)
    return reports


@pytest.mark.parametrize("only", ["", "candidate"])
def test_feeds_that_do_not_fit_are_left_out(monkeypatch: pytest.MonkeyPatch, only: str) -> None:
    for report in compared(monkeypatch, rows=2, only=only):
        assert report.equivalent
        assert report.feeds > 0
        # Sizes on which the reference does not run are not drawn at all.
        said = any("no memory for them" in warning for warning in report.warnings)
        assert said == (only == "candidate")


def test_nothing_that_fits_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProviderError, match="no feed fits into the memory"):
        compared(monkeypatch, rows=0, only="candidate")


def test_many_feeds_do_not_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []
    most = 0

    def watched(feed: Feed) -> Feed:
        nonlocal most
        alive.append(weakref.ref(feed))
        most = max(most, sum(reference() is not None for reference in alive))
        return feed

    class Watched(FeedSource):
        def __iter__(self) -> Iterator[Feed]:
            return map(watched, super().__iter__())

    monkeypatch.setattr(inprocess, "FeedSource", Watched)
    reports: list[CheckReport] = []
    data = IDS.SerializeToString()
    Request(data, data, samples=200).run(progress=lambda _: None, learned=reports.append)
    assert [report.feeds for report in reports] == [200, 200]
    assert most < 40
