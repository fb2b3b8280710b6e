"""What is shipped: the same bytes whoever builds it, and all that belongs in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


def _build(place: Path, *, umask: int, time: int, seed: str, zone: str) -> Path:
    """Build a wheel from a copy of the sources, as somebody else would have it."""
    shutil.copytree(ROOT / "bnfold", place / "bnfold", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    for path in place.rglob("*"):
        path.chmod(0o777 & ~umask if path.is_dir() else 0o666 & ~umask)
        os.utime(path, (time, time))
    run = subprocess.run(
        [sys.executable, "-c", BUILD, place / "dist"],
        cwd=place,
        env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
        umask=umask,
        capture_output=True,
        text=True,
        check=True,
    )
    return place / "dist" / run.stdout.strip()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    one = _build(tmp_path_factory.mktemp("a"), umask=0o022, time=10**9, seed="1", zone="UTC")
    other = _build(
        tmp_path_factory.mktemp("b") / "deeper ä",
        umask=0o077,
        time=15 * 10**8,
        seed="2",
        zone="Asia/Tokyo",
    )
    return one, other


def test_two_builds_give_the_same_bytes(wheels: tuple[Path, Path]) -> None:
    one, other = wheels
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()


def test_all_of_the_package_is_in_it_and_nothing_else(wheels: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        modes = {entry.external_attr >> 16 & 0o777 for entry in wheel.infolist()}
    there = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "bnfold").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == there
    assert "bnfold/py.typed" in names
    assert modes <= {0o644, 0o755}
