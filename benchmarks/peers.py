"""The tools that fold batch normalizations too, each with its defaults.

    python -m benchmarks.peers TOOL SOURCE.onnx TARGET.onnx

One call is one process, so that time and memory are the tool's own, imports included.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MORE", "OURS", "PROGRAM", "TOOLS", "Cost", "run_tool", "versions"]

OURS = "bnfold"
PROGRAM = str(Path(sys.executable).with_name("bnfold"))
"""What is installed, as its users call it: not the source beside this file."""
_LAUNCH = Path(__file__).with_name("launch.py")


def _onnxsim(source: str, target: str) -> None:
    import onnx
    import onnxsim

    simplified, _ = onnxsim.simplify(onnx.load(source))
    onnx.save(simplified, target)


def _onnxslim(source: str, target: str) -> None:
    import onnx
    import onnxslim

    onnx.save(onnxslim.slim(onnx.load(source)), target)


def _onnxoptimizer(source: str, target: str) -> None:
    import onnx
    import onnxoptimizer

    onnx.save(onnxoptimizer.optimize(onnx.load(source)), target)


def _onnxscript(source: str, target: str) -> None:
    import onnx
    import onnxscript.optimizer
    import onnxscript.rewriter

    model = onnxscript.optimizer.optimize(onnx.load(source))
    onnx.save(onnxscript.rewriter.rewrite(model), target)


def _runtime(source: str, target: str) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    # The highest level that does not tie the file to this machine.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = target
    options.log_severity_level = 4
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


# Name -> (what runs it, the package whose version counts).
_PEERS: dict[str, tuple[Callable[[str, str], None], str]] = {
    "onnxsim": (_onnxsim, "onnxsim"),
    "OnnxSlim": (_onnxslim, "onnxslim"),
    "onnxoptimizer": (_onnxoptimizer, "onnxoptimizer"),
    "onnxscript": (_onnxscript, "onnxscript"),
    "ONNX Runtime, offline": (_runtime, "onnxruntime"),
}
TOOLS = (*_PEERS, OURS)
# Where there is something for it to do.
MORE = ("bnfold --ones-channel",)


@dataclass(frozen=True)
class Cost:
    """What one call of a tool cost.

    Attributes:
        seconds: Wall time of the whole process.
        memory: Its largest resident memory, in bytes.
        error: What it said if it failed, or None.
    """

    seconds: float
    memory: int
    error: str | None = None


def run_tool(tool: str, source: Path, target: Path, timeout: float = 600.0) -> Cost:
    """Run a tool in a process of its own."""
    if tool in _PEERS:
        command = [sys.executable, "-m", "benchmarks.peers", tool, str(source), str(target)]
    else:
        options = ["-o", str(target), "--no-check", "--quiet"]
        command = [PROGRAM, "optimize", str(source), *options, *tool.split()[1:]]
    return run_process(command, timeout)


def run_process(command: list[str], timeout: float = 600.0) -> Cost:
    """Run a command, and measure it; after ``timeout`` seconds it is killed."""
    launch = [sys.executable, "-I", "-S", str(_LAUNCH), str(timeout), *command]
    printed = subprocess.run(launch, stdout=subprocess.PIPE, check=True).stdout
    return Cost(**json.loads(printed))


def versions() -> dict[str, str]:
    """Return the versions of the tools that are installed."""
    packages = {tool: package for tool, (_, package) in _PEERS.items()} | {OURS: OURS}
    found = {}
    for tool, package in packages.items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[tool] = importlib.metadata.version(package)
    return found


if __name__ == "__main__":
    name, first, second = sys.argv[1:]
    with contextlib.redirect_stdout(io.StringIO()):
        _PEERS[name][0](first, second)
