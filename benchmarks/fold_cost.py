"""Time and memory of a fold, whole processes, against the peers and against a copy of the file.

    python -m benchmarks.fold_cost [--sizes 1 10 100 236 1900] [--external 4000 6000]
                                   [--nodes 9999 99999] [--runs 5] [--json FILE]

Models are stacks of Conv, BN and ReLU, weights in the file (`--sizes`, MB) or beside it
(`--external`), and chains of tiny nodes (`--nodes`). In every round each tool runs once, in an
order that changes; figures are medians over the rounds, and ratios are taken round by round. A tool
that fails, or takes longer than `--timeout`, is said so and left out of the other rounds.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers import OURS, PROGRAM, TOOLS, Cost, run_process, run_tool
from benchmarks.stacks import write_chain, write_stack

__all__ = ["COPY", "START", "measure", "plan", "write_megabytes"]

COPY = "cp"
START = "python -c pass"
_MB = 10**6
# A layer of n channels has 36 n^2 bytes.
_CHANNELS = {1: 64, 10: 128, 100: 320, 236: 512}
_WIDE = 2016
# Peers hold a large model in memory several times.
_MOST_FOR_PEERS = 2000

Write = Callable[[Path], None]


def write_megabytes(path: Path, size: int, *, external: bool = False) -> None:
    """Write a stack of about so many MB."""
    channels = _CHANNELS.get(size, _WIDE)
    layers = max(1, round(size * _MB / (36 * channels**2)))
    write_stack(path, layers, channels, external=external)


def plan(arguments: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Write, list[str]]]:
    """Yield what each model is, how it is written, and which tools can be asked."""
    everyone, alone = [COPY, *TOOLS], [COPY, OURS]
    for kind, sizes in (("inside", arguments.sizes), ("external", arguments.external)):
        for size in sizes:
            write = partial(write_megabytes, size=size, external=kind == "external")
            tools = everyone if size <= _MOST_FOR_PEERS else alone
            yield {"kind": kind, "megabytes": size}, write, tools
    for count in arguments.nodes:
        yield {"kind": "nodes", "nodes": count}, partial(write_chain, count=count), everyone


def measure(source: Path, tools: list[str], runs: int, timeout: float) -> dict[str, list[Cost]]:
    """Run every tool and a plain copy on one file, in turns."""
    found: dict[str, list[Cost]] = {tool: [] for tool in tools}
    order = random.Random(0)  # noqa: S311 - an order, not a secret
    data = source.with_name(f"{source.name}.data")
    copied = [str(path) for path in (source, data) if path.exists()]
    for _ in range(runs):
        for tool in order.sample(tools, len(tools)):
            with tempfile.TemporaryDirectory(dir=source.parent) as folder:
                if tool == COPY:
                    cost = run_process(["cp", *copied, folder])
                else:
                    cost = run_tool(tool, source, Path(folder) / "out.onnx", timeout)
            found[tool].append(cost)
            if cost.error:
                tools = [each for each in tools if each != tool]
    return found


def rows(what: dict[str, Any], found: dict[str, list[Cost]]) -> list[dict[str, Any]]:
    """Return one row for each tool."""
    lines = []
    for tool, costs in found.items():
        row = {**what, "tool": tool}
        failed = next((cost.error for cost in costs if cost.error), None)
        if failed:
            row["error"] = failed
        else:
            row["seconds"] = statistics.median(cost.seconds for cost in costs)
            row["memory_mb"] = statistics.median(cost.memory for cost in costs) / _MB
            row["times_ours"] = statistics.median(
                cost.seconds / mine.seconds for cost, mine in zip(costs, found[OURS], strict=True)
            )
        lines.append(row)
    return lines


def main() -> None:
    """Build the models, run everything, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", type=int, default=[1, 10, 100, 236, 1900])
    parser.add_argument("--external", nargs="*", type=int, default=[4000, 6000])
    parser.add_argument("--nodes", nargs="*", type=int, default=[9_999, 99_999])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for each run")
    parser.add_argument("--folder", type=Path, help="where the models and results are written")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    lines: list[dict[str, Any]] = []
    for what, write, tools in plan(arguments):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            source = Path(folder) / "model.onnx"
            write(source)
            found = rows(what, measure(source, tools, arguments.runs, arguments.timeout))
        lines += found
        for row in found:
            print(json.dumps(row), flush=True)
    helped = {
        tool: [run_process(command) for _ in range(20)]
        for tool, command in (
            (START, [sys.executable, "-c", "pass"]),
            (OURS, [PROGRAM, "--help"]),
        )
    }
    lines += rows({"kind": "help"}, helped)
    print(json.dumps(lines[-2:]))
    if arguments.json:
        arguments.json.write_text(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
