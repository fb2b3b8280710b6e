"""Edges of what holds weights: normalizations, quantized weights, recurrent layers."""

from __future__ import annotations

import pytest

from tests.graph.edge_graphs import ALIKE, P4
from tests.support import assert_fold, assert_same, build, evaluate, feeds_of, fold

UNIT = "float[4] gamma={2,2,2,2}, float[4] beta, float[4] mean, float[4] var={1,1,1,1}"


def normalized(node: str, constants: str, parameters: str = P4) -> str:
    """A normalization c over channels, and a batch normalization y."""
    return f"""g (float[N,4,5] x, float[4] q) => (float[N,4,5] y) <{constants}, {parameters}>
        {{ r = Sigmoid(q)  c = {node}  y = BatchNormalization(c, gamma, beta, mean, var) }}"""


def layer(node: str, constants: str, rest: str = "y = Mul(c, k)") -> str:
    """A layer normalization c, and what follows it."""
    return f"g (double[N,4,5] x) => (double[N,4,5] y) <{constants}> {{ {node}  {rest} }}"


def quantized(
    scale: str, parameters: str, attributes: str = "", weight: str = "9,-20,30,5,6,-7,1,2,3,-4,5,60"
) -> str:
    """A convolution of a quantized weight, and a batch normalization y."""
    return f"""g (float[N,3,5] x) => (float[N,4,5] y)
        <int8[4,3,1] q={{{weight}}}, {scale}, {parameters}>
        {{ w = DequantizeLinear{attributes}(q, s)  c = Conv(x, w)
           y = BatchNormalization<epsilon=0.0>(c, gamma, beta, mean, var) }}"""


def lstm(reads: str, more: str, weight: str = "float[1,8,4] w", inputs: str = "") -> str:
    """A scale m and a shift n of a sequence, and an LSTM."""
    return f"""g (float[5,N,4] x{inputs}) => (float[5,1,N,2] y)
        <{weight}, float[1,8,2] r, float[4] k, float[4] t>
        {{ m = Mul(x, k)  n = Add(m, t)  {more}  y = LSTM<hidden_size=2>({reads}) }}"""


TWOS = "double[5] k={2,2,2,2,2}"

# name: (graph, opset, folded, kept)
CASES: dict[str, tuple[str, int, list[str], dict[str, str]]] = {
    "instance-normalization-of-a-computed-scale": (normalized("InstanceNormalization(x, r, b)", "float[4] b"), 13, [], {"y": "dynamic_weight"}),
    "instance-normalization-of-a-computed-bias": (normalized("InstanceNormalization(x, s, r)", "float[4] s"), 13, [], {"y": "dynamic_weight"}),
    "group-normalization-with-a-scale-per-channel": (normalized("GroupNormalization<num_groups=2>(x, s, b)", "float[4] s, float[4] b"), 21, ["y"], {}),
    "layer-normalization-with-one-bias": (layer("c = LayerNormalization(x, s, b)", f"double[5] s, double[1] b, {TWOS}"), 17, ["y"], {}),
    "layer-normalization-with-one-scale": (layer("c = LayerNormalization(x, s)", f"double[1] s, {TWOS}"), 17, ["y"], {}),
    "layer-normalization-with-one-scale-and-a-shift": (layer("c = LayerNormalization(x, s)", f"double[1] s, {TWOS}, double[5] t", "m = Mul(c, k)  y = Add(m, t)"), 17, ["m"], {}),
    "layer-normalization-whose-scale-is-of-a-lower-rank": (layer("c = LayerNormalization<axis=1>(x, s)", "double[5] s, double[5] k"), 17, [], {"y": "not_per_channel"}),
    "layer-normalization-whose-bias-vanishes": (layer("c = LayerNormalization(x, s, b)", f"double[5] s, double[5] b={{1,1,1,1,1}}, {TWOS}, double[5] t={{-2,-2,-2,-2,-2}}", "m = Mul(c, k)  y = Add(m, t)"), 17, ["m"], {}),
    "layer-normalization-with-its-deviation": ('g (double[N,4,5] x) => (double[N,4,5] y, float[N,4,1] u) <double[5] s, double[5] k> { c, "", u = LayerNormalization(x, s)  y = Mul(c, k) }', 17, [], {"y": "nonlinear"}),
    "quantized-with-a-scale-that-becomes-1": (quantized("float s={0.5}", UNIT), 13, ["y"], {}),
    "quantized-with-a-scale-that-overflows": (quantized("float s={1e37}", UNIT.replace("2,2,2,2", "999,999,999,999")), 13, [], {"y": "dynamic_weight"}),
    "quantized-with-one-scale-that-vanishes": (quantized("float[4] s={1e-30,1,1,1}", UNIT.replace("2,2,2,2", "1e-30,1,1,1"), "<axis=0>"), 13, [], {"y": "dynamic_weight"}),
    "quantized-and-mirrored-to-the-limit": (quantized("float s={0.5}", UNIT.replace("2,2,2,2", "-2,-2,-2,-2"), weight="9,-127,30,5,6,-7,1,2,3,-4,5,60"), 13, ["y"], {}),
    "quantized-and-mirrored-beyond-the-limit": (quantized("float s={0.5}", UNIT.replace("2,2,2,2", "-2,-2,-2,-2"), weight="9,-128,30,5,6,-7,1,2,3,-4,5,60"), 13, [], {"y": "dynamic_weight"}),
    "lstm-behind-of-a-quantized-weight": (lstm("n, w, r", "w = DequantizeLinear(q, s)", "int8[1,8,4] q={1,-2,3,-4,5,-6,7,-8,9,-10,11,-12,13,-14,15,-16,17,-18,19,-20,21,-22,23,-24,25,-26,27,-28,29,-30,31,-32}, float s={0.02}"), 13, ["m"], {}),
    "lstm-behind-with-a-computed-bias": (lstm("n, w, r, b", "b = Sigmoid(q)", inputs=", float[1,16] q"), 13, [], {"m": "dynamic_weight"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_edge(name: str) -> None:
    text, opset, folded, kept = CASES[name]
    assert_fold(build(text, opset=opset), folded=folded, kept=kept, sizes={"N": 3})


@pytest.mark.parametrize(
    ("groups", "parameters", "reasons"),
    [(4, P4, []), (2, ALIKE, []), (2, P4, ["not_per_channel"])],
    ids=["of-one-channel", "channels-alike", "channels-that-differ"],
)
def test_group_normalization_with_a_scale_per_group(
    groups: int, parameters: str, reasons: list[str]
) -> None:
    """As it was before opset 21; the checker says that it is deprecated, runtimes take it."""
    node = f"GroupNormalization<num_groups={groups}>(x, s, b)"
    constants = f"float[{groups}] s, float[{groups}] b"
    model = build(normalized(node, constants, parameters), opset=18)
    result, report = fold(model)
    assert [verdict.reason for verdict in report.kept] == reasons
    feeds = feeds_of(model, {"N": 3})
    assert_same(evaluate(model, feeds), evaluate(result, feeds), 2e-5)


def test_layer_normalization_gets_no_bias_of_zeros() -> None:
    text = layer("c = LayerNormalization(x, s)", "double[5] s, double[5] k")
    result = assert_fold(build(text), folded=["y"], ops=["LayerNormalization"])
    assert len(result.graph.node[0].input) == 2


def test_recurrent_weight_that_is_no_stack_of_matrices() -> None:
    model = build(lstm("n, w, r", "", "float[8,4] w"))
    assert_fold(model, kept={"m": "unknown_shape"}, run=False)


def test_scale_of_a_normalization_is_no_place_for_a_shift() -> None:
    """Float times integer is not legal ONNX: only so is a constant expression a site in front."""
    model = build("""g (float[N,4,5] x) => (float[N,4,5] y)
        <float[4] k, int64[4] c, float[4] beta, float[4] mean, float[4] var>
        { s = Mul(k, c)  y = BatchNormalization(x, s, beta, mean, var) }""")
    _, report = fold(model)
    assert [str(verdict.reason) for verdict in report.sites] == [
        "dynamic_weight",
        "no_linear_neighbour",
    ]
