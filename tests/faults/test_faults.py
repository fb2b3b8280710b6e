"""At a few points of every write; ``python -m tests.faults`` tries many more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.trial import FAULTS
from tests.faults.writers import SLOW, WRITERS

ROOT = Path(__file__).parents[2]


def _attack(*arguments: str) -> str:
    """Try in a process of its own: it forks, which a process with threads had better not do."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.faults", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == ""
    assert run.returncode == 0, run.stdout
    return run.stdout


@pytest.mark.parametrize("writer", [name for name in WRITERS if name not in SLOW])
def test_the_target_is_the_old_or_the_new_file(writer: str) -> None:
    told = _attack("--points", "4", "--writer", writer).splitlines()
    assert [line.split(":")[0] for line in told] == [f"{writer}, {fault}" for fault in FAULTS]


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS)
def test_at_a_hundred_points(writer: str) -> None:
    _attack("--points", "100", "--writer", writer)


def test_a_broken_promise_is_noticed(tmp_path: Path) -> None:
    """What the trials are worth: a writer that writes in place fails them."""
    script = tmp_path / "careless.py"
    script.write_text(CARELESS.format(root=str(ROOT)))
    run = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, check=True
    )
    found = json.loads(run.stdout)
    assert "the target is broken" in found["killed"]
    assert "left behind" in found["interrupted"]


CARELESS = """
import json, pathlib, sys
sys.path.insert(0, {root!r})
from bnfold.store.temporaries import temporary
from tests.faults.trial import Bench, attack
from tests.faults.writers import Writer

def prepare(folder):
    (folder / "r.json").write_text('{{"model": 1}}')

def careless():
    unfinished = temporary(pathlib.Path())
    unfinished.touch()
    temporary(pathlib.Path())
    with open("r.json", "w") as file:
        file.write('{{"model":')
        file.flush()
        temporary(pathlib.Path())
        file.write("2}}")
    unfinished.unlink()

writer = Writer(prepare, "r.json", lambda path: json.loads(path.read_text()), lambda _: careless)
bench = Bench(writer, pathlib.Path(sys.argv[1]))
length = bench.length("killed")
print(json.dumps({{
    fault: str([attack(bench, fault, at) for at in range(length)])
    for fault in ("killed", "interrupted")
}}))
"""
