"""A Dask cluster of real processes: results, workers that are killed, models that kill them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from distributed import Client, LocalCluster

from bnfold.errors import ProviderError
from bnfold.fleet import cluster as fleet_cluster
from bnfold.fleet.cluster import run_on_cluster
from bnfold.fleet.task import FoldTask
from tests.fleet.zoo import assert_folded, files, make_model, make_zoo

Run = Callable[..., Result]
PAGE = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text(encoding="utf-8")
OPTIONS = {"check": False, "keep": (), "simplify": True}


def workers(cluster: LocalCluster) -> dict[str, int]:
    with Client(cluster.scheduler_address) as client:
        found: dict[str, int] = client.run(os.getpid, on_error="ignore")
        return found


def tasks(zoo: Path, out: Path) -> list[FoldTask]:
    out.mkdir()
    models = sorted(zoo.rglob("*.onnx"))
    return [FoldTask(str(model), str(out / model.name), OPTIONS) for model in models]


def test_a_worker_is_killed(run: Run, cluster: LocalCluster, tmp_path: Path) -> None:
    """All results are there, each once and whole, and nothing else."""
    zoo, out = tmp_path / "zoo", tmp_path / "out"
    models = make_zoo(zoo, 20)
    killed = []

    def kill() -> None:
        while len(files(out)) < 3:
            time.sleep(0.05)
        killed.append(min(workers(cluster).values()))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    command = ("optimize", zoo, "--output-dir", out, "--scheduler", cluster.scheduler_address)
    result = run(*command, "--no-check", "--json")
    killer.join()
    assert result.exit_code == 0, result.stderr
    assert [each["model"] for each in json.loads(result.stdout)["models"]] == sorted(
        map(str, models)
    )
    assert files(out) == files(zoo)
    for model in models:
        assert_folded(out / model.relative_to(zoo))
    again = run(*command, "--no-check", "--resume")
    assert again.exit_code == 0, again.stderr
    assert "20 up to date" in again.stderr
    assert killed[0] not in workers(cluster).values()


def test_proved_on_the_cluster(run: Run, cluster: LocalCluster, tmp_path: Path) -> None:
    make_zoo(tmp_path / "zoo", 2)
    command = ("optimize", tmp_path / "zoo", "--output-dir", tmp_path / "out")
    result = run(*command, "--scheduler", cluster.scheduler_address, "--json")
    assert result.exit_code == 0, result.stderr
    for found in json.loads(result.stdout)["models"]:
        assert [check["equivalent"] for check in found["checks"]] == [True, True]


def test_models_that_kill_and_hang(cluster: LocalCluster, tmp_path: Path) -> None:
    for deed in ("kills_its_process", "has_a_bug", "fine"):
        make_model(tmp_path / "zoo" / f"{deed}.onnx", name=deed)
    work = tasks(tmp_path / "zoo", tmp_path / "out")
    outcomes = dict(run_on_cluster(work, cluster.scheduler_address))
    fine, bug, killer = (outcomes[position] for position in range(3))
    assert fine.report is not None
    assert bug.error is not None
    assert bug.error.exit_code == 5
    assert killer.error is not None
    assert "kills_its_process.onnx: the process that runs the models ended with SIGKILL" in (
        killer.error.message
    )
    assert killer.error.exit_code == 4
    assert files(tmp_path / "out") == {"fine.onnx"}


def test_a_model_that_kills_its_worker_again_and_again(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    make_model(tmp_path / "zoo" / "a.onnx", name="kills_its_parent")
    for number in range(4):
        make_model(tmp_path / "zoo" / f"b{number}.onnx", number)
    work = tasks(tmp_path / "zoo", tmp_path / "out")
    outcomes = dict(run_on_cluster(work, cluster.scheduler_address))
    error = outcomes.pop(0).error
    assert isinstance(error, ProviderError)
    assert "a.onnx: workers of the cluster died again and again" in error.message
    assert [outcome.error for outcome in outcomes.values()] == [None] * 4
    assert files(tmp_path / "out") == {f"b{number}.onnx" for number in range(4)}


def test_closed_early_it_stops_what_runs(cluster: LocalCluster, tmp_path: Path) -> None:
    make_model(tmp_path / "zoo" / "a.onnx")
    for number in range(5):
        make_model(tmp_path / "zoo" / f"b{number}.onnx", name="hangs")
    work = run_on_cluster(tasks(tmp_path / "zoo", tmp_path / "out"), cluster.scheduler_address)
    position, outcome = next(work)
    assert (position, outcome.error) == (0, None)
    work.close()
    (tmp_path / "zoo" / "a.onnx").rename(tmp_path / "a.onnx")
    (tmp_path / "second").mkdir()
    model = FoldTask(str(tmp_path / "a.onnx"), str(tmp_path / "second" / "a.onnx"), OPTIONS)
    ((_, outcome),) = run_on_cluster([model], cluster.scheduler_address)
    assert outcome.report is not None
    assert files(tmp_path / "out") == {"a.onnx"}


def test_paths_are_relative_to_where_the_command_runs(
    run: Run, cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path / "zoo" / "a.onnx")
    monkeypatch.chdir(tmp_path)
    command = ("optimize", "zoo", "--output-dir", "out", "--no-check")
    result = run(*command, "--scheduler", cluster.scheduler_address)
    assert result.exit_code == 0, result.stderr
    assert_folded(tmp_path / "out" / "a.onnx")
    result = run("optimize", "none.onnx", "--scheduler", cluster.scheduler_address)
    assert result.exit_code == 2
    assert "none.onnx: no such file on the worker 'tcp://" in result.stderr


def test_another_version_is_refused(
    run: Run, cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path / "a.onnx")
    monkeypatch.setattr(fleet_cluster, "__version__", "99")
    result = run("optimize", tmp_path / "a.onnx", "--scheduler", cluster.scheduler_address)
    assert result.exit_code == 4
    lines = result.stderr.splitlines()
    assert "has bnfold" in lines[0]
    assert lines[1] == "hint: install the same everywhere: pip install 'bnfold==99'"
    assert files(tmp_path) == {"a.onnx"}


def test_no_scheduler(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_cluster, "CONNECT_TIMEOUT", 0.5)
    make_model(tmp_path / "a.onnx")
    refused = {
        "tcp://127.0.0.1:1": "no Dask scheduler answers",
        "nonsense://a:b": "no Dask scheduler answers",
        str(tmp_path / "none.json"): "no such scheduler file",
    }
    for address, said in refused.items():
        result = run("optimize", tmp_path / "a.onnx", "--scheduler", address)
        assert result.exit_code == 4
        assert len(result.stderr.splitlines()) == 2, result.stderr
        assert f"{address}: {said}" in result.stderr


def test_no_worker(tmp_path: Path) -> None:
    make_model(tmp_path / "zoo" / "a.onnx")
    with LocalCluster(
        n_workers=0, processes=True, dashboard_address=":0", silence_logs=60
    ) as empty:
        work = tasks(tmp_path / "zoo", tmp_path / "out")
        ((_, outcome),) = run_on_cluster(work, empty.scheduler_address, patience=0.5)
    assert isinstance(outcome.error, ProviderError)
    assert "has had no worker for 0.5 seconds" in outcome.error.message


def test_without_dask(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    make_model(tmp_path / "a.onnx")
    result = run("optimize", tmp_path / "a.onnx", "--scheduler", "tcp://127.0.0.1:1")
    assert result.exit_code == 4
    assert result.stderr.splitlines() == [
        "error: --scheduler needs the package 'distributed', which is not installed",
        "hint: pip install 'bnfold[fleet]'",
    ]


def test_ctrl_c(cluster: LocalCluster, tmp_path: Path) -> None:
    make_model(tmp_path / "zoo" / "a.onnx")
    make_model(tmp_path / "zoo" / "b.onnx", name="hangs")
    out = tmp_path / "out"
    command = ("optimize", tmp_path / "zoo", "--output-dir", out, "--simplify", "--no-check")
    program = subprocess.Popen(
        [sys.executable, "-m", "bnfold", *command, "--scheduler", cluster.scheduler_address],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (out / ".bnfold").exists() and program.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    program.send_signal(signal.SIGINT)
    _, stderr = program.communicate(timeout=60)
    assert program.returncode == 130, stderr
    assert "1 written, 1 interrupted" in stderr
    assert "Traceback" not in stderr
    assert files(out) == {"a.onnx"}


def test_the_commands_of_the_documentation(
    run: Run, cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path / "zoo" / "a" / "b.onnx", external=True)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    commands = "".join(blocks).splitlines()
    assert len(commands) == 4
    for command in commands:
        if "--scheduler" in command:
            shutil.rmtree(tmp_path / "folded")
        here = command.replace("tcp://127.0.0.1:8786", cluster.scheduler_address)
        result = run(*shlex.split(here)[1:])
        assert result.exit_code == 0, (command, result.stderr)
        assert ("1 up to date" in result.stderr) == (command == commands[2])
    assert_folded(tmp_path / "folded" / "a" / "b.onnx")
