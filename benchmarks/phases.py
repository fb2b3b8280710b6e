"""Where the time of a fold goes, phase by phase, against what reading and copying the file take.

    python -m benchmarks.phases [--sizes 1 100 236] [--nodes 99999] [--runs 7] [--folder DIR]

Writes the table of docs/performance.md. Each run is a process of its own, whose phases are timed
from inside; the interpreter's own start is what remains of its wall time. Figures are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks import report
from benchmarks.fold_cost import write_megabytes
from benchmarks.peers import run_process
from benchmarks.stacks import write_chain

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_INTERPRETER = "start of Python"
_READ = "reading the file, warm"
_COPY = "cp"

_CHILD = """
import json, sys, time

source, target = sys.argv[1:]
spent = {}
last = time.perf_counter()

def lap(phase):
    global last
    now = time.perf_counter()
    spent[phase] = spent.get(phase, 0.0) + now - last
    last = now

import numpy
lap("import numpy")
import onnx
lap("import onnx")
import click, rich.console, rich.table
lap("import click and rich")
import bnfold.cli.optimize, bnfold.cli.fold_tables, bnfold.pipeline, bnfold.torch.files
lap("import bnfold")
fold, shapes, output, save = (
    sys.modules[f"bnfold.{name}"]
    for name in ("graph.fold", "graph.shapes", "store.output", "store.save")
)

def timed(owner, name, before, after):
    call = getattr(owner, name)
    def measured(*args, **kwargs):
        lap(before)
        try:
            return call(*args, **kwargs)
        finally:
            lap(after)
    setattr(owner, name, measured)

timed(fold, "Graph", "read and parse", "index")
timed(shapes, "infer", "index", "infer shapes")
timed(fold._Folder, "run", "index", "plan and fold")
timed(fold.Editor, "finish", "plan and fold", "write back")
timed(output.Output, "sync", "compute and write", "sync")
timed(save.Staged, "commit", "compute and write", "move into place")
from bnfold.cli import main
try:
    main(["optimize", source, "-o", target, "--no-check", "--quiet"])
except SystemExit as end:
    assert not end.code, end.code
lap("report")
print(json.dumps(spent))
"""


def fold(source: Path, target: Path) -> dict[str, float]:
    """Fold once; return the seconds of each phase."""
    start = time.perf_counter()
    command = [sys.executable, "-P", "-c", _CHILD, str(source), str(target)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    total = time.perf_counter() - start
    spent: dict[str, float] = json.loads(done.stdout)
    return {_INTERPRETER: total - sum(spent.values()), **spent}


def floor(source: Path, target: Path) -> dict[str, float]:
    """Return how long it takes to read a file that is in memory already, and to copy it."""
    start = time.perf_counter()
    block = bytearray(1 << 20)
    with source.open("rb", buffering=0) as file:
        while file.readinto(block):
            pass
    read = time.perf_counter() - start
    return {_READ: read, _COPY: run_process(["cp", str(source), str(target)]).seconds}


def measure(source: Path, runs: int) -> dict[str, float]:
    """Return the median of each phase and of the floor, run in turns."""
    found: list[dict[str, float]] = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(dir=source.parent) as folder:
            spent = fold(source, Path(folder) / "folded.onnx")
            found.append({**spent, "all": sum(spent.values()), **floor(source, Path(folder) / "c")})
    return {phase: statistics.median(each[phase] for each in found) for phase in found[0]}


def models(sizes: list[int], nodes: list[int], folder: Path) -> Iterator[tuple[str, Path]]:
    """Write the models, one after the other, and yield their names and places."""
    for size in sizes:
        yield from _written(f"{size} MB", partial(write_megabytes, size=size), folder)
    for count in nodes:
        yield from _written(f"{count:,} nodes", partial(write_chain, count=count), folder)


def _written(name: str, write: partial[None], folder: Path) -> Iterator[tuple[str, Path]]:
    path = folder / "model.onnx"
    write(path)
    yield name, path
    path.unlink()


def table(found: dict[str, dict[str, float]]) -> str:
    """Return one row for each phase, in ms, one column for each model."""
    phases = list(dict.fromkeys(phase for spent in found.values() for phase in spent))
    lines = [f"| phase, ms | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    for phase in phases:
        name = f"**{phase}**" if phase == "all" else phase
        cells = [f"{1000 * spent.get(phase, 0.0):,.0f}" for spent in found.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and replace the table of the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", type=int, default=[1, 100, 236, 1900])
    parser.add_argument("--nodes", nargs="*", type=int, default=[99_999])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where the models are written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        found = {
            name: measure(path, arguments.runs)
            for name, path in models(arguments.sizes, arguments.nodes, Path(folder))
        }
    PAGE.write_text(report.replace_part(PAGE.read_text(), "phases", table(found)))


if __name__ == "__main__":
    main()
