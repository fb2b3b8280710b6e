"""What the doctor finds in installations that are broken, each in its own way."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from bnfold.cli import main
from bnfold.doctor import machine as machines
from bnfold.doctor import trials
from bnfold.doctor.diagnosis import Diagnosis, Problem
from bnfold.doctor.examine import examine
from bnfold.doctor.needs import CORE, Need, fits, needs
from bnfold.doctor.trials import Tried

Install = Callable[..., Path]
Only = Callable[..., None]

EXTRA = Need("some-extra", ">=2", ("simplify",))


def found(diagnosis: Diagnosis, part: str) -> Problem:
    """The one problem that says this."""
    (problem,) = (each for each in diagnosis.problems if part in each.message)
    assert problem.repair
    assert "\n" not in problem.message + problem.repair
    return problem


def test_a_whole_installation_is_well() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "bnfold", "doctor", "--no-config", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(result.stdout)
    assert result.returncode == 0, report["problems"]
    assert report["works"] is True
    packages = {package["name"]: package for package in report["packages"]}
    assert {"numpy", "onnx", "ml-dtypes", "click", "rich", "onnxruntime"} <= set(packages)
    for name in ("numpy", "onnx", "onnxruntime", "torch"):
        package = packages[name]
        assert package["installed"] == importlib.metadata.version(name)
        assert (package["fits"], package["works"]) == (True, True)
    assert "ruff" not in packages
    cpu = report["providers"][0]
    assert (cpu["name"], cpu["needed"], cpu["usable"]) == ("CPUExecutionProvider", True, True)
    assert report["machine"]["cores"] >= 1
    assert report["machine"]["memory"] > report["machine"]["available"] > 0


def test_what_is_needed_is_what_the_metadata_say() -> None:
    found = {need.name: need for need in needs()}
    assert found["onnx"].by == (CORE,)
    assert f"onnx{found['onnx'].specifier}" in (importlib.metadata.requires("bnfold") or [])
    assert found["onnxruntime"].by == ("cpu",)
    assert found["torch"].by == ("torch",)
    for need in found.values():
        assert fits(need.specifier, "0.0.1") is not None, need


@pytest.mark.parametrize(
    ("specifier", "version", "expected"),
    [
        (">=1.17", "1.17", True),
        (">=1.17", "1.9", False),
        (">=1.20", "1.20.0rc1", False),
        (">=2.6", "2.13.0+cpu", True),
        ("", "0", True),
        (">=1", "unknown", None),
    ],
)
def test_versions(specifier: str, version: str, expected: bool | None) -> None:
    assert fits(specifier, version) is expected


def test_both_builds_of_the_runtime(install: Install, only: Only) -> None:
    only()
    install("onnxruntime-gpu", "1.31.1", module="onnxruntime")
    diagnosis = examine()
    problem = found(diagnosis, "onnxruntime and onnxruntime-gpu are both installed")
    assert "pip uninstall -y onnxruntime onnxruntime-gpu && " in problem.repair
    assert problem.repair.endswith("-m pip install 'bnfold[gpu]'")
    assert not diagnosis.works


def test_another_build_in_the_same_directory(install: Install, only: Only) -> None:
    only()
    install("onnxruntime-openvino", "1.22.0", module="onnxruntime")
    assert "onnxruntime-openvino" in found(examine(), "overwrite each other").repair


def test_no_runtime(install: Install, only: Only) -> None:
    only(runtime=True)
    install("x", module="onnxruntime", code="raise ImportError('libmissing.so: not there')")
    diagnosis = examine()
    problem = found(diagnosis, "libmissing.so")
    assert problem.repair.endswith("pip install --force-reinstall --no-deps onnxruntime")
    assert not diagnosis.works
    assert diagnosis.providers == ()


def test_no_build_of_the_runtime(
    install: Install, only: Only, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(runtime=True)
    monkeypatch.setattr("bnfold.doctor.examine.runtime_builds", lambda _: [])
    install("x", module="onnxruntime", code="raise ModuleNotFoundError('No such module')")
    assert found(examine(), "No such module").repair.endswith("-m pip install 'bnfold[cpu]'")


def test_a_runtime_that_crashes(install: Install, only: Only) -> None:
    only(runtime=True)
    install("x", module="onnxruntime", code="import os; os.abort()")
    diagnosis = examine()
    assert "SIGABRT" in found(diagnosis, "ended with").message
    assert not diagnosis.works


def test_a_runtime_that_fails_in_another_way(install: Install, only: Only) -> None:
    only(runtime=True)
    install("x", module="onnxruntime", code="raise TypeError('Descriptors cannot be created')")
    assert "force-reinstall" in found(examine(), "Descriptors cannot be created").repair


def test_a_provider_that_is_not_there(only: Only) -> None:
    only(runtime=True)
    diagnosis = examine(("cuda",))
    assert not diagnosis.works
    problem = found(diagnosis, "the provider 'cuda' cannot be used")
    assert "bnfold[gpu]" in problem.repair
    names = [provider.name for provider in diagnosis.providers]
    assert names[0] == "cuda"
    assert "CPUExecutionProvider" in names


def test_a_provider_that_no_runtime_has(only: Only) -> None:
    only(runtime=True)
    result = CliRunner().invoke(main, ["doctor", "--provider", "tpu"])
    assert result.exit_code == 2
    assert "unknown provider 'tpu'" in result.stderr


def test_a_package_that_is_missing(only: Only) -> None:
    only(Need("surely-missing", ">=3", (CORE,)), Need("missing-too", "", ("torch",)))
    diagnosis = examine()
    assert not diagnosis.works
    problem = found(diagnosis, "surely-missing is not installed")
    assert problem.repair.endswith("pip install 'surely-missing>=3'")
    optional = diagnosis.packages[1]
    assert (optional.installed, optional.fits, optional.works) == (None, None, None)
    assert optional.repair is not None
    assert optional.repair.endswith("pip install 'bnfold[torch]'")
    assert not any("missing-too" in problem.message for problem in diagnosis.problems)


def test_a_version_that_does_not_fit(install: Install, only: Only) -> None:
    install("some-extra", "1.9", module="some_extra")
    only(EXTRA)
    diagnosis = examine()
    problem = found(diagnosis, "some-extra 1.9 is not >=2")
    assert (problem.severity, diagnosis.works) == ("warning", True)
    only(Need("some-extra", ">=2", (CORE,)))
    assert not examine().works


IMPORTS = {
    "error": ("raise ValueError('no\\nwonder')", "ValueError: no wonder"),
    "exit": ("raise SystemExit(0)", "SystemExit"),
    "crash": ("import os; os.abort()", "SIGABRT"),
    "hang": ("import time; time.sleep(600)", "took longer than"),
}


@pytest.mark.parametrize(("code", "said"), IMPORTS.values(), ids=IMPORTS)
def test_a_package_that_cannot_be_imported(
    install: Install, only: Only, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    monkeypatch.setattr(trials, "_SECONDS", 5.0)
    install("some-extra", "2.0", module="some_extra", code=code)
    install("good-extra", "1.0", module="good_extra", code="print('loud')")
    only(EXTRA, Need("good-extra", "", ("simplify",)))
    diagnosis = examine()
    assert diagnosis.works
    assert said in found(diagnosis, "some-extra 2.0 cannot be imported").message
    assert [package.works for package in diagnosis.packages] == [False, True]


def test_two_versions_of_one_package(install: Install, only: Only, tmp_path: Path) -> None:
    folder = install("some-extra", "2.0", module="some_extra")
    install("some-extra", "2.1")
    only(EXTRA)
    problem = found(examine(), "some-extra is installed 2 times")
    assert f"2.0 in {folder}" in problem.message
    assert problem.repair.count("pip uninstall -y some-extra") == 2


def test_two_installations_of_bnfold(
    install: Install, only: Only, monkeypatch: pytest.MonkeyPatch
) -> None:
    only()
    folder = install("bnfold", "0.0.1")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    problem = found(examine(), "bnfold is installed 2 times")
    assert problem.repair == f"take {folder} off PYTHONPATH"


def test_a_module_in_the_way(
    install: Install, only: Only, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("some-extra", "2.0", module="some_extra")
    (tmp_path / "some_extra.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    only(EXTRA)
    problem = found(examine(), "'import some_extra' finds")
    assert str(tmp_path / "some_extra.py") in problem.repair


def test_files_of_another_version(install: Install, only: Only) -> None:
    install("some-extra", "2.0", module="some_extra", code="__version__ = '2.1'")
    install("same-extra", "2.0", module="same_extra", code="__version__ = 'v2.0.0+cpu'")
    only(EXTRA, Need("same-extra", "", ("simplify",)))
    diagnosis = examine()
    problem = found(diagnosis, "two versions are mixed")
    assert problem.message.startswith("some-extra says that it is 2.1")
    assert problem.repair.endswith("--force-reinstall --no-deps some-extra==2.0")


def test_a_package_that_lacks_what_it_needs(install: Install, only: Only) -> None:
    install("protobuf", "3.20.0")
    requires = ("protobuf>=4", "surely-missing", "never; python_version < '3'", "x; extra == 'y'")
    install("some-extra", "2.0", module="some_extra", requires=requires)
    only(EXTRA)
    diagnosis = examine()
    problem = found(diagnosis, "some-extra 2.0 needs protobuf>=4, and 3.20.0 is installed")
    assert problem.repair.endswith("pip install 'protobuf>=4'")
    found(diagnosis, "needs surely-missing, which is not installed")
    assert not any("never" in each.message for each in diagnosis.problems)


def test_half_removed_packages_are_passed_over(install: Install, only: Only) -> None:
    folder = install("some-extra", "2.0", module="some_extra")
    (folder / "rest-1.0.dist-info").mkdir()
    (folder / "empty-1.0.dist-info").mkdir()
    (folder / "empty-1.0.dist-info" / "METADATA").touch()
    only(EXTRA)
    assert examine().works


@pytest.mark.skipif(os.name == "nt", reason="programs have other names there")
def test_another_program_comes_first(
    only: Only, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only()
    own = tmp_path / "venv"
    other = tmp_path / "other"
    for folder in (own, other):
        folder.mkdir()
        (folder / "bnfold").touch(mode=0o755)
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(own))
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, (own, other))))
    assert not any("a shell takes" in each.message for each in examine().problems)
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, (other, own))))
    assert str(own / "bnfold") in found(examine(), f"a shell takes {other / 'bnfold'}").repair


def test_from_a_folder_of_sources(only: Only, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise importlib.metadata.PackageNotFoundError("bnfold")

    only()
    monkeypatch.setattr("bnfold.doctor.examine.needs", missing)
    diagnosis = examine()
    assert "install -e" in found(diagnosis, "is not installed: what it needs is not known").repair
    assert diagnosis.works


def test_nowhere_to_write(only: Only, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError("No usable temporary directory")

    only(EXTRA)
    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    diagnosis = examine()
    assert not diagnosis.works
    assert "TMPDIR" in found(diagnosis, "no folder for temporary files").repair


def test_little_room(only: Only, monkeypatch: pytest.MonkeyPatch) -> None:
    only()
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=5_000_000))
    monkeypatch.setattr(machines, "_memory", lambda: (10**9, 10**8))
    diagnosis = examine()
    assert diagnosis.works
    found(diagnosis, "has 5 MB left for temporary files")
    found(diagnosis, "100 MB of memory are left")


def test_the_limits_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "_CONTROL_GROUP", tmp_path)
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text("64000000\n")
    (tmp_path / "memory.current").write_text("60000000\n")
    limited = machines.machine()
    assert (limited.cores, limited.memory, limited.available) == (1, 64_000_000, 4_000_000)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    free = machines.machine()
    assert free.memory is not None
    assert free.memory > 64_000_000


def test_what_it_prints(install: Install, only: Only) -> None:
    install("some-extra", "1.0", module="some_extra")
    only(EXTRA, Need("surely-missing", "", (CORE,)))
    result = CliRunner().invoke(main, ["doctor", "--no-config"])
    assert result.exit_code == 4
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    at = lines.index("error: surely-missing is not installed")
    assert lines[at + 1].startswith("hint: ")
    assert lines[at + 2].startswith("warning: some-extra 1.0 is not >=2")
    assert any(line.split()[:2] == ["CPUExecutionProvider", "yes"] for line in lines)
    quiet = CliRunner().invoke(main, ["doctor", "--no-config", "-q"])
    assert quiet.stderr.splitlines() == lines[at : at + 2]


def test_the_provider_of_the_configuration_is_needed(
    only: Only, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only()
    monkeypatch.setattr(
        "bnfold.doctor.examine.try_provider",
        lambda name: Tried(name, None if name == "cpu" else "it is not there"),
    )
    (tmp_path / "bnfold.toml").write_text("provider = 'cuda'")
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["doctor", "-q"]).exit_code == 4
    assert CliRunner().invoke(main, ["doctor", "-q", "--provider", "cpu"]).exit_code == 0
