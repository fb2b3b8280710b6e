"""Latency of networks with parallel branches: original, every peer's result, and bnfold's.

    python -m benchmarks.merge_latency [NAME ...] [--rounds 60] [--threads 2] [--markdown FILE]

Each network is built in PyTorch from its paper's structure with random statistics, exported with
its batch normalizations alive, and optimized by every tool that is installed. All results run in
one process at ONNX Runtime's default level, in turns and in an order that changes, so that clocks
and neighbours are the same for all. Medians are of single runs; a ratio is that of two medians,
with an interval from a bootstrap over rounds. Before it is timed, each result is compared with the
original, run without optimization: D is the largest difference divided by the largest value.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import nn

import bnfold
from tests.exporters import reparameterised as nets

OURS = "bnfold"
WARM = 8

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "RepVGG-A0": (nets.NETWORKS["repvgg-a0"].make, (3, 224, 224)),
    "MobileOne-S0": (nets.NETWORKS["mobileone-s0"].make, (3, 224, 224)),
    "ACNet block, 64 channels": (lambda: nets.AsymmetricBlock(64, 64), (64, 56, 56)),
    "DBB block, 64 channels": (lambda: nets.DiverseBranchBlock(64, 64), (64, 56, 56)),
    "YOLO RepConv neck": (lambda: nets.Neck(32), (3, 320, 320)),
    "Conv, ReLU, BN (4 times), 64 channels": (lambda: activated(4, 64), (64, 56, 56)),
}


def activated(depth: int, channels: int) -> nn.Module:
    """Normalizations behind activations, which only a channel of ones brings past the padding."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Conv2d(channels, channels, 3, 1, 1), nn.ReLU(), nn.BatchNorm2d(channels)]
    return nn.Sequential(*layers, nn.Conv2d(channels, channels, 3, 1, 1))


class NothingToCompare(Exception):  # noqa: N818 - not an error
    """The tool has nothing to do here that another one does not."""


@dataclass
class Result:
    """What one tool has made of a network.

    Attributes:
        name: The tool.
        session: Runs it at the default level.
        nodes: Number of nodes of the file.
        norms: Batch normalizations in the file.
        difference: D against the original without optimization.
        times: Milliseconds of each round.
    """

    name: str
    session: ort.InferenceSession
    nodes: int
    norms: int
    difference: float
    times: list[float]


def export(module: nn.Module, sample: torch.Tensor, path: Path) -> None:
    """Export with batch normalizations as they are."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (sample,), str(path), dynamo=False, do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE, input_names=["x"],
        )  # fmt: skip


def by_onnxsim(source: Path, target: Path) -> None:
    """Run onnxsim with its defaults."""
    import onnxsim

    simplified, _ = onnxsim.simplify(onnx.load(source))
    onnx.save(simplified, target)


def by_onnxslim(source: Path, target: Path) -> None:
    """Run OnnxSlim with its defaults."""
    import onnxslim

    onnx.save(onnxslim.slim(onnx.load(source)), target)


def by_runtime(source: Path, target: Path) -> None:
    """ONNX Runtime's own optimizations, saved: all that do not depend on the machine."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def by_onnxscript(source: Path, target: Path) -> None:
    """Run onnxscript's optimizer and its rewrite rules."""
    import onnxscript.optimizer
    import onnxscript.rewriter

    model = onnxscript.optimizer.optimize(onnx.load(source))
    onnx.save(onnxscript.rewriter.rewrite(model), target)


def by_bnfold(source: Path, target: Path) -> None:
    """Fold and merge; what comes out is compared below."""
    bnfold.optimize(source, target, check=False)


def by_ones_channel(source: Path, target: Path) -> None:
    """Fold with a channel of ones, where that folds more."""
    report = bnfold.optimize(source, target, check=False, ones_channel=True)
    if len(report.folded) == len(bnfold.inspect(source).folded):
        raise NothingToCompare


TOOLS: dict[str, Callable[[Path, Path], None]] = {
    "onnxsim": by_onnxsim,
    "OnnxSlim": by_onnxslim,
    "ONNX Runtime, offline": by_runtime,
    "onnxscript": by_onnxscript,
    f"{OURS} --ones-channel": by_ones_channel,
    OURS: by_bnfold,
}


def session(path: Path, threads: int, *, optimized: bool = True) -> ort.InferenceSession:
    """A session on the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def results(name: str, folder: Path, threads: int) -> tuple[list[Result], dict[str, np.ndarray]]:
    """Every tool's result for one network, compared with the original."""
    make, shape = NETWORKS[name]
    module = nets.randomised(make())
    source = folder / "original.onnx"
    sample = torch.randn(1, *shape)
    export(module, sample, source)
    feeds = {"x": sample.numpy()}
    expected = session(source, threads, optimized=False).run(None, feeds)
    found: list[Result] = []
    for tool, run in {"original": None, **TOOLS}.items():
        path = source
        if run is not None:
            path = folder / f"{tool}.onnx"
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    run(source, path)
            except (ImportError, NothingToCompare):
                continue
        opened = session(path, threads)
        outputs = opened.run(None, feeds)
        apart = max(
            float(np.abs(a.astype(np.float64) - b).max() / np.abs(a).max())
            for a, b in zip(expected, outputs, strict=True)
        )
        counts = Counter(node.op_type for node in onnx.load(path).graph.node)
        norms = counts["BatchNormalization"]
        found.append(Result(tool, opened, sum(counts.values()), norms, apart, []))
    return found, feeds


def measure(found: list[Result], feeds: dict[str, np.ndarray], rounds: int) -> None:
    """Run all in turns."""
    rng = np.random.default_rng(0)
    for number in range(WARM + rounds):
        for index in rng.permutation(len(found)):
            start = time.perf_counter()
            found[index].session.run(None, feeds)
            elapsed = (time.perf_counter() - start) * 1e3
            if number >= WARM:
                found[index].times.append(elapsed)


def rows(name: str, found: list[Result]) -> list[str]:
    """One line of the table for each result."""
    ours = np.array(found[-1].times)
    rng = np.random.default_rng(1)
    draws = rng.integers(0, len(ours), (2000, len(ours)))
    lines: list[str] = []
    for each in found:
        times = np.array(each.times)
        ratios = np.median(times[draws], axis=1) / np.median(ours[draws], axis=1)
        low, high = np.quantile(ratios, (0.025, 0.975))
        ratio = np.median(times) / np.median(ours)
        against = "" if each.name == OURS else f"{ratio:.2f} ({low:.2f} to {high:.2f})"
        lines.append(
            f"| {name} | {each.name} | {each.nodes} | {each.norms} | {each.difference:.1e} | "
            f"{np.median(times):.2f} | {against} |"
        )
    return lines


def main() -> None:
    """Build, optimize, compare and time every network, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks; all of them if none is named")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    arguments = parser.parse_args()
    lines = [
        "| network | made by | nodes | BN | D | median, ms | times bnfold (95 %) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in arguments.names or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            found, feeds = results(name, Path(folder), arguments.threads)
            measure(found, feeds, arguments.rounds)
            lines += rows(name, found)
            print("\n".join(lines[-len(found) :]), flush=True)
    versions = f"ONNX Runtime {ort.__version__}, {arguments.threads} threads, batch 1, "
    versions += f"{arguments.rounds} rounds, medians"
    text = "\n".join([*lines, "", versions, ""])
    if arguments.markdown:
        arguments.markdown.write_text(text)


if __name__ == "__main__":
    main()
