"""Speed of what every tool makes of a network, and whether it still computes the same.

    python -m benchmarks.latency [NAME ...] [--seconds 5] [--batch 1] [--json FILE]

Every tool runs in a process of its own, on the same file. Each result is first compared with the
original (`bnfold check`, at the level of the deployment), and then all of them are timed in turns
(`bnfold bench`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnx

import bnfold
from benchmarks.peers import OURS, TOOLS, run_tool
from benchmarks.zoo import NETWORKS, Network, export
from bnfold.errors import BnfoldError
from tests.exporters import reparameterised as branches

__all__ = ["NAMES", "measure"]

BRANCHED = {
    "RepVGG-A0": Network(branches.NETWORKS["repvgg-a0"].make, (3, 224, 224)),
    "MobileOne-S0": Network(branches.NETWORKS["mobileone-s0"].make, (3, 224, 224)),
    "ACNet block": Network(lambda: branches.AsymmetricBlock(64, 64), (64, 56, 56)),
    "DBB block": Network(lambda: branches.DiverseBranchBlock(64, 64), (64, 56, 56)),
    "YOLO RepConv neck": Network(lambda: branches.Neck(32), (3, 320, 320)),
}
NAMES = {**NETWORKS, **BRANCHED}


def measure(name: str, seconds: float, batch: int) -> list[dict[str, Any]]:
    """Return one row for the original and for each tool.

    A row has ``tool``, ``nodes``, ``norms``, ``equivalent``, ``ratio`` (difference over noise),
    ``ms``, ``against_original`` and ``against_ours`` (ratio of latencies, with its interval).
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "original.onnx"
        export(NAMES[name], source)
        paths, rows = {"original": source}, []
        for tool in TOOLS:
            target = Path(folder) / f"{len(paths)}.onnx"
            cost = run_tool(tool, source, target)
            if cost.error is None:
                paths[tool] = target
            else:
                rows.append({"network": name, "tool": tool, "error": cost.error})
        shape = (batch, *NAMES[name].shape)
        timed = {
            first: bnfold.bench(
                [paths[first], *(path for tool, path in paths.items() if tool != first)],
                inputs={"x": shape},
                seconds=seconds,
                footprint=False,
            ).speeds
            for first in ("original", OURS)
        }
        for tool, path in paths.items():
            rows.append(
                {
                    "network": name,
                    "tool": tool,
                    **_counts(path),
                    **_verdict(source, path, shape),
                    "ms": _speed(timed[OURS], path).latency.median,
                    "against_original": _ratio(timed["original"], path),
                    "against_ours": _ratio(timed[OURS], path),
                }
            )
    return rows


def _counts(path: Path) -> dict[str, int]:
    counts = Counter(node.op_type for node in onnx.load(path).graph.node)
    return {"nodes": sum(counts.values()), "norms": counts["BatchNormalization"]}


def _verdict(source: Path, path: Path, shape: tuple[int, ...]) -> dict[str, Any]:
    try:
        reports = bnfold.check(source, path, inputs={"x": shape}, samples=3)
    except BnfoldError as error:
        return {"equivalent": None, "ratio": None, "error": error.message}
    worst = max((output.ratio or 0.0 for each in reports for output in each.outputs), default=0.0)
    return {"equivalent": all(each.equivalent for each in reports), "ratio": worst}


def _speed(speeds: tuple[Any, ...], path: Path) -> Any:
    return next(speed for speed in speeds if speed.model == str(path))


def _ratio(speeds: tuple[Any, ...], path: Path) -> list[float] | None:
    speed = _speed(speeds, path)
    return None if speed.ratio is None else [speed.ratio, *speed.interval]


def main() -> None:
    """Measure the networks that are named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks; all of them if none is named")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each model and comparison")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in arguments.names or NAMES:
        found = measure(name, arguments.seconds, arguments.batch)
        rows += found
        for row in found:
            print(json.dumps(row), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
