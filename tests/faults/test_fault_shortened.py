"""A file that becomes shorter while it is mapped: a line and the exit code 2, no crash."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGBUS"), reason="no SIGBUS here")

SHORTEN = """
import os, sys
from importlib import import_module

folder, module, name, victim = sys.argv[1:]
owner = import_module(module)
call = getattr(owner, name)

def shortened(*args, **kwargs):
    os.truncate(victim, 100)
    return call(*args, **kwargs)

setattr(owner, name, shortened)
os.chdir(folder)
import_module("bnfold.cli").main(["optimize", "m.onnx", "-o", "out.onnx", "--no-check"])
"""


def build(folder: Path, *, external: bool) -> Path:
    """A convolution of 4 MB, which a thread folds, and its normalization."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((340, 340, 3, 3), dtype=np.float32)
    tensors = [onnx.numpy_helper.from_array(weight, "w")]
    for name in "sbmv":
        values = rng.uniform(0.5, 2.0, 340).astype(np.float32)
        tensors.append(onnx.numpy_helper.from_array(values, name))
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("BatchNormalization", ["c", *"sbmv"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 340, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "m.onnx"
    onnx.save(model, path, save_as_external_data=external, location="m.data")
    return folder / "m.data" if external else path


@pytest.mark.parametrize("external", [False, True], ids=["inside", "external"])
@pytest.mark.parametrize(
    ("module", "name"),
    [("bnfold.pipeline", "fold_model"), ("bnfold.store.layout", "write_pieces")],
    ids=["before-the-fold", "before-writing"],
)
def test_one_line_and_nothing_written(
    module: str, name: str, external: bool, tmp_path: Path
) -> None:
    victim = build(tmp_path, external=external)
    command = [sys.executable, "-c", SHORTEN, str(tmp_path), module, name, str(victim)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    error, hint = done.stderr.splitlines()
    assert error == f"error: {victim}: another process made it shorter while it was read"
    assert hint == "hint: run again when nobody writes to it"
    assert not (tmp_path / "out.onnx").exists()
