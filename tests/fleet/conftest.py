from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import pytest
from click.testing import CliRunner, Result
from distributed import LocalCluster

from bnfold.cli import main
from tests.fleet.zoo import SIMPLIFIER

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Run the command line in this process."""

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def simplifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a simplifier that harms its process on request in the place of onnxsim."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "onnxsim.py").write_text(SIMPLIFIER)
    monkeypatch.syspath_prepend(folder)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two workers with two threads each, whose onnxsim harms its process on request."""
    modules = tmp_path_factory.mktemp("modules")
    (modules / "onnxsim.py").write_text(SIMPLIFIER)
    sys.path.insert(0, str(modules))
    once = {"distributed.scheduler.allowed-failures": 1}
    try:
        with (
            dask.config.set(once),
            LocalCluster(
                n_workers=2,
                threads_per_worker=2,
                processes=True,
                dashboard_address=":0",
                local_directory=str(tmp_path_factory.mktemp("workers")),
                silence_logs=60,
            ) as running,
        ):
            yield running
    finally:
        sys.path.remove(str(modules))
