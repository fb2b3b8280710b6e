"""The special cases of the design: each must be right, whatever it costs in folds."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.support import assert_fold, assert_same, build, draw, evaluate, feeds_of, fold

CONV_BN = """g (float[N,3,6,5] x) => (float[N,4,4,3] y)
<float[4,3,3,3] w, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
{ c = Conv(x, w)  y = BatchNormalization(c, gamma, beta, mean, var) }"""


def listed(model: onnx.ModelProto) -> onnx.ModelProto:
    """List every initializer as an input, as old exporters did."""
    for tensor in model.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        model.graph.input.append(info)
    return model


def test_ir_3_lists_constants_as_inputs() -> None:
    model = listed(build(CONV_BN, ir=3, opset=8))
    result = assert_fold(model, folded=["y"], ops=["Conv"])
    assert [i.name for i in result.graph.input] == ["x", "w"]
    assert [t.name for t in result.graph.initializer] == ["w"]


def test_overridable_is_kept() -> None:
    assert_fold(listed(build(CONV_BN)), kept={"y": "overridable_initializer"})


def test_overridable_weight_of_a_product() -> None:
    text = """g (float[1,6] x) => (float[6,2] y) <float[1,2] w, float[1,2] k>
    { g = Gemm<transA=1>(x, w)  y = Sub(k, g) }"""
    model = listed(build(text))
    del model.graph.input[2]  # k is constant
    _, report = fold(model)
    assert [str(verdict.reason) for verdict in report.sites] == ["overridable_initializer"]


def test_a_product_that_takes_the_scale_alone_is_named() -> None:
    """The addition behind it takes the shift."""
    text = """g (float[2,1,3,2] x) => (float[2,1,3,2] y)
    <float[1] gamma, float[1] beta, float[1] mean, float[1] var, float[2,2] w, float[1,1,1,2] b>
    { n = BatchNormalization(x, gamma, beta, mean, var)  m = MatMul(n, w)  y = Add(b, m) }"""
    assert_fold(build(text), folded=["n"], ops=["MatMul", "Add"])
    _, report = fold(build(text))
    assert report.sites[0].into == ("m", "y")


def test_unknown_ranks_in_a_function_that_nothing_calls() -> None:
    text = """<ir_version: 8, opset_import: ["" : 15, "local" : 1]>
    g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }
    <domain: "local", opset_import: ["" : 15]>
    block (a, b) => (n) { m = Mul(a, b)  n = Neg(m) }"""
    assert_fold(build(text))


def test_overridable_can_be_frozen() -> None:
    model = listed(build(CONV_BN))
    result, report = fold(model, freeze_initializers=True)
    assert [i.name for i in result.graph.input] == ["x"]
    assert [v.name for v in report.folded] == ["y"]
    onnx.checker.check_model(result, full_check=True)
    feeds = feeds_of(model, {"N": 2})
    assert_same(evaluate(model, feeds), evaluate(result, feeds), 2e-5)


def test_overridable_hint() -> None:
    _, report = fold(listed(build(CONV_BN)))
    assert "--freeze-initializers" in report.hints[0]


@pytest.mark.parametrize("attributes", [{"spatial": 0}, {"is_test": 0}, {}], ids=str)
@pytest.mark.parametrize("opset", [6, 7, 8])
def test_old_batchnorm(opset: int, attributes: dict[str, int]) -> None:
    model = build(CONV_BN, ir=3, opset=opset)
    node = model.graph.node[1]
    for name, value in attributes.items():
        if opset == 6 or name == "spatial":
            node.attribute.append(helper.make_attribute(name, value))
    if opset == 6 and "is_test" not in attributes and attributes:
        node.attribute.append(helper.make_attribute("is_test", 1))
    _, report = fold(listed(model))
    expected = "folded"
    if opset == 6 and "spatial" not in attributes:
        expected = "training_mode"
    elif attributes.get("spatial") == 0:
        expected = "not_per_channel"
    (verdict,) = report.sites
    assert (verdict.reason or "folded") == expected


def test_training_outputs_of_old_opset() -> None:
    model = build(CONV_BN, opset=9)
    model.graph.node[1].output.extend(["m", "v", "sm", "sv"])
    _, report = fold(model)
    assert report.sites[0].reason == "training_mode"


def test_epsilon_zero_counts() -> None:
    model = build(CONV_BN, {"var": [1e-5] * 4})
    model.graph.node[1].attribute.append(helper.make_attribute("epsilon", 0.0))
    assert_fold(model, folded=["y"])


@pytest.mark.parametrize("var", [-1.0, np.nan, np.inf, 0.0])
def test_bad_variance(var: float) -> None:
    model = build(CONV_BN, {"var": [1.0, 1.0, var, 1.0]})
    model.graph.node[1].attribute.append(helper.make_attribute("epsilon", 0.0))
    if np.isinf(var):
        assert_fold(model, folded=["y"])
    else:
        assert_fold(model, kept={"y": "non_finite_statistics"}, run=False)


def test_familiar_name_in_another_domain() -> None:
    model = build(CONV_BN)
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    _, report = fold(model)
    assert report.sites[0].reason == "custom_domain"


def test_conv_of_another_domain() -> None:
    model = build(CONV_BN)
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    _, report = fold(model)
    assert report.sites[0].reason == "custom_domain"


def test_newer_opset_than_known() -> None:
    model = build(CONV_BN, opset=onnx.defs.onnx_opset_version() + 1)
    _, report = fold(model)
    assert report.sites[0].reason == "unsupported_opset"


def test_names_that_collide_with_ours() -> None:
    model = build(CONV_BN)
    for name in ("c_bias", "w_folded"):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), name))
    model.graph.node[0].name = "c"
    result = assert_fold(model, folded=["y"])
    assert result.graph.node[0].name == "c"
    assert result.graph.node[0].input[2] not in ("c_bias", "w_folded")


def test_keep_glob() -> None:
    assert_fold(build(CONV_BN), kept={"y": "excluded"}, keep=("y*",))


def test_shared_weight_with_two_norms() -> None:
    text = """g (float[N,3,6,5] x) => (float[N,4,4,3] y, float[N,4,4,3] z)
    <float[4,3,3,3] w, float[4] g1, float[4] b1, float[4] m1, float[4] var1,
     float[4] g2, float[4] b2, float[4] m2, float[4] var2>
    { c = Conv(x, w)  d = Conv(x, w)  y = BatchNormalization(c, g1, b1, m1, var1)
      z = BatchNormalization(d, g2, b2, m2, var2) }"""
    result = assert_fold(build(text), folded=["y", "z"], ops=["Conv", "Conv"])
    assert {t.name for t in result.graph.initializer} >= {"w", "w_folded"}


def test_shared_weight_and_norm_are_copied_once() -> None:
    text = """g (float[N,3,6,5] x, float[N,3,6,5] v) => (float[N,4,4,3] y, float[N,4,4,3] z, float[N,4,4,3] u)
    <float[4,3,3,3] w, float[4] b, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
    { c = Conv(x, w, b)  d = Conv(v, w, b)  u = Conv(v, w, b)
      y = BatchNormalization(c, gamma, beta, mean, var)
      z = BatchNormalization(d, gamma, beta, mean, var) }"""
    result = assert_fold(build(text), folded=["y", "z"], ops=["Conv", "Conv", "Conv"])
    assert [t.name for t in result.graph.initializer] == ["w", "b", "w_folded", "b_folded"]


def test_captured_by_a_subgraph() -> None:
    text = """g (float[N,3,6,5] x, bool b) => (float[N,4,4,3] y, float[N,4,4,3] z)
    <float[4,3,3,3] w, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
    { c = Conv(x, w)  y = BatchNormalization(c, gamma, beta, mean, var)
      z = If(b) <then_branch = t () => (float[N,4,4,3] u) { u = Relu(c) },
                 else_branch = e () => (float[N,4,4,3] v) { v = Neg(c) }> }"""
    assert_fold(build(text), kept={"y": "captured"})


def test_inside_branches_with_outer_weights() -> None:
    text = """g (float[N,3,6,5] x, bool b) => (float[N,4,4,3] z)
    <float[4,3,3,3] w, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
    { z = If(b) <
        then_branch = t () => (float[N,4,4,3] u)
          { c = Conv(x, w)  d = BatchNormalization(c, gamma, beta, mean, var)  u = Relu(d) },
        else_branch = e () => (float[N,4,4,3] v)
          { f = Conv(x, w)  v = BatchNormalization<epsilon=0.5>(f, gamma, beta, mean, var) }> }"""
    model = build(text)
    result = assert_fold(model, folded=["d", "v"])
    branches = [a.g for a in result.graph.node[0].attribute]
    assert [[n.op_type for n in g.node] for g in branches] == [["Conv", "Relu"], ["Conv"]]


def test_loop_body() -> None:
    text = """g (float[1,4,6,5] x) => (float[1,4,6,5] z) <int64 trips = {3}, bool go = {1},
      float[4,4,3,3] w, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
    { z = Loop(trips, go, x) <body = body (int64 i, bool cond, float[1,4,6,5] s)
        => (bool again, float[1,4,6,5] u)
        { again = Identity(cond)  c = Conv<pads=[1,1,1,1]>(s, w)
          d = BatchNormalization(c, gamma, beta, mean, var)  u = Tanh(d) }> }"""
    result = assert_fold(build(text), folded=["d"])
    assert [n.op_type for n in result.graph.node[0].attribute[0].g.node] == [
        "Identity",
        "Conv",
        "Tanh",
    ]


def test_function_with_its_own_constants() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    g (float[N,1,4,4] x) => (float[N,1,4,4] z) { y = local.block(x)  z = local.block(y) }
    <domain: "local", opset_import: ["" : 17]> block (a) => (b) {
      w = Constant<value = float[1,1,1,1] {2.0}>()
      s = Constant<value = float[1] {3.0}>()
      o = Constant<value = float[1] {0.5}>()
      c = Conv(a, w)
      b = BatchNormalization(c, s, o, o, s)
    }""")
    result, report = fold(model)
    assert [v.name for v in report.folded] == ["b"]
    assert report.sites[0].graph == "function local::block"
    onnx.checker.check_model(result, full_check=True)
    feeds = {"x": draw("x", (2, 1, 4, 4)).astype(np.float32)}
    assert_same(evaluate(model, feeds), evaluate(result, feeds), 2e-6)


CALLED_TWICE = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
g (float[N,3,6,6] x) => (float[N,3,2,2] z)
<float[3,3,3,3] w, float[3] g1, float[3] b1, float[3] m1, float[3] var1,
 float[3,3,3,3] v, float[3] g2, float[3] b2, float[3] m2, float[3] var2>
{ y = local.block(x, w, g1, b1, m1, var1)  z = local.outer(y, v, g2, b2, m2, var2) }
<domain: "local", opset_import: ["" : 17]> block (a, w, g, o, m, v) => (b) {
  c = Conv(a, w)  b = BatchNormalization(c, g, o, m, v) }
<domain: "local", opset_import: ["" : 17, "local" : 1]> outer (a, w, g, o, m, v) => (b) {
  c = local.block(a, w, g, o, m, v)  b = Relu(c) }"""


def test_function_called_with_different_weights_is_specialised() -> None:
    model = build(CALLED_TWICE)
    norms = [v.name for v in fold(model)[1].sites if v.kind == "BatchNormalization"]
    result = assert_fold(model, folded=norms, ops=["Conv", "Conv", "Relu"])
    assert not result.functions


def test_function_that_cannot_be_folded_stays_a_function() -> None:
    model = build(CALLED_TWICE.replace("c = Conv(a, w)", "c = Sigmoid(a)"))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    result, report = fold(model)
    assert result == model
    assert [v.reason for v in report.kept] == ["dynamic_weight"]


HALF = CONV_BN.replace("float", "float16")


def test_float16() -> None:
    assert_fold(build(HALF), folded=["y"], ops=["Conv"])


def test_float16_with_float32_statistics() -> None:
    text = HALF.replace("float16[4] mean, float16[4] var", "float[4] mean, float[4] var")
    assert_fold(build(text), folded=["y"], ops=["Conv"], run=False)


def test_float16_overflow() -> None:
    assert_fold(
        build(HALF, {"gamma": [1, 1, 60000, 1], "var": [1e-4] * 4}),
        kept={"y": "overflow"},
        run=False,
    )


def test_float16_underflow() -> None:
    assert_fold(build(HALF, {"gamma": [1e-6] * 4, "var": [1] * 4}), kept={"y": "overflow"})


def test_float16_dead_channel_is_no_obstacle() -> None:
    assert_fold(build(HALF, {"gamma": [1, 1, 1e-6, 1], "var": [1] * 4}), folded=["y"])


def test_bfloat16_rounds_once() -> None:
    text = CONV_BN.replace("float", "bfloat16")
    result, report = fold(build(text, opset=22))
    assert [v.name for v in report.folded] == ["y"]
    values = {
        t.name: numpy_helper.to_array(t).astype(np.float64) for t in build(text).graph.initializer
    }
    s = values["gamma"] / np.sqrt(values["var"] + float(np.float32(1e-5)))
    exact = values["w"] * s[:, None, None, None]
    found = numpy_helper.to_array(result.graph.initializer[0]).astype(np.float64)
    half_ulp = np.abs(exact) * 2.0**-8
    assert (np.abs(found - exact) <= half_ulp).all()


@pytest.mark.parametrize("kind", ["float", "double", "float16"])
def test_weights_are_rounded_once(kind: str) -> None:
    model = build(CONV_BN.replace("float", kind))
    result, _ = fold(model)
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    exact = {name: array.astype(np.float64) for name, array in values.items()}
    s = exact["gamma"] / np.sqrt(exact["var"] + float(np.float32(1e-5)))
    found = {t.name: numpy_helper.to_array(t) for t in result.graph.initializer}
    dtype = values["w"].dtype
    np.testing.assert_array_equal(found["w"], (exact["w"] * s[:, None, None, None]).astype(dtype))
    bias = found[result.graph.node[0].input[2]]
    np.testing.assert_array_equal(bias, ((0 - exact["mean"]) * s + exact["beta"]).astype(dtype))


QDQ = """g (float[N,3,6,5] x) => (float[N,4,4,3] y)
<int8[4,3,3,3] wq, float{shape} q, int8{shape} z, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
{{ w = DequantizeLinear<axis=0>(wq, q, z)  c = Conv(x, w)
   y = BatchNormalization(c, gamma, beta, mean, var) }}"""


@pytest.mark.parametrize("shape", ["", "[4]"])
@pytest.mark.parametrize("zero", [0, 3])
def test_quantized_weight(shape: str, zero: int) -> None:
    values = {
        "wq": (draw("wq", (4, 3, 3, 3)) * 30).clip(-100, 100).round(),
        "q": 0.02 if shape == "" else [0.01, 0.02, 0.03, 0.04],
        "z": zero if shape == "" else [zero] * 4,
        "gamma": [1.0, -2.0, 3.0, 0.5],
    }
    model = build(QDQ.format(shape=shape), values)
    result = assert_fold(model, folded=["y"], ops=["DequantizeLinear", "Conv"])
    before, after = (
        next(numpy_helper.to_array(t) for t in m.graph.initializer if t.name == "wq")
        for m in (model, result)
    )
    np.testing.assert_array_equal(before[[0, 2, 3]], after[[0, 2, 3]])
    np.testing.assert_array_equal(2 * zero - before[1], after[1])


def test_quantized_weight_that_cannot_be_mirrored() -> None:
    values = {"wq": np.full((4, 3, 3, 3), -128), "q": 0.02, "z": 0, "gamma": [1, -1, 1, 1]}
    assert_fold(build(QDQ.format(shape=""), values), kept={"y": "dynamic_weight"})


def test_quantized_bias_becomes_a_float_bias() -> None:
    text = """g (float[N,3,6,5] x) => (float[N,4,4,3] y)
    <uint8[4,3,3,3] wq, float[4] q = {0.01,0.02,0.03,0.04}, uint8[4] z = {100,120,128,90}, int32[4] bq = {100,-20,3,7}, float bs = {0.01}, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
    { w = DequantizeLinear<axis=0>(wq, q, z)  b = DequantizeLinear(bq, bs)  c = Conv(x, w, b)
      y = BatchNormalization(c, gamma, beta, mean, var) }"""
    values = {
        "wq": (draw("wq", (4, 3, 3, 3)) * 30 + 110).clip(60, 180).round(),
        "gamma": [1, -2, 3, -0.5],
    }
    assert_fold(build(text, values), folded=["y"], ops=["DequantizeLinear", "Conv"])


@pytest.mark.parametrize("axis", [0, 1])
def test_quantized_weight_forward(axis: int) -> None:
    shape = [5, 4][axis]
    text = f"""g (float[N,4] x) => (float[N,5] y)
    <int8[5,4] wq, float[{shape}] q, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
    {{ w = DequantizeLinear<axis={axis}>(wq, q)  n = BatchNormalization(x, gamma, beta, mean, var)
       y = Gemm<transB=1>(n, w) }}"""
    values = {"wq": (draw("wq", (5, 4)) * 30).round(), "q": [0.01, 0.02, 0.03, 0.04, 0.05][:shape]}
    if axis == 1:
        assert_fold(build(text, values), folded=["n"], ops=["DequantizeLinear", "Gemm"])
    else:
        assert_fold(build(text, values), kept={"n": "dynamic_weight"})


def test_quantized_activation_is_a_barrier() -> None:
    text = """g (float[N,3,6,5] x) => (float[N,4,4,3] y)
    <float[4,3,3,3] w, float q = {0.1}, int8 z = {0}, float[4] gamma, float[4] beta, float[4] mean, float[4] var>
    { c = Conv(x, w)  i = QuantizeLinear(c, q, z)  d = DequantizeLinear(i, q, z)
      y = BatchNormalization(d, gamma, beta, mean, var) }"""
    result = build(text)
    _, report = fold(result)
    assert report.sites[0].reason == "nonlinear"
    assert "DequantizeLinear" in str(report.sites[0].detail)


def test_unknown_input_rank() -> None:
    model = build(CONV_BN)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    result, report = fold(model)
    assert [v.name for v in report.folded] == ["y"]
    assert [n.op_type for n in result.graph.node] == ["Conv"]


def test_value_info_stays_true() -> None:
    text = """g (float[N,3,6,5] x) => (float[N,16,3] y)
    <float[4,3,3,3] w, float[4,3] unused, float[4] gamma, float[4] beta, float[4] mean, float[4] var, int64[3] s = {0,4,12}, int64[3] e = {0,16,3},
     float[N,4,4,3] c, float[N,4,12] r, float[N,4,12] n>
    { c = Conv(x, w)  r = Reshape(c, s)  n = BatchNormalization(r, gamma, beta, mean, var)  t = Relu(n) y = Reshape(t, e) }"""
    result = assert_fold(build(text), folded=["n"], ops=["Conv", "Reshape", "Relu", "Reshape"])
    names = {name for node in result.graph.node for name in node.output}
    assert {info.name for info in result.graph.value_info} <= names
    assert "c" not in names
    assert "n" in names


def test_metadata_and_order_survive() -> None:
    model = build(CONV_BN)
    model.producer_name = "somebody"
    model.metadata_props.add(key="k", value="v")
    model.graph.doc_string = "docs"
    model.graph.node[0].doc_string = "conv"
    result = assert_fold(model, folded=["y"])
    assert (result.producer_name, result.graph.doc_string) == ("somebody", "docs")
    assert result.graph.node[0].doc_string == "conv"
    assert result.metadata_props[0].key == "k"
    assert result.ir_version == model.ir_version


def test_training_info_keeps_its_tensors() -> None:
    model = build(CONV_BN)
    info = model.training_info.add()
    info.algorithm.name = "step"
    info.algorithm.node.append(helper.make_node("Identity", ["w"], ["w_new"]))
    info.update_binding.add(key="w", value="w_new")
    result, _ = fold(model)
    before, after = (
        next(t for t in m.graph.initializer if t.name == "w").SerializeToString()
        for m in (model, result)
    )
    assert before == after
    assert result.training_info[0] == model.training_info[0]


def test_zero_size_dimensions() -> None:
    text = CONV_BN.replace("float[4,3,3,3] w", "float[4,0,3,3] w").replace("[N,3,6,5]", "[N,0,6,5]")
    assert_fold(build(text), folded=["y"], run=False)
