"""Dependencies: each bounded on both sides, explained, and locked within its bounds."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {
    name: each
    for name, each in PROJECT["optional-dependencies"].items()
    if name not in {"benchmarks", "dev"}
}
SHIPPED = [
    Requirement(line)
    for lines in (PROJECT["dependencies"], *EXTRAS.values())
    for line in lines
]  # fmt: skip
PAGE = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
LOCK = dict(
    re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
)
BY_DATE = {"dask", "distributed", "fsspec", "furo"}  # no version announces a change


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


@pytest.mark.parametrize("requirement", SHIPPED, ids=lambda each: each.name)
def test_dependency_is_bounded_and_explained(requirement: Requirement) -> None:
    operators = {each.operator for each in requirement.specifier}
    assert operators == ({">="} if requirement.name in BY_DATE else {">=", "<"})
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{requirement.name}`")]
    bounds = sorted(str(requirement.specifier).split(","), reverse=True)
    assert f"| {', '.join(bounds)} |".replace(">=", "").replace(", <", " to <") in row


@pytest.mark.parametrize("requirement", SHIPPED, ids=lambda each: each.name)
def test_lock_is_within_the_bounds(requirement: Requirement) -> None:
    if requirement.name in {"onnxruntime-gpu", "torch"}:
        pytest.skip("left out of the lock")
    assert Version(LOCK[_plain(requirement.name)]) in requirement.specifier


def test_lock_has_a_hash_for_everything() -> None:
    text = (ROOT / "requirements.lock").read_text()
    parts = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(parts) == len(LOCK)
    assert all("--hash=sha256:" in part for part in parts)
    assert "torch" not in LOCK


def test_lock_knows_everything_that_development_needs() -> None:
    wanted = {Requirement(line).name for line in PROJECT["optional-dependencies"]["dev"]}
    assert {_plain(name) for name in wanted - {"bnfold"}} <= LOCK.keys()
