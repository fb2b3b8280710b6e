"""Speed of what every tool makes of a network, and whether it still computes the same.

    python -m benchmarks.latency [NAME ...] [--seconds 5] [--batch 1] [--json FILE]
                                 [--markdown FILE]

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
from benchmarks.peers import MORE, OURS, TOOLS, run_tool
from benchmarks.zoo import NETWORKS, Network, activated, export
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
# A shift in front of zero padding, which only a channel of ones carries.
SHIFTED = "Conv, ReLU, BN"
NAMES = {**NETWORKS, **BRANCHED, SHIFTED: Network(lambda: activated(4, 64), (64, 56, 56))}


def measure(name: str, seconds: float, batch: int) -> list[dict[str, Any]]:
    """Return one row for the original and for each tool.

    A row has ``tool``, ``nodes``, ``norms``, ``equivalent``, ``ratio`` (difference over noise),
    ``ms`` and ``against_ours`` (ratio of latencies, with its interval).
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "original.onnx"
        export(NAMES[name], source)
        paths, rows = {"original": source}, []
        shape = (batch, *NAMES[name].shape)
        tools = (*TOOLS, *MORE) if name == SHIFTED else tuple(TOOLS)
        for number, tool in enumerate(tools, 1):
            target = Path(folder) / f"{number}.onnx"
            error = run_tool(tool, source, target).error or _refusal(target, shape)
            if error is None:
                paths[tool] = target
            else:
                rows.append({"network": name, "tool": tool, "error": error})
        timed = bnfold.bench(
            [paths[OURS], *(path for tool, path in paths.items() if tool != OURS)],
            inputs={"x": shape},
            seconds=seconds,
            footprint=False,
        ).speeds
        for tool, path in paths.items():
            rows.append(
                {
                    "network": name,
                    "tool": tool,
                    **_counts(path),
                    **_verdict(source, path, shape),
                    "ms": _speed(timed, path).latency.median,
                    "against_ours": _ratio(timed, path),
                }
            )
    return rows


def _refusal(path: Path, shape: tuple[int, ...]) -> str | None:
    """Say why a model does not run, or None if it does."""
    try:
        bnfold.bench(path, inputs={"x": shape}, seconds=0.01, footprint=False)
    except BnfoldError as error:
        return error.message.partition(": ")[2]
    return None


def _counts(path: Path) -> dict[str, int]:
    counts = Counter(node.op_type for node in onnx.load(path).graph.node)
    return {"nodes": sum(counts.values()), "norms": counts["BatchNormalization"]}


def _verdict(source: Path, path: Path, shape: tuple[int, ...]) -> dict[str, Any]:
    try:
        reports = bnfold.check(source, path, inputs={"x": shape}, samples=2)
    except BnfoldError as error:
        return {"equivalent": None, "ratio": None, "error": error.message}
    worst = max((output.ratio or 0.0 for each in reports for output in each.outputs), default=0.0)
    return {"equivalent": all(each.equivalent for each in reports), "ratio": worst}


def _speed(speeds: tuple[Any, ...], path: Path) -> Any:
    return next(speed for speed in speeds if speed.model == str(path))


def _ratio(speeds: tuple[Any, ...], path: Path) -> list[float] | None:
    speed = _speed(speeds, path)
    return None if speed.ratio is None else [speed.ratio, *speed.interval]


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| network | made by | nodes | BN | equal | D/noise | median, ms | times bnfold (99 %) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = f"| {row['network']} | {row['tool']} |"
        if "ms" not in row:
            lines.append(f"{start} | | failed: {row['error']} | | | |")
            continue
        against = row["against_ours"]
        ratio = "" if against is None else "{:.2f} ({:.2f} to {:.2f})".format(*against)
        equal = {True: "yes", False: "**no**", None: "not run"}[row["equivalent"]]
        noise = "" if row["ratio"] is None else f"{row['ratio']:.1f}"
        counts = f"{row['nodes']} | {row['norms']}"
        lines.append(f"{start} {counts} | {equal} | {noise} | {row['ms']:.2f} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    """Measure the networks that are named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks; all of them if none is named")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each model and comparison")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--markdown", type=Path, help="write them as a table here")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    arguments.names = arguments.names or list(NAMES)
    for name in arguments.names:
        found = measure(name, arguments.seconds, arguments.batch)
        rows += found
        for row in found:
            print(json.dumps(row), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    if arguments.markdown:
        arguments.markdown.write_text(table(rows) + "\n")


if __name__ == "__main__":
    main()
