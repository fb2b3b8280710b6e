"""Time and memory of a fold, whole processes, against the peers and against a copy of the file.

    python -m benchmarks.fold_cost [--sizes 1 10 100 236 1900] [--external 4000 6000]
                                   [--nodes 100000] [--runs 3] [--json FILE]

Models are stacks of Conv, BN and ReLU. In every round each tool runs once, in an order that
changes; figures are medians over the rounds, and ratios are taken round by round. A tool that fails
is said so. Sizes are in MB.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from benchmarks.peers import OURS, TOOLS, Cost, run_process, run_tool
from benchmarks.zoo import write_stack

__all__ = ["measure"]

_MB = 10**6
_COPY = "cp"
# A layer of n channels has 36 n^2 bytes.
_CHANNELS = {1: 64, 10: 128, 100: 320, 236: 512}


def _write(path: Path, megabytes: int, *, external: bool) -> None:
    channels = _CHANNELS.get(megabytes, 2016)
    layers = max(1, round(megabytes * _MB / (36 * channels**2)))
    write_stack(path, layers, channels, external=external)


def _write_nodes(path: Path, count: int) -> None:
    """Write a chain of ``count`` nodes: Conv, BN and ReLU of two channels, in turns."""
    tensors = [
        helper.make_tensor("w", TensorProto.FLOAT, [2, 2, 1, 1], [0.9, 0.1, -0.1, 0.9]),
        *(
            helper.make_tensor(name, TensorProto.FLOAT, [2], values)
            for name, values in {"s": [1, 1.1], "b": [0, 0.1], "m": [0.1, 0], "v": [1, 2]}.items()
        ),
    ]
    nodes, at = [], "x"
    for layer in range(count // 3):
        nodes += [
            helper.make_node("Conv", [at, "w"], [f"c{layer}"]),
            helper.make_node("BatchNormalization", [f"c{layer}", *"sbmv"], [f"n{layer}"]),
            helper.make_node("Relu", [f"n{layer}"], [f"r{layer}"]),
        ]
        at = f"r{layer}"
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2, 8, 8]) for n in ("x", at)]
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:], tensors)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )


def measure(source: Path, tools: list[str], runs: int) -> dict[str, list[Cost]]:
    """Run every tool and a plain copy on one file, in turns."""
    found: dict[str, list[Cost]] = {tool: [] for tool in tools}
    order = random.Random(0)  # noqa: S311 - an order, not a secret
    data = source.with_name(f"{source.name}.data")
    copied = [str(path) for path in (source, data) if path.exists()]
    for _ in range(runs):
        for tool in order.sample(tools, len(tools)):
            with tempfile.TemporaryDirectory(dir=source.parent) as folder:
                if tool == _COPY:
                    cost = run_process(["cp", *copied, folder])
                else:
                    cost = run_tool(tool, source, Path(folder) / "out.onnx")
            found[tool].append(cost)
            if cost.error:
                tools = [each for each in tools if each != tool]
    return found


def rows(what: str, found: dict[str, list[Cost]]) -> list[dict[str, Any]]:
    """Return one row for each tool."""
    ours = found[OURS]
    lines = []
    for tool, costs in found.items():
        row: dict[str, Any] = {"model": what, "tool": tool}
        failed = next((cost.error for cost in costs if cost.error), None)
        if failed:
            row["error"] = failed
        else:
            row["seconds"] = statistics.median(cost.seconds for cost in costs)
            row["megabytes"] = statistics.median(cost.memory for cost in costs) / _MB
            row["times_ours"] = statistics.median(
                cost.seconds / mine.seconds for cost, mine in zip(costs, ours, strict=True)
            )
        lines.append(row)
    return lines


def main() -> None:
    """Build the models, run everything, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", type=int, default=[1, 10, 100, 236, 1900])
    parser.add_argument("--external", nargs="*", type=int, default=[4000])
    parser.add_argument("--nodes", nargs="*", type=int, default=[100_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the models and results are written")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tools = [_COPY, *TOOLS]
    plan = [(f"{size} MB", size, False) for size in arguments.sizes]
    plan += [(f"{size} MB, external data", size, True) for size in arguments.external]
    plan += [(f"{count} nodes", -count, False) for count in arguments.nodes]
    lines: list[dict[str, Any]] = []
    for what, size, external in plan:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            source = Path(folder) / "model.onnx"
            if size < 0:
                _write_nodes(source, -size)
            else:
                _write(source, size, external=external)
            # Peers need many times the size of a large model, and hours for very many nodes.
            able = tools if 0 < size <= 2000 else [_COPY, OURS]
            found = rows(what, measure(source, able, arguments.runs))
        lines += found
        for row in found:
            print(json.dumps(row), flush=True)
    started = [run_process([sys.executable, "-c", "pass"]) for _ in range(10)]
    helped = [run_process([sys.executable, "-m", "bnfold", "--help"]) for _ in range(10)]
    lines += rows("bnfold --help", {OURS: helped, "python -c pass": started})
    print(json.dumps(lines[-2:]))
    if arguments.json:
        arguments.json.write_text(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
