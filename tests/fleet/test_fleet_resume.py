"""--resume: what is up to date is skipped, and never anything else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from bnfold.fleet import record
from bnfold.fleet.places import digest
from bnfold.fleet.record import place_of_record, recipe
from bnfold.fleet.task import FoldTask
from bnfold.fleet.work import work_on
from tests.fleet.zoo import assert_folded, files, make_model, make_zoo

Run = Callable[..., Result]


@pytest.fixture
def task(tmp_path: Path) -> FoldTask:
    """A model with external data, folded and recorded."""
    model = make_model(tmp_path / "a.onnx", external=True)
    out = tmp_path / "out"
    out.mkdir()
    place = place_of_record(str(out), "a.onnx")
    options = {"check": False, "keep": (), "data": (), "tolerances": None}
    task = FoldTask(str(model), str(out / "a.onnx"), options, record=place, resume=True)
    assert not is_skipped(task)
    assert is_skipped(task)
    return task


def is_skipped(task: FoldTask) -> bool:
    outcome = work_on(task, None)
    assert_folded(Path(task.place))
    assert (outcome.report is None) == (outcome.stored is not None)
    return outcome.stored is not None


def with_options(task: FoldTask, **options: Any) -> FoldTask:
    return FoldTask(
        task.model, task.target, {**task.options, **options}, record=task.record, resume=True
    )


def test_skipping_touches_nothing(task: FoldTask) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(task.place).parent.rglob("*")}
    assert is_skipped(task)
    after = {path: path.stat().st_mtime_ns for path in Path(task.place).parent.rglob("*")}
    assert before == after


def test_times_do_not_matter(task: FoldTask) -> None:
    os.utime(task.model, (0, 0))
    os.utime(task.place, (0, 0))
    assert is_skipped(task)


@pytest.mark.parametrize("data", ["", ".data"], ids=["model", "data"])
@pytest.mark.parametrize("how", ["changed", "cut", "gone"])
def test_a_result_that_changed_is_made_again(task: FoldTask, data: str, how: str) -> None:
    path = Path(f"{task.place}{data}")
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif how == "changed":
        change_a_bit(path)
    else:
        path.unlink()
    assert not is_skipped(task)
    assert is_skipped(task)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"report": 1}', b"\xff", None])
def test_a_record_that_makes_no_sense(task: FoldTask, content: bytes | None) -> None:
    place = Path(task.record or "")
    whole = place.read_bytes()
    place.write_bytes(whole[:-9] if content is None else content)
    assert not is_skipped(task)
    assert place.read_bytes() == whole


def change_a_bit(path: Path) -> None:
    """Change a bit, and neither the size nor the time."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_model_that_changed_is_done_again(task: FoldTask) -> None:
    change_a_bit(Path(f"{task.model}.data"))
    assert not is_skipped(task)
    make_model(Path(task.model), 1, external=True, channels=5)
    assert not is_skipped(task)
    assert is_skipped(task)


@pytest.mark.parametrize(
    "options",
    [{"keep": ("nothing",)}, {"check": True}, {"merge": False}, {"dims": {"N": 2}}],
    ids=lambda options: next(iter(options)),
)
def test_other_options_are_done_again(task: FoldTask, options: dict[str, Any]) -> None:
    assert not is_skipped(with_options(task, **options))
    assert not is_skipped(task), "the record is that of the last run"


def test_options_without_an_effect(task: FoldTask) -> None:
    assert is_skipped(with_options(task, timeout=99.0))
    assert not is_skipped(with_options(task, statistics=True)), "the stored report has none"
    assert is_skipped(with_options(task, statistics=True))
    assert is_skipped(with_options(task, statistics=False))


def test_another_version_is_done_again(task: FoldTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "__version__", "99")
    assert not is_skipped(task)


def test_files_that_options_name_count_with_their_content(tmp_path: Path) -> None:
    table, folder = tmp_path / "tolerances.json", tmp_path / "data"
    table.write_text("{}")
    folder.mkdir()
    (folder / "a.npz").write_bytes(b"a")
    options = {"tolerances": str(table), "data": (str(folder),), "data_loader": None}
    first = recipe(options)
    assert recipe(options) == first
    table.write_text("{ }")
    second = recipe(options)
    (folder / "b.npz").write_bytes(b"b")
    assert len({first, second, recipe(options)}) == 3


def test_the_record_has_no_influence_on_the_model(tmp_path: Path, task: FoldTask) -> None:
    plain = FoldTask(task.model, str(tmp_path / "out" / "b.onnx"), task.options)
    work_on(plain, None)
    assert digest(f"{plain.place}.data") == digest(f"{task.place}.data")


def test_the_command(run: Run, tmp_path: Path) -> None:
    models = make_zoo(tmp_path / "zoo", 3)
    (tmp_path / "zoo" / "bad.onnx").write_text("hello")
    command = ("optimize", tmp_path / "zoo", "--output-dir", tmp_path / "out", "--no-check")
    first = run(*command, "--json")
    assert first.exit_code == 2
    models[1].unlink()
    make_model(models[1], 77)
    second = run(*command, "--resume", "--json")
    assert second.exit_code == 2
    found = json.loads(second.stdout)["models"]
    assert [each.get("up_to_date") for each in found] == [None, True, None, True]
    before = json.loads(first.stdout)["models"]
    for old, new in zip(before, found, strict=True):
        if new.get("up_to_date"):
            assert {**new, "seconds": 0} == {**old, "seconds": 0, "up_to_date": True}
    assert "1 failed (2), 3 up to date" in run(*command, "--resume").stderr
    assert files(tmp_path / "out") == files(tmp_path / "zoo") - {"bad.onnx"}
