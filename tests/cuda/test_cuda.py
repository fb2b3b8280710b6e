"""What the check promises of CUDA: it ran there, without TF32, or it is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold
from bnfold.errors import ProviderError

pytestmark = pytest.mark.cuda

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
ZOO = ["light_resnet50", "light_shufflenet", "light_inception_v2", "light_densenet121"]
PROVIDER = "CUDAExecutionProvider"


def block(dtype: type[np.generic] = np.float32, *, channels: int = 64) -> onnx.ModelProto:
    """Conv, BN, Relu, Conv, BN with weights of the size that networks have."""
    rng = np.random.default_rng(3)
    tensors, nodes, at = [], [], "x"

    def tensor(name: str, values: np.ndarray) -> str:
        tensors.append(numpy_helper.from_array(values.astype(dtype), name))
        return name

    for layer in range(2):
        weight = rng.normal(size=(channels, channels, 3, 3)) / (3 * channels**0.5)
        inputs = [at, tensor(f"w{layer}", weight)]
        nodes.append(helper.make_node("Conv", inputs, [f"c{layer}"], pads=[1] * 4))
        statistics = {
            "s": rng.normal(1, 0.3, channels),
            "b": rng.normal(size=channels),
            "m": rng.normal(size=channels),
            "v": rng.uniform(0.3, 2, channels),
        }
        inputs = [f"c{layer}"] + [tensor(f"{k}{layer}", v) for k, v in statistics.items()]
        nodes.append(helper.make_node("BatchNormalization", inputs, [f"n{layer}"]))
        nodes.append(helper.make_node("Relu", [f"n{layer}"], [f"r{layer}"]))
        at = f"r{layer}"
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    shape = ["N", channels, "H", "W"]
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(at, kind, shape)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_compute_is_on_the_gpu(tmp_path: Path) -> None:
    report = bnfold.optimize(DIGITS, tmp_path / "folded.onnx", providers=("cuda", "cpu"))
    assert report.equivalent
    on_gpu = [each for each in report.checks if each.provider == PROVIDER]
    assert [each.level for each in on_gpu] == ["disable_all", "default"]
    for each in on_gpu:
        assert each.nodes is not None
        assert each.nodes[PROVIDER] >= sum(each.nodes.values()) / 2


def test_a_compute_node_on_the_cpu_is_listed() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N] x) => (float[M] y) {
            [relu] a = Relu (x)
            [only_cpu] y, i, j, k = Unique (a)
        }
    """)
    with pytest.raises(ProviderError, match=r"not on CUDA.*: Unique 'only_cpu'"):
        bnfold.check(model, model, providers="cuda")


def test_tf32_is_off_for_the_verdict_and_shown_beside_it() -> None:
    model = block()
    for report in bnfold.check(model, bnfold.fold(model), providers="cuda", tf32=True):
        assert report.equivalent
        assert report.tf32 is not None
        (verdict,), (rounded,) = report.outputs, report.tf32
        assert rounded.difference > 10 * verdict.difference


def test_float16() -> None:
    model = block(np.float16)
    folded = bnfold.fold(model)
    assert all(report.equivalent for report in bnfold.check(model, folded, providers="cuda"))
    bias = next(tensor for tensor in folded.graph.initializer if tensor.dims == [64])
    moved = numpy_helper.to_array(bias).copy()
    moved[7] += np.float16(0.25)
    bias.CopyFrom(numpy_helper.from_array(moved, bias.name))
    assert not any(report.equivalent for report in bnfold.check(model, folded, providers="cuda"))


@pytest.mark.parametrize("name", ZOO)
def test_the_folded_zoo_is_equivalent(name: str, tmp_path: Path) -> None:
    report = bnfold.optimize(LIGHT / f"{name}.onnx", tmp_path / "folded.onnx", providers="cuda")
    assert report.folded
    assert report.equivalent
    assert {each.provider for each in report.checks} == {PROVIDER}


def test_devices() -> None:
    report, _ = bnfold.check(DIGITS, DIGITS, providers="cuda:0")
    assert report.provider == f"{PROVIDER}:0"
    with pytest.raises(ProviderError, match="no such device"):
        bnfold.check(DIGITS, DIGITS, providers="cuda:99")


def test_a_gpu_that_is_hidden_is_never_a_pass() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "bnfold", "check", DIGITS, DIGITS, "--provider", "cuda"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 4
    assert "did not start" in run.stderr


def test_what_does_not_fit_is_said() -> None:
    size = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])
    wide = helper.make_node("Tile", ["x", "times"], ["t"])
    total = helper.make_node("ReduceSum", ["t"], ["y"], keepdims=0)
    times = numpy_helper.from_array(np.array([2**40]), "times")
    graph = helper.make_graph(
        [wide, total],
        "wide",
        [size],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
        [times],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ProviderError, match="memory"):
        bnfold.check(model, model, providers="cuda", inputs={"x": [16]})
