"""Correct folds pass and planted bugs fail, whatever the depth and the type."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from check_pairs import layers, model, network, planted, text
from onnx import TensorProto, helper

from bnfold.check import check
from bnfold.check.verdict.noise import rounded_otherwise

FLOAT, HALF, DOUBLE, BFLOAT = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.BFLOAT16,
)

CORRECT = {
    f"{kind}-depth{depth}-{shape}": (dict(depth=depth, seed=depth, **stack), net)
    for kind, stack in {
        "float32": {},
        "float32-residual": {"gain": 0.3},
        "float32-grouped": {"groups": 4},
        "float32-constant": {"constant": True},
        "float16": {"dtype": HALF},
    }.items()
    for depth in (1, 2, 5, 10, 20)
    for shape, net in {
        "full": {"residual": "gain" in stack},
        "pooled": {"residual": "gain" in stack, "pooled": True},
    }.items()
    # Constant float16 weights leave the range of the type after a few layers.
}


@pytest.mark.parametrize("name", CORRECT)
def test_correct_fold_passes(name: str) -> None:
    stack_options, net_options = CORRECT[name]
    stack = layers(**stack_options)
    reports = check(
        network(stack, folded=False, **net_options), network(stack, folded=True, **net_options)
    )
    assert [(r.level, r.equivalent) for r in reports] == [("disable_all", True), ("default", True)]
    for report in reports:
        assert report.provider == "CPUExecutionProvider"
        assert report.warnings == ()
        assert report.feeds >= 7
        for output in report.outputs:
            assert output.difference <= output.allowed


@pytest.mark.parametrize("bug", ["epsilon-dropped", "mean-off", "sign", "groups-swapped"])
@pytest.mark.parametrize("pooled", [False, True], ids=["full", "pooled"])
@pytest.mark.parametrize("depth", [1, 4, 10, 20])
@pytest.mark.parametrize("folded", [False, True], ids=["alone", "in-a-fold"])
def test_planted_bug_fails(bug: str, pooled: bool, depth: int, folded: bool) -> None:
    stack = layers(depth, seed=depth)
    wrong = planted(stack, bug, depth // 2)
    reports = check(
        network(stack, folded=False, pooled=pooled), network(wrong, folded=folded, pooled=pooled)
    )
    assert [report.equivalent for report in reports] == [False, False]
    for report in reports:
        (output,) = report.outputs
        assert output.difference > output.allowed
        assert output.worst_index is not None


@pytest.mark.parametrize("bug", ["sign", "groups-swapped"])
@pytest.mark.parametrize("depth", [1, 5, 10])
def test_planted_bug_fails_in_float16(bug: str, depth: int) -> None:
    stack = layers(depth, seed=depth, dtype=HALF)
    wrong = planted(stack, bug, depth // 2)
    reports = check(network(stack, folded=False), network(wrong, folded=True))
    assert [report.equivalent for report in reports] == [False, False]


@pytest.mark.parametrize("dtype", [DOUBLE, BFLOAT], ids=["float64", "bfloat16"])
@pytest.mark.parametrize("depth", [1, 4])
def test_reference_evaluator_where_the_runtime_has_no_kernel(dtype: int, depth: int) -> None:
    stack = layers(depth, dtype=dtype)
    reference = network(stack, folded=False, size=6)
    (report,) = check(reference, network(stack, folded=True, size=6))
    assert report.equivalent
    assert report.provider == "onnx.reference"
    assert report.level == "disable_all"
    assert len(report.warnings) == 1
    assert "ONNX reference evaluator ran both models" in report.warnings[0]
    wrong = network(planted(stack, "sign", 0), folded=True, size=6)
    assert not check(reference, wrong)[0].equivalent


def test_reference_evaluator_refuses_an_invalid_candidate() -> None:
    reference = text("g (float[N] x) => (float[N] y) { y = Relu(x) }", opset=28, ir=14)
    candidate = onnx.ModelProto()
    candidate.CopyFrom(reference)
    candidate.graph.node[0].attribute.append(helper.make_attribute("no_such_attribute", 1))
    (report,) = check(reference, candidate)
    assert not report.equivalent
    assert "not a valid model" in (report.detail or "")


def bn_before_conv(*, folded: bool) -> onnx.ModelProto:
    """BN -> zero-padded Conv; folding its shift is wrong at the border alone."""
    rng = np.random.default_rng(0)
    gamma, beta, mean = (rng.normal(size=3) for _ in range(3))
    scale = gamma / np.sqrt(1.0 + 1e-5)
    w = rng.normal(size=(4, 3, 3, 3))
    weights = {"w": w}
    if folded:
        nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1] * 4)]
        weights["b"] = np.einsum("mcij,c->m", w, beta - mean * scale)
        weights["w"] = w * scale[:, None, None]
    else:
        nodes = [
            helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["n"]),
            helper.make_node("Conv", ["n", "w"], ["y"], pads=[1] * 4),
        ]
        weights |= {"s": gamma, "b": beta, "m": mean, "v": np.ones(3)}
    return model(
        nodes,
        [helper.make_tensor_value_info("x", FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        {name: value.astype(np.float32) for name, value in weights.items()},
    )


def pair(reference: str, candidate: str, **options: int) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    return text(reference, **options), text(candidate, **options)


X = "g (float[N,4] x) => (float[N,4] y)"
DIFFERENT: dict[str, Callable[[], tuple[onnx.ModelProto, onnx.ModelProto]]] = {
    "border": lambda: (bn_before_conv(folded=False), bn_before_conv(folded=True)),
    "second-row-of-a-batch": lambda: pair(
        f"{X} {{ y = Relu(x) }}",
        f"{X} <int64[1] zero = {{0}}> {{ a = Relu(x)\n r = Gather<axis=0>(a, zero)\n s = Shape(x)\n"
        "y = Expand(r, s) }",
    ),
    "negative-inputs": lambda: pair(
        f"{X} {{ y = LeakyRelu<alpha=0.01>(x) }}", f"{X} {{ y = LeakyRelu<alpha=0.0101>(x) }}"
    ),
    "large-inputs": lambda: pair(
        f"{X} <float m = {{50.0}}> {{ y = Min(x, m) }}",
        f"{X} <float m = {{51.0}}> {{ y = Min(x, m) }}",
    ),
    "nan-in-one-branch": lambda: pair(
        f"{X} {{ a = Abs(x)\n y = Sqrt(a) }}", f"{X} {{ y = Sqrt(x) }}"
    ),
    "infinity": lambda: pair(
        f"{X} {{ a = Relu(x)\n y = Log(a) }}",
        f"{X} <float e = {{1e-30}}> {{ a = Relu(x)\n b = Add(a, e)\n y = Log(b) }}",
    ),
    "shape": lambda: pair(
        "g (float[N,4] x) => (float[A,B] y) { y = Relu(x) }",
        "g (float[N,4] x) => (float[A,B] y) <int64[2] s = {-1, 2}> "
        "{ a = Relu(x)\n y = Reshape(a, s) }",
    ),
    "behind-a-mask": lambda: pair(
        "g (float[N,4] x) => (float[N,8] y) <float[1] m = {-3.4e38}> "
        "{ s = Shape(x)\n e = Expand(m, s)\n y = Concat<axis=1>(x, e) }",
        "g (float[N,4] x) => (float[N,8] y) <float[1] m = {-3.4e38}, float k = {1.001}> "
        "{ s = Shape(x)\n e = Expand(m, s)\n z = Mul(x, k)\n y = Concat<axis=1>(z, e) }",
    ),
    "constant": lambda: pair(
        "g () => (float[2] y) { y = Constant<value = float[2] {1.0, 2.0}>() }",
        "g () => (float[2] y) { y = Constant<value = float[2] {1.0, 2.00001}>() }",
    ),
    "argmax": lambda: pair(
        "g (float[N,9] x) => (int64[N] y) { y = ArgMax<axis=1, keepdims=0>(x) }",
        "g (float[N,9] x) => (int64[N] y) { y = ArgMin<axis=1, keepdims=0>(x) }",
    ),
    "boolean": lambda: pair(
        "g (float[N,9] x) => (bool[N,9] y) <float z = {0.0}> { y = Greater(x, z) }",
        "g (float[N,9] x) => (bool[N,9] y) <float z = {0.1}> { y = Greater(x, z) }",
    ),
    "embedding": lambda: pair(
        "g (int64[N,L] i) => (float[N,L,2] y) <float[3,2] w = {1, 2, 3, 4, 5, 6}> "
        "{ y = Gather(w, i) }",
        "g (int64[N,L] i) => (float[N,L,2] y) <float[3,2] w = {1, 2, 3, 4, 5, 6.0001}> "
        "{ y = Gather(w, i) }",
    ),
    "does-not-run": lambda: pair(
        "g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }",
        "g (float[N,4] x) => (float[N,4] y) <float[3] w = {1, 2, 3}> { y = Mul(x, w) }",
    ),
    "is-not-valid": lambda: pair(f"{X} {{ y = Relu(x) }}", f"{X} {{ y = Relu(nobody) }}"),
    "custom-operator": lambda: (
        text(f"{X} {{ y = Relu(x) }}"),
        onnx.parser.parse_model(
            f'<ir_version: 8, opset_import: ["" : 17, "my" : 1]>\n{X} {{ y = my.Relu(x) }}'
        ),
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_models_fail(name: str) -> None:
    reference, candidate = DIFFERENT[name]()
    assert [r.equivalent for r in check(reference, reference)] == [True, True]
    reports = check(reference, candidate)
    assert [report.equivalent for report in reports] == [False, False]
    assert all(not output.equivalent for report in reports for output in report.outputs)


def test_verdict_does_not_hang_on_the_seed() -> None:
    stack = layers(6, seed=3)
    reference = network(stack, folded=False)
    wrong = network(planted(stack, "epsilon-dropped", 3), folded=True)
    for seed in range(4):
        assert all(r.equivalent for r in check(reference, network(stack, folded=True), seed=seed))
        assert not any(r.equivalent for r in check(reference, wrong, seed=seed))


@pytest.mark.parametrize("seed", range(4))
def test_a_tensor_of_one_number_moves_by_two_units(seed: int) -> None:
    values = np.full((3, 2), 1.5, np.float32)
    moved = rounded_otherwise(values, np.random.default_rng(seed))
    assert np.unique(np.abs(moved - values) / np.spacing(values)).tolist() == [2.0]
