"""Latency of folded models against their originals on CUDA.

    python benchmarks/cuda_latency.py [MODEL.onnx ...] [--batch 1 8] [--markdown FILE]

Both models of a pair run in one process, in turns, so that clocks and temperature are the same for
both. Inputs and outputs stay on the GPU (I/O binding), and every run is synchronised before the
clock is read. Medians are of single runs; the ratio is that of the medians, with an interval from a
bootstrap over rounds. Every pair is proved equal on CUDA before it is timed. Without arguments the
models are those that come with the onnx package.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

import bnfold
from bnfold.errors import BnfoldError

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
ZOO = ("light_resnet50", "light_shufflenet", "light_inception_v2", "light_densenet121")
WARM, ROUNDS = 20, 100
PROVIDER = "CUDAExecutionProvider"


class Timed:
    """A session whose inputs and outputs are bound to the GPU."""

    def __init__(self, path: Path, batch: int) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.session = ort.InferenceSession(
            str(path), options, providers=[(PROVIDER, {"use_tf32": "0"}), "CPUExecutionProvider"]
        )
        if self.session.get_providers()[0] != PROVIDER:
            raise SystemExit(f"{path}: CUDA did not start")
        rng = np.random.default_rng(0)
        self.binding = self.session.io_binding()
        for value in self.session.get_inputs():
            shape = [
                d if isinstance(d, int) else (batch if i == 0 else 224)
                for i, d in enumerate(value.shape)
            ]
            array = rng.normal(size=shape).astype(np.float32)
            self.binding.bind_ortvalue_input(
                value.name, ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0)
            )
        for value in self.session.get_outputs():
            self.binding.bind_output(value.name, "cuda")

    def run(self) -> float:
        """Run once; return milliseconds."""
        start = time.perf_counter()
        self.session.run_with_iobinding(self.binding)
        self.binding.synchronize_outputs()
        return (time.perf_counter() - start) * 1e3


def measure(original: Path, folded: Path, batch: int) -> dict[str, Any]:
    """Return medians in milliseconds, and their ratio with its 95 % interval."""
    pair = Timed(original, batch), Timed(folded, batch)
    for _ in range(WARM):
        for each in pair:
            each.run()
    rounds = np.array(
        [
            [each.run() for each in (pair if i % 2 else pair[::-1])][:: 1 if i % 2 else -1]
            for i in range(ROUNDS)
        ]
    )
    rng = np.random.default_rng(1)
    draws = rounds[rng.integers(0, ROUNDS, (2000, ROUNDS))]
    ratios = np.median(draws[..., 0], axis=1) / np.median(draws[..., 1], axis=1)
    before, after = np.median(rounds, axis=0)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return {"before": before, "after": after, "ratio": before / after, "low": low, "high": high}


def main() -> None:
    """Fold, prove and time every model, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--batch", nargs="*", type=int, default=[1])
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    arguments = parser.parse_args()
    lines = [
        "| model | batch | BN before | BN after | original, ms | folded, ms | ratio (95 %) |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in arguments.models or [LIGHT / f"{name}.onnx" for name in ZOO]:
        with tempfile.TemporaryDirectory() as folder:
            folded = Path(folder) / "folded.onnx"
            try:
                report = bnfold.optimize(model, folded, providers="cuda")
            except BnfoldError as error:
                raise SystemExit(f"{error.message}\n{error.hint or ''}") from error
            count = sum(site.kind == "BatchNormalization" for site in report.sites)
            left = sum(site.kind == "BatchNormalization" for site in report.kept)
            for batch in arguments.batch:
                found = measure(model, folded, batch)
                lines.append(
                    f"| {model.stem} | {batch} | {count} | {left} | {found['before']:.3f} | "
                    f"{found['after']:.3f} | {found['ratio']:.2f} "
                    f"({found['low']:.2f} to {found['high']:.2f}) |"
                )
                print(lines[-1], flush=True)
    text = "\n".join([*lines, "", f"ONNX Runtime {ort.__version__}, onnx {onnx.__version__}", ""])
    if arguments.markdown:
        arguments.markdown.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
