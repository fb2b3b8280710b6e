"""Models that are too large for all sessions at once: two at most, and the same verdicts."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from pathlib import Path

import pytest

import bnfold
from bnfold.check.inprocess import run_check
from bnfold.check.models import pairs
from bnfold.check.request import Request
from bnfold.check.runtimes import sessions
from bnfold.report import CheckReport

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"


def _reports(candidate: Path) -> list[CheckReport]:
    found: list[CheckReport] = []
    request = Request(str(DIGITS), str(candidate), samples=3)
    run_check(request, progress=lambda _: None, learned=found.append)
    return found


@pytest.fixture
def folded(tmp_path: Path) -> Path:
    path = tmp_path / "folded.onnx"
    bnfold.optimize(DIGITS, path, check=False)
    return path


def test_two_sessions_at_most(folded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _reports(folded)
    alive: weakref.WeakSet[object] = weakref.WeakSet()
    most = 0
    start = sessions.start_session

    def counted(*arguments: object, **options: object) -> object:
        nonlocal most
        session = start(*arguments, **options)  # type: ignore[arg-type]
        gc.collect()
        alive.add(session)
        most = max(most, len(alive))
        return session

    monkeypatch.setattr(sessions, "start_session", counted)
    _reports(folded)
    assert most > 2
    alive.clear()
    most = 0
    monkeypatch.setattr(pairs, "LARGE", 1)
    found = _reports(folded)
    assert most == 2
    assert [dataclasses.asdict(each) for each in found] == [
        dataclasses.asdict(each) for each in expected
    ]
    assert all(report.equivalent for report in found)


def test_a_large_model_that_does_not_load_is_said(
    tmp_path: Path, folded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "LARGE", 1)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(folded.read_bytes().replace(b"Gemm", b"Gemn"))
    report = _reports(broken)[0]
    assert not report.equivalent
    assert "Gemn" in str(report.to_dict())
