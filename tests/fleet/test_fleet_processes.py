"""Several models at a time: the tree, failures of one, what is said, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
from click.testing import Result

from bnfold.check.runtimes.threads import limit_threads
from bnfold.fleet import child
from tests.fleet.zoo import assert_folded, files, make_model, make_zoo

Run = Callable[..., Result]


def test_a_tree_of_models(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = make_zoo(tmp_path / "zoo", 6)
    monkeypatch.chdir(tmp_path)
    result = run("optimize", "zoo", "--output-dir", "zoo/out", "--jobs", 2)
    assert result.exit_code == 0, result.stderr
    assert files(tmp_path / "zoo" / "out") == {
        name for name in files(tmp_path / "zoo") if not name.startswith("out/")
    }
    for model in models:
        assert_folded(tmp_path / "zoo" / "out" / model.relative_to(tmp_path / "zoo"))
    lines = result.stderr.splitlines()
    assert all("folded 1 of 1, equivalent, written" in line for line in lines[:6])
    assert lines[6] == "6 models"
    assert lines[-1].strip() == "6 written"
    assert [line.split()[0] for line in lines[8:-1]] == ["zoo/family"] * 6


def test_the_bytes_do_not_depend_on_who_does_it(run: Run, tmp_path: Path) -> None:
    make_zoo(tmp_path / "zoo", 2)
    models = sorted((tmp_path / "zoo").rglob("*.onnx"))
    command = ("optimize", *models, "--no-check", "--output-dir")
    assert run(*command, tmp_path / "one").exit_code == 0
    assert run(*command, tmp_path / "two", "--jobs", 2).exit_code == 0
    assert files(tmp_path / "one") == files(tmp_path / "two")
    for name in files(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.usefixtures("simplifier")
def test_one_model_that_fails_does_not_stop_the_others(run: Run, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    deeds = ("has_a_bug", "kills_its_process", "fine")
    for deed in deeds:
        make_model(zoo / f"{deed}.onnx", name=deed)
    (zoo / "bad.onnx").write_text("hello")
    os.mkfifo(zoo / "pipe.onnx")
    report = tmp_path / "report.json"
    command = ("optimize", zoo, "--output-dir", tmp_path / "out", "--jobs", 2, "--simplify")
    result = run(*command, "--no-check", "--report", report)
    assert result.exit_code == 5
    assert files(tmp_path / "out") == {"fine.onnx"}
    found = {Path(each["model"]).stem: each for each in json.loads(report.read_text())["models"]}
    assert list(found) == ["bad", "fine", "has_a_bug", "kills_its_process", "pipe"]
    codes = {name: each.get("error", {}).get("exit_code") for name, each in found.items()}
    expected = {"bad": 2, "fine": None, "has_a_bug": 5, "kills_its_process": 4, "pipe": 2}
    assert codes == expected
    assert found["kills_its_process"]["error"]["message"].startswith(str(zoo))
    assert "this is a bug in bnfold" in result.stderr
    assert "SystemExit: oops" in result.stderr


@pytest.mark.usefixtures("simplifier")
def test_processes_share_the_cores(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for number in range(2):
        make_model(tmp_path / "zoo" / f"{number}.onnx", name="tells_its_threads")
    command = ("optimize", tmp_path / "zoo", "--simplify", "--no-check", "--jobs", 2)
    assert run(*command).stderr.count("it may use 3 threads") == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert run(*command).stderr.count("it may use 2 threads") == 2


def test_sessions_keep_to_their_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, threads in (("3", 3), ("2,4", 2), ("", 0), ("0", 0), ("many", 0)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        options = onnxruntime.SessionOptions()
        limit_threads(options)
        assert options.intra_op_num_threads == threads


@pytest.mark.usefixtures("simplifier")
def test_a_model_that_hangs_is_given_up(run: Run, tmp_path: Path) -> None:
    make_model(tmp_path / "zoo" / "a.onnx", name="hangs")
    command = ("optimize", tmp_path / "zoo", "--output-dir", tmp_path / "out", "--simplify")
    result = run(*command, "--no-check", "--timeout", 3)
    assert result.exit_code == 4
    assert "a.onnx: it took longer than 3 seconds and was given up at: " in result.stderr
    assert files(tmp_path / "out") == set()


def test_a_directory_of_one_is_still_several(run: Run, tmp_path: Path) -> None:
    make_model(tmp_path / "zoo" / "a.onnx")
    for verb in (["optimize", "--no-check", "--output-dir", str(tmp_path / "out")], ["inspect"]):
        found = json.loads(run(*verb, tmp_path / "zoo", "--json").stdout)
        (model,) = found["models"]
        assert model["summary"]["folded"] == 1
        assert model["seconds"] >= 0


def test_a_model_that_is_named_is_one(run: Run, tmp_path: Path) -> None:
    model, out = make_model(tmp_path / "a.onnx"), tmp_path / "out"
    command = ("optimize", model, "--output-dir", out, "--no-check", "--resume")
    first = run(*command)
    assert "nodes 2 -> 1" in first.stderr
    second = run(*command)
    assert "a.onnx: folded 1 of 1, up to date" in second.stderr
    found = json.loads(run(*command, "--json").stdout)
    assert (found["output"], found["up_to_date"]) == (str(out / "a.onnx"), True)


def test_beside_the_models_and_again(run: Run, tmp_path: Path) -> None:
    make_model(tmp_path / "zoo" / "sub" / "a.onnx")
    for _ in range(2):
        assert run("optimize", tmp_path / "zoo", "--no-check", "-q").exit_code == 0
        assert files(tmp_path / "zoo", records=True) == {"sub/a.onnx", "sub/a.folded.onnx"}


def test_sites_that_are_kept_count_in_the_exit_code(run: Run, tmp_path: Path) -> None:
    make_model(tmp_path / "zoo" / "a.onnx")
    command = ("optimize", tmp_path / "zoo", "--output-dir", tmp_path / "out", "--no-check")
    command = (*command, "--require-folded")
    make_model(tmp_path / "zoo" / "kept.onnx")
    spoil_variance(tmp_path / "zoo" / "kept.onnx")
    result = run(*command)
    assert result.exit_code == 1
    assert result.stderr.count("--require-folded: 1 site(s) kept") == 1


def spoil_variance(path: Path) -> None:
    model = onnx.load(path)
    variance = next(each for each in model.graph.initializer if each.name == "var")
    variance.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(variance), "var"))
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-o", "x.onnx"], "-o names one file"),
        (["--jobs", "0"], "--jobs"),
        (["--jobs", "2", "--scheduler", "tcp://x:1"], "give one of them"),
        (["--resume"], "--resume needs --output-dir"),
    ],
)
def test_options_that_contradict(run: Run, tmp_path: Path, options: list[str], said: str) -> None:
    make_model(tmp_path / "zoo" / "a.onnx")
    result = run("optimize", tmp_path / "zoo", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert files(tmp_path) == {"zoo/a.onnx"}


@pytest.mark.usefixtures("simplifier")
def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    make_model(tmp_path / "zoo" / "a.onnx")
    make_model(tmp_path / "zoo" / "b.onnx", name="hangs")
    make_model(tmp_path / "zoo" / "c.onnx", name="hangs")
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    scratch.mkdir()
    path = os.pathsep.join((str(tmp_path / "modules"), *sys.path))
    command = ("optimize", tmp_path / "zoo", "--output-dir", out, "--simplify", "--no-check")
    program = subprocess.Popen(
        [sys.executable, "-m", "bnfold", *command, "--json"],
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (out / ".bnfold").exists() and program.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    program.send_signal(signal.SIGINT)
    stdout, stderr = program.communicate(timeout=60)
    assert program.returncode == 130, stderr
    assert stderr == "interrupted\n"
    first, second, third = json.loads(stdout)["models"]
    assert first["summary"]["folded"] == 1
    assert {each["error"]["exit_code"] for each in (second, third)} == {130}
    assert files(out) == {"a.onnx"}
    assert list(scratch.iterdir()) == []
