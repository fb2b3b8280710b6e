"""Small models in a tree of directories, and a simplifier that harms its process on request."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from tests.support import build

GRAPH = """{name} (float[N,3,H,W] x) => (float[N,{channels},H,W] y)
   <float[{channels},3,3,3] w, float[{channels}] scale, float[{channels}] shift,
    float[{channels}] mean, float[{channels}] var> {{
     c = Conv <pads=[1,1,1,1]> (x, w)
     y = BatchNormalization (c, scale, shift, mean, var) }}"""

# Stands for onnxsim, which runs in the process that folds. The name of a graph says what to do.
SIMPLIFIER = """
import os, signal, time
def simplify(model, **_):
    deed = model.graph.name
    if deed == "kills_its_process":
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "kills_its_parent":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    if deed == "hangs":
        time.sleep(600)
    if deed == "has_a_bug":
        raise SystemExit("oops")
    if deed == "tells_its_threads":
        raise ValueError(f"it may use {os.environ['OMP_NUM_THREADS']} threads")
    return model, True
"""


def make_model(
    path: Path, seed: int = 0, *, name: str = "g", external: bool = False, channels: int = 4
) -> Path:
    """Write a convolution with a batch normalization, which folds."""
    weights = np.random.default_rng(seed).normal(size=(channels, 3, 3, 3))
    model = build(GRAPH.format(name=name, channels=channels), {"w": weights})
    path.parent.mkdir(parents=True, exist_ok=True)
    data = f"{path.name}.data" if external else None
    onnx.save(model, path, save_as_external_data=external, location=data, size_threshold=0)
    return path


def make_zoo(root: Path, count: int) -> list[Path]:
    """Write models in several folders; every fifth has external data."""
    return [
        make_model(
            root / f"family {number % 3}" / f"model {number:03d}.onnx",
            number,
            external=number % 5 == 0,
        )
        for number in range(count)
    ]


def files(root: Path, *, records: bool = False) -> set[str]:
    """Return the files beneath a directory, relative to it."""
    found = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    return {str(path) for path in found if records or path.parts[0] != ".bnfold"}


def assert_folded(path: Path) -> None:
    """The model is whole and has no batch normalization."""
    onnx.checker.check_model(str(path), full_check=True)
    assert [node.op_type for node in onnx.load(path).graph.node] == ["Conv"]
