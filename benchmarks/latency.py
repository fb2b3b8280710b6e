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
from benchmarks.peers import MORE, OURS, TOOLS, Cost, run_tool
from benchmarks.stacks import write_stack
from benchmarks.zoo import NETWORKS, Network, activated, export
from bnfold.benchmark import Speed
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
WIDE = "wide stack, 1.9 GB"
_WIDE_LAYERS, _WIDE_CHANNELS = 13, 2016
_MODULES = {**NETWORKS, **BRANCHED, SHIFTED: Network(lambda: activated(4, 64), (64, 56, 56))}
NAMES = (*_MODULES, WIDE)
# Above this, the results of all tools do not fit into memory together.
_PAIRWISE_BYTES = 10**9


def measure(name: str, seconds: float, batch: int, folder: Path) -> list[dict[str, Any]]:
    """Return one row for the original and for each tool.

    A row has ``tool``, ``nodes``, ``norms``, ``equivalent``, ``ratio`` (difference over noise),
    ``ms`` and ``against_ours`` (ratio of latencies, with its interval), and of the tool itself
    ``fold_seconds`` and ``fold_mb``, of one run.
    """
    source = folder / "original.onnx"
    if name == WIDE:
        write_stack(source, _WIDE_LAYERS, _WIDE_CHANNELS)
        shape: tuple[int, ...] = (batch, _WIDE_CHANNELS, 8, 8)
    else:
        export(_MODULES[name], source)
        shape = (batch, *_MODULES[name].shape)
    paths: dict[str, Path] = {"original": source}
    costs: dict[str, Cost] = {}
    rows: list[dict[str, Any]] = []
    for number, tool in enumerate((*TOOLS, *MORE) if name == SHIFTED else TOOLS, 1):
        target = folder / f"{number}.onnx"
        costs[tool] = run_tool(tool, source, target)
        error = costs[tool].error or _refusal(target, shape)
        if error is None:
            paths[tool] = target
        else:
            rows.append({"network": name, "tool": tool, "error": error})
    speeds = _time(paths, shape, seconds)
    for tool, path in paths.items():
        row = {"network": name, "tool": tool, **_counts(path), **_verdict(source, path, shape)}
        row["ms"] = speeds[tool].latency.median
        if speeds[tool].ratio is not None:
            row["against_ours"] = [speeds[tool].ratio, *speeds[tool].interval]
        if tool in costs:
            row["fold_seconds"] = costs[tool].seconds
            row["fold_mb"] = costs[tool].memory / 10**6
        rows.append(row)
    return rows


def _time(paths: dict[str, Path], shape: tuple[int, ...], seconds: float) -> dict[str, Speed]:
    """Time the results beside ours: all together, or large ones pair by pair."""
    others = [tool for tool in paths if tool != OURS]
    is_large = paths[OURS].stat().st_size > _PAIRWISE_BYTES
    speeds: dict[str, Speed] = {}
    for group in [[tool] for tool in others] if is_large else [others]:
        report = bnfold.bench(
            [paths[OURS], *(paths[tool] for tool in group)],
            inputs={"x": shape},
            seconds=seconds,
            footprint=False,
        )
        speeds |= dict(zip((OURS, *group), report.speeds, strict=True))
    return speeds


def _refusal(path: Path, shape: tuple[int, ...]) -> str | None:
    """Say why a model does not run, or None if it does."""
    try:
        bnfold.bench(path, inputs={"x": shape}, seconds=0.01, footprint=False)
    except BnfoldError as error:
        return error.message.partition(": ")[2]
    return None


def _counts(path: Path) -> dict[str, int]:
    counts = Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)
    return {"nodes": sum(counts.values()), "norms": counts["BatchNormalization"]}


def _verdict(source: Path, path: Path, shape: tuple[int, ...]) -> dict[str, Any]:
    try:
        reports = bnfold.check(source, path, inputs={"x": shape}, samples=2)
    except BnfoldError as error:
        return {"equivalent": None, "ratio": None, "error": error.message}
    worst = max((output.ratio or 0.0 for each in reports for output in each.outputs), default=0.0)
    return {"equivalent": all(each.equivalent for each in reports), "ratio": worst}


def main() -> None:
    """Measure the networks that are named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks; all of them if none is named")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each model and comparison")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--folder", type=Path, help="where models and results are written")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in arguments.names or NAMES:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            found = measure(name, arguments.seconds, arguments.batch, Path(folder))
        rows += found
        for row in found:
            print(json.dumps(row), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
