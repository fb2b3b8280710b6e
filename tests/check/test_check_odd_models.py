"""Models that a check has to take as they are: each is equal to itself, and runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from check_pairs import layers, model, network, text
from onnx import TensorProto, helper, numpy_helper

from bnfold.check import check
from bnfold.check.models.model import open_model
from bnfold.check.runtimes.sessions import OrtRunner, ReferenceRunner
from bnfold.errors import InputError, ModelError
from bnfold.report import CheckReport

X = "g (float[N,4] x) => (float[N,4] y)"

ODD = {
    "zeros": text(f"{X} <float z = {{0.0}}> {{ y = Mul(x, z) }}"),
    "no-inputs": text("g () => (float[2] y) { y = Constant<value = float[2] {1.0, 2.0}>() }"),
    "nan": text(f"{X} {{ y = Log(x) }}"),
    "infinity": text(f"{X} {{ a = Relu(x)\n y = Log(a) }}"),
    "overflow": text(f"{X} {{ y = Exp(x) }}"),
    "float16-overflow": text(
        "g (float16[N,4] x) => (float16[N,4] y) { a = Mul(x, x)\n b = Mul(a, a)\n y = Mul(b, b) }"
    ),
    "no-elements": text("g (float[N,0] x) => (float[N,0] y) { y = Relu(x) }"),
    "scalar": text("g (float x) => (float y) { y = Relu(x) }"),
    "if": text(
        "g (float[N,3] x, bool c) => (float[N,3] y) { y = If(c) <"
        "then_branch = t () => (float[N,3] a) { a = Relu(x) },"
        "else_branch = e () => (float[N,3] b) { b = Neg(x) }> }"
    ),
    "loop": text(
        "g (int64 n, float[3] x) => (float[3] y) <bool c = {1}> { y = Loop(n, c, x) <body = b "
        "(int64 i, bool ci, float[3] v) => (bool co, float[3] w) "
        "{ co = Identity(ci)\n w = Add(v, v) }> }"
    ),
    "sequence": text("g (float[N,4] x) => (seq(float[N,2]) y) { y = SplitToSequence<axis=1>(x) }"),
    "integers": text("g (float[N,999] x) => (int64[N] y) { y = ArgMax<axis=1, keepdims=0>(x) }"),
    "strings": text("g (string[N] x) => (string[N] y) { y = Identity(x) }"),
    "booleans": text("g (bool[N,4] x) => (bool[N,4] y) { y = Not(x) }"),
    "pixels": text("g (uint8[N,3,8,8] x) => (float[N,3,8,8] y) { y = Cast<to=1>(x) }"),
    "sizes-as-input": text(
        'g (float[N,3,H,W] x, float[4] s) => (float[A,B,C,D] y) { y = Resize<mode="nearest">(x,,s)}'
    ),
    "count-as-input": text(
        "g (float[N,12] x, int64[1] k) => (float[A,B] v, int64[A,B] i) { v, i = TopK(x, k) }"
    ),
    "sequence-as-input": text(
        "g (seq(float[N,4]) x) => (float[N,4] y) <int64 i = {0}> { y = SequenceAt(x, i) }"
    ),
    "optional-as-input": text(
        "g (optional(float[N,4]) x) => (bool y) { y = OptionalHasElement(x) }", opset=18
    ),
    "shape-as-input": text("g (float[N,12] x, int64[2] s) => (float[A,B] y) { y = Reshape(x, s) }"),
    "bfloat16-as-input": text(
        "g (bfloat16[N,4] x) => (float[N,4] y, bfloat16[N,4] z) "
        "{ y = Cast<to=1>(x)\n z = Identity(x) }"
    ),
    "one-size-only": text(
        "g (float[N,3,H,W] x) => (float[A,B] y) <int64[4] s = {-1, 3, 224, 224}> "
        "{ a = Reshape(x, s)\n y = Flatten(a) }"
    ),
    "one-symbol-in-two-inputs": text(
        "g (float[B,S] x, int64[B,S] i) => (float[B,S] y) { j = Cast<to=1>(i)\n y = Add(x, j) }"
    ),
    "quantized": text(
        "g (float[N,300] x) => (float[N,300] y) <float s = {0.05}, uint8 z = {128}> "
        "{ q = QuantizeLinear(x, s, z)\n y = DequantizeLinear(q, s, z) }"
    ),
    "newest-opset": text("g (float[N] x) => (float[N] y) { y = Relu(x) }", opset=28, ir=14),
    "oldest-opset": text("g (float[N] x) => (float[N] y) { y = Relu(x) }", opset=6, ir=3),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_model_equals_itself(name: str) -> None:
    for report in check(ODD[name], ODD[name]):
        assert report.equivalent
        assert report.feeds >= 1
        assert report.detail is None
        assert CheckReport.to_dict(report)["outputs"][0]["equivalent"] is True


def test_random_output_is_called_unstable() -> None:
    noisy = text(f"{X} {{ r = RandomNormalLike(x)\n y = Add(x, r) }}")
    for report in check(noisy, noisy):
        assert report.equivalent
        assert "unstable" in (report.outputs[0].detail or "")


def test_flips_that_noise_makes_too_are_no_error() -> None:
    ties = text(
        "g (float[N,2000] x) => (int64[N,2000] y) <float one = {1.0}, float big = {3e6}> "
        "{ a = Mul(x, big)\n b = Round(a)\n y = Cast<to=7>(b) }"
    )
    other = text(
        "g (float[N,2000] x) => (int64[N,2000] y) <float one = {1.0}, float big = {3e6}> "
        "{ t = Add(one, one)\n h = Div(big, t)\n s = Mul(x, h)\n a = Add(s, s)\n "
        "u = Sub(one, one)\n v = Add(a, u)\n b = Round(v)\n y = Cast<to=7>(b) }"
    )
    wrong = text(
        "g (float[N,2000] x) => (int64[N,2000] y) <float big = {3.1e6}> "
        "{ a = Mul(x, big)\n b = Round(a)\n y = Cast<to=7>(b) }"
    )
    for report in check(ties, other):
        assert report.equivalent
        assert "noise alone flips" in (report.outputs[0].detail or "")
    assert not any(report.equivalent for report in check(ties, wrong))


def test_probabilities_by_label() -> None:
    node = helper.make_node(
        "ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[3, 1, 2]
    )
    output = helper.make_value_info(
        "y",
        helper.make_sequence_type_proto(
            helper.make_map_type_proto(
                TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
            )
        ),
    )

    def zipped(factor: float) -> onnx.ModelProto:
        scaled = helper.make_node("Mul", ["a", "f"], ["x"])
        graph = helper.make_graph(
            [scaled, node],
            "g",
            [helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N", 3])],
            [output],
            [numpy_helper.from_array(np.float32(factor), "f")],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    assert all(report.equivalent for report in check(zipped(1.0), zipped(1.0)))
    assert not any(report.equivalent for report in check(zipped(1.0), zipped(1.001)))


def test_unknown_rank_and_channels_come_from_the_weights() -> None:
    reference = network(layers(2), folded=False)
    for proto in (reference, candidate := network(layers(2), folded=True)):
        proto.graph.input[0].type.tensor_type.ClearField("shape")
    assert all(report.equivalent for report in check(reference, candidate))


def test_initializers_are_not_fed() -> None:
    """IR 3 lists all of them as inputs; later versions list those that a caller may replace."""
    reference, candidate = (network(layers(2), folded=folded) for folded in (False, True))
    for proto in (reference, candidate):
        for tensor in proto.graph.initializer:
            info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            proto.graph.input.append(info)
    assert all(report.equivalent for report in check(reference, candidate))


def test_weights_that_are_computed_or_constants_nodes() -> None:
    graph = (
        "g (int64[N] i) => (float[N,8] y) <int64[2] s = {{5, 8}}> "
        "{{ w = ConstantOfShape<value = float[1] {{{0}}}>(s)\n "
        "b = Constant<value = float[8] {{1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, {1}}}>()\n "
        "e = Gather(w, i)\n y = Add(e, b) }}"
    )
    reference = text(graph.format(0.3, 8.0))
    assert all(r.equivalent for r in check(reference, text(graph.format(0.30000003, 8.0))))
    assert not any(r.equivalent for r in check(reference, text(graph.format(0.301, 8.0))))
    assert not any(r.equivalent for r in check(reference, text(graph.format(0.3, 8.001))))


def test_external_data(tmp_path: Path) -> None:
    paths = []
    for name in ("reference", "candidate"):
        proto = network(layers(3), folded=name == "candidate")
        folder = tmp_path / name
        folder.mkdir()
        onnx.save(
            proto,
            folder / "model.onnx",
            save_as_external_data=True,
            location="weights",
            size_threshold=0,
        )
        paths.append(folder / "model.onnx")
    assert all(report.equivalent for report in check(*paths))
    (paths[0].parent / "weights").unlink()
    with pytest.raises(ModelError, match="weights"):
        check(*paths)


UNUSABLE = {
    "no-size-runs": (
        text(
            "g (float[N,12] x, int64[2] s) => (float[A,B] y) <int64[2] c = {100, 103}> "
            "{ z = Add(s, c)\n y = Reshape(x, z) }"
        ),
        "the reference runs on no values that were tried for 'x', 's'",
        "--data",
    ),
    "too-large": (
        text("g (float[99999,99999] x) => (float[A,B] y) { y = Relu(x) }"),
        "they are too large",
        "--input",
    ),
    "custom-operator": (
        onnx.parser.parse_model(
            f'<ir_version: 8, opset_import: ["" : 17, "my" : 1]>\n{X} {{ y = my.Foo(x) }}'
        ),
        "the original itself does not run on CPUExecutionProvider: Fatal error: my:Foo",
        "--no-check",
    ),
    "not-valid": (
        text(f"{X} {{ y = Relu(nobody) }}"),
        "the original itself does not run: Invalid model. Node input 'nobody'",
        "--no-check",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_reference_that_cannot_be_checked(name: str) -> None:
    reference, message, hint = UNUSABLE[name]
    with pytest.raises(InputError) as caught:
        check(reference, reference)
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert hint in (caught.value.hint or "")


INTERFACES = {
    "output-added": (
        "g (float[N] x) => (float[N] y, float[N] z) { y = Relu(x)\n z = Neg(x) }",
        "the outputs differ: the candidate has 'z' in addition",
    ),
    "output-renamed": (
        "g (float[N] x) => (float[N] z) { z = Relu(x) }",
        "the outputs differ: the candidate lacks 'y' and has 'z' in addition",
    ),
    "input-renamed": (
        "g (float[N] q) => (float[N] y) { y = Relu(q) }",
        "the inputs differ: the candidate lacks 'x' and has 'q' in addition",
    ),
    "input-type": (
        "g (float16[N] x) => (float[N] y) { z = Cast<to=1>(x)\n y = Relu(z) }",
        "the inputs differ: 'x' is float in the reference and float16 in the candidate",
    ),
}


@pytest.mark.parametrize("name", INTERFACES)
def test_other_interface(name: str) -> None:
    candidate, why = INTERFACES[name]
    reference = text("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    reports = check(reference, text(candidate))
    assert [(r.level, r.equivalent, r.detail) for r in reports] == [
        ("disable_all", False, why),
        ("default", False, why),
    ]
    assert reports[0].outputs[0].name == "y"


def test_order_of_outputs() -> None:
    graph = "g (float[N] x) => (float[N] {0}, float[N] {1}) {{ y = Relu(x)\n z = Neg(x) }}"
    reports = check(text(graph.format("y", "z")), text(graph.format("z", "y")))
    assert reports[0].detail == "the outputs differ in order: 'y', 'z' became 'z', 'y'"


@pytest.mark.parametrize("place", ["graph", "function", "branch"])
@pytest.mark.parametrize("opset", [7, 9, 14, 17])
def test_batch_normalization_of_the_evaluator_is_that_of_the_runtime(
    opset: int, place: str
) -> None:
    rng = np.random.default_rng(0)
    names = ["s", "b", "m", "v"]
    weights = {name: rng.uniform(0.5, 2, 3).astype(np.float32) for name in names}
    node = helper.make_node("BatchNormalization", ["x", *names], ["y"], momentum=0.5)
    proto = model(
        [node],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, 4])],
        weights,
        opset=opset,
    )
    if place == "function":
        inputs = ["x", *names]
        opsets = [helper.make_opsetid("", opset)]
        proto.functions.append(helper.make_function("own", "F", inputs, ["y"], [node], opsets))
        proto.opset_import.append(helper.make_opsetid("own", 1))
        proto.graph.node[0].CopyFrom(helper.make_node("F", inputs, ["y"], domain="own"))
    elif place == "branch":
        end = [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
        node.output[0] = "z"
        branch = helper.make_graph([node], "branch", [], end)
        choice = helper.make_node("If", ["always"], ["y"], then_branch=branch, else_branch=branch)
        proto.graph.node[0].CopyFrom(choice)
        always = onnx.numpy_helper.from_array(np.array(True), "always")
        proto.graph.initializer.append(always)
    opened = open_model(proto, "reference")
    feed = {"x": rng.normal(size=(2, 3, 4)).astype(np.float32)}
    (ours,) = ReferenceRunner(opened).run(feed)
    (theirs,) = OrtRunner(opened, "CPUExecutionProvider", "disable_all").run(feed)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_bias_of_transposed_convolutions_in_the_evaluator(groups: int) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(4, 2, 3, 2)).astype(np.float32),
        "b": rng.normal(size=2 * groups).astype(np.float32),
    }
    proto = model(
        [helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], group=groups)],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4, 3, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights,
    )
    opened = open_model(proto, "reference")
    feed = {"x": rng.normal(size=(2, 4, 3, 5)).astype(np.float32)}
    (ours,) = ReferenceRunner(opened).run(feed)
    (theirs,) = OrtRunner(opened, "CPUExecutionProvider", "disable_all").run(feed)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
