"""The same input gives the same bytes, whatever surrounds the process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEEDS = 25
SURROUNDINGS: dict[str, dict[str, str]] = {
    "hash seed and one thread": {
        "PYTHONHASHSEED": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    },
    "many threads, another place": {
        "PYTHONHASHSEED": "4321",
        "OMP_NUM_THREADS": "7",
        "OPENBLAS_NUM_THREADS": "7",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
        "COLUMNS": "33",
    },
    "an older processor": {
        "OPENBLAS_CORETYPE": "Prescott",
        "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512_SKX X86_V3 X86_V4",
    },
}


def _folded(folder: Path, surroundings: dict[str, str], umask: int) -> dict[str, str]:
    folder.mkdir()
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.determinism.folding", folder, str(SEEDS)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **surroundings},
        umask=umask,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(run.stdout)
    return found


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    found = _folded(tmp_path_factory.mktemp("usual") / "models", {}, 0o022)
    assert len(found) > SEEDS * 0.9
    assert {"digits", "large", "renewed"} <= found.keys()
    return found


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_models_have_the_same_bytes(name: str, usual: dict[str, str], tmp_path: Path) -> None:
    found = _folded(tmp_path / "of another name ü", SURROUNDINGS[name], 0o077)
    assert {each for each in usual if usual[each] != found.get(each)} == set()
    assert found.keys() == usual.keys()


def test_jobs_and_the_path_of_the_input_do_not_matter(tmp_path: Path) -> None:
    results = set()
    for at, jobs in enumerate(("1", "2")):
        folder = tmp_path / f"{at}"
        folder.mkdir()
        for name in ("a.onnx", "b c.onnx"):
            shutil.copy(ROOT / "models" / "digits.onnx", folder / name)
        command = [sys.executable, "-m", "bnfold", "optimize", "--no-check", "--jobs", jobs]
        run = subprocess.run(
            [*command, "a.onnx", folder / "b c.onnx", "--output-dir", "out", "--json"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        results.update(each.read_bytes() for each in (folder / "out").glob("*.onnx"))
        said = json.loads(run.stdout)
        results.add(json.dumps([each["sites"] for each in said["models"]]).encode())
    assert len(results) == 2  # one model, one list of verdicts


def test_programs_of_pytorch_have_the_same_bytes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from bnfold.torch.convert import _save  # noqa: PLC0415 - needs PyTorch

    program = torch.export.load(ROOT / "models" / "digits.pt2")
    targets = [tmp_path / "a.pt2", tmp_path / "another.pt2"]
    for target in targets:
        _save(program, target)
    assert len({target.read_bytes() for target in targets}) == 1


@pytest.mark.slow
def test_programs_of_pytorch_have_the_same_bytes_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    results = set()
    for at, seed in enumerate("19"):
        target = tmp_path / f"{at}.pt2"
        command = [sys.executable, "-m", "bnfold", "optimize", "--no-check", "-o", target]
        subprocess.run(
            [*command, ROOT / "models" / "digits.pt2"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": seed},
            capture_output=True,
            check=True,
        )
        results.add(target.read_bytes())
    assert len(results) == 1
