"""``localize``: which tensor is the first that differs, and which node made it so."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold
from bnfold.check.feeds.feed import Feed
from bnfold.check.localization import stepwise
from bnfold.check.localization.localize import localize
from bnfold.check.models.model import open_model
from bnfold.check.models.pairs import open_pair
from bnfold.report import Localization
from tests.check.check_pairs import layers, network, planted, text
from tests.check.deep_nets import (
    Net,
    Style,
    densenet,
    generator,
    mobilenet,
    preactivation,
    resnet,
    sequence,
    transformer,
    vgg,
)
from tests.check.planted import BUGS, naive_fold

NETS: dict[str, Net] = {
    "residual": resnet((1, 1, 1, 1), grouped=4),
    "preactivation": preactivation(6),
    "depthwise": mobilenet(4),
    "dense": densenet(6),
    "transposed": generator(4),
    "one-dimensional": sequence(5),
    "normalized-behind": vgg(6, after=True),
    "attention": transformer(2),
}
STYLES = {"float32": Style(), "wide": Style(wide=True), "float16": Style(half=True)}
FOLDS: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "as-it-is": copy.deepcopy,
    "bnfold": bnfold.fold,
    "float32-fold": naive_fold,
}

Model = onnx.ModelProto | str


def parts(reference: Model, candidate: Model, **arrays: object) -> Localization:
    """Localize on the CPU; inputs that are not given are normal numbers, two in every open axis."""
    pair = open_pair(
        open_model(reference, "reference"),
        open_model(candidate, "candidate"),
        "CPUExecutionProvider",
        "default",
    )
    rng = np.random.default_rng(3)
    for spec in pair.reference.inputs:
        if spec.name not in arrays:
            dtype = helper.tensor_dtype_to_np_dtype(spec.elem_type)
            shape = [size if isinstance(size, int) else 2 for size in spec.shape or ()]
            arrays[spec.name] = rng.normal(size=shape).astype(dtype)
    found = localize(pair, Feed("given", arrays), {})
    json.dumps(found.to_dict(), allow_nan=False)
    return found


def named(found: Localization) -> set[str | None]:
    """The nodes that are named, in both models."""
    assert found.first is not None, found.detail
    assert found.first in found.layers
    return {found.first.reference_node, found.first.candidate_node}


def _some(every: list[tuple[str, str]], few: list[tuple[str, str]]) -> list[object]:
    """All pairs as parameters; those that are not among the few run on request only."""
    return [
        pytest.param(*pair, marks=() if pair in few else pytest.mark.slow, id="-".join(pair))
        for pair in every
    ]


@pytest.mark.parametrize(
    ("net", "bug"),
    _some(
        [(net, bug) for net in NETS for bug in BUGS],
        [
            ("residual", "epsilon"),
            ("one-dimensional", "mean"),
            ("transposed", "sign"),
            ("residual", "groups"),
            ("normalized-behind", "border"),
            ("dense", "negative"),
            ("one-dimensional", "batch"),
            ("preactivation", "nan"),
        ],
    ),
)
def test_planted_fault(net: str, bug: str) -> None:
    model = NETS[net](STYLES["float32"], 1)
    rng = np.random.default_rng(len(bug))
    fault = BUGS[bug](model, int(rng.integers(3, 7)), rng)
    if fault is None:
        pytest.skip("the network has nothing for this fault")
    fold = "as-it-is" if bug in {"nan", "batch"} else "bnfold"
    found = parts(model, FOLDS[fold](fault.model))
    if found.first is None and bug == "epsilon":
        pytest.skip("no larger than what rounding the weights does")
    assert fault.where in named(found) or f"'{fault.where}'" in str(found.first)


@pytest.mark.parametrize(
    ("net", "style"),
    _some(
        [(net, style) for net in NETS for style in STYLES],
        [("residual", "float32"), ("one-dimensional", "wide"), ("transposed", "float16")],
    ),
)
def test_correct_fold(net: str, style: str) -> None:
    model = NETS[net](STYLES[style], 2)
    for fold in ("bnfold", "float32-fold"):
        found = parts(model, FOLDS[fold](model))
        assert found.first is None, (fold, found.first)
        assert not [layer for layer in found.layers if layer.beyond]


@pytest.mark.parametrize("tool", ["onnxsim", "onnxslim"])
def test_names_of_other_tools(tool: str) -> None:
    module = pytest.importorskip(tool)
    model = NETS["residual"](STYLES["float32"], 2)
    fault = BUGS["sign"](model, 5, np.random.default_rng(0))
    assert fault is not None
    if tool == "onnxsim":
        right, wrong = (module.simplify(m)[0] for m in (model, fault.model))
    else:
        right, wrong = (module.slim(copy.deepcopy(m)) for m in (model, fault.model))
    assert parts(model, right).first is None
    assert fault.where in named(parts(model, wrong))


RENAMED = """
g (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w, float[4] s, float[4] t, float[4, 4] v> {
  [first] a = MatMul(x, w)
  [times] b = Mul(a, s)
  [plus] c = Add(b, t)
  [act] d = Relu(c)
  [last] y = MatMul(d, v)
}"""
# The product's old name now stands for what the two nodes behind it computed.
RENAMED_FOLD = """
g (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w, float[4] t, float[4, 4] v> {
  [first] e = MatMul(x, w)
  [plus] a = Add(e, t)
  [act] d = Relu(a)
  [last] y = MatMul(d, v)
}"""


def filled(model: str, **weights: np.ndarray) -> onnx.ModelProto:
    """Return a textual model; weights without values get the given ones, or random ones."""
    proto = text(model)
    rng = np.random.default_rng(5)
    for info in proto.graph.value_info:
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        values = rng.normal(size=shape).astype(np.float32)
        values = np.asarray(weights.get(info.name, values), np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, info.name))
    del proto.graph.value_info[:]
    return proto


def renamed(error: float) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    rng = np.random.default_rng(6)
    w, v = rng.normal(size=(2, 4, 4)).astype(np.float32)
    s, t = rng.normal(size=(2, 4)).astype(np.float32)
    folded = w * s
    folded[:, 2] *= 1 + error
    return filled(RENAMED, w=w, v=v, s=s, t=t), filled(RENAMED_FOLD, w=folded, v=v, t=t)


def test_a_name_that_stands_for_another_value_is_not_accused() -> None:
    found = parts(*renamed(0.0))
    assert found.first is None
    layer = next(layer for layer in found.layers if layer.tensor == "a")
    assert not layer.beyond
    assert layer.detail == "its name stands for 'c' of the reference"


def test_a_fault_behind_a_name_that_stands_for_another_value() -> None:
    found = parts(*renamed(0.01))
    assert found.first is not None
    assert (found.first.tensor, found.first.reference_node) == ("a", "plus")
    assert "'first' (MatMul)" in str(found.first.detail)


def test_a_scale_that_the_next_weights_undo_is_not_accused() -> None:
    rng = np.random.default_rng(6)
    w, v = rng.normal(size=(2, 4, 4)).astype(np.float32)
    chain = """
    g (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w, float[4, 4] v> {
      [first] a = MatMul(x, w)
      [act] b = Relu(a)
      [last] y = MatMul(b, v)
    }"""
    scale = np.array([4.0, 0.5, 3.0, 0.7], np.float32)
    found = parts(filled(chain, w=w, v=v), filled(chain, w=w * scale, v=v / scale[:, None]))
    assert found.first is None
    assert [layer.tensor for layer in found.layers if layer.beyond] == ["a", "b"]


def test_the_first_of_two_branches_and_the_first_of_two_faults() -> None:
    branches = """
    g (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w, float[4, 4] v, float[4, 4] u> {
      [left] a = MatMul(x, w)
      [right] b = MatMul(x, v)
      [sum] c = Add(a, b)
      [last] y = MatMul(c, u)
    }"""
    reference = filled(branches)
    weights = {t.name: numpy_helper.to_array(t) for t in reference.graph.initializer}
    one = filled(branches, **(weights | {"v": weights["v"] * 1.001}))
    assert named(parts(reference, one)) == {"right"}
    two = filled(branches, **(weights | {n: weights[n] * 1.001 for n in "uwv"}))
    assert named(parts(reference, two)) == {"left"}


BODIES = """
g (float[N, 4] x, bool c) => (float[N, 4] y) <float[4, 4] w, float[4, 4] v> {
  [before] a = MatMul(x, w)
  [choice] b = If (c) <
    then_branch = yes () => (float[N, 4] p) { p = MatMul(a, v) },
    else_branch = no () => (float[N, 4] q) { q = Neg(a) }
  >
  [after] y = Relu(b)
}"""


def test_a_fault_in_a_body_is_that_of_its_node() -> None:
    reference = filled(BODIES)
    candidate = copy.deepcopy(reference)
    choice = candidate.graph.node[1]
    choice.attribute[0].g.node[0].op_type = "Add"
    found = parts(reference, candidate, c=np.array(True), x=np.ones((4, 4), np.float32))
    assert named(found) == {"choice"}
    assert parts(reference, reference, c=np.array(True)).first is None


def test_a_fault_in_a_function_is_that_of_its_call() -> None:
    source = """
    <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
    g (float[N, 4] x) => (float[N, 4] y) {
      [before] a = Neg(x)
      [call] b = own.Twice(a)
      [after] y = Abs(b)
    }
    <domain: "own", opset_import: ["" : 17]> Twice (p) => (q) { q = Add(p, p) }"""
    reference = onnx.parser.parse_model(source)
    candidate = onnx.parser.parse_model(source.replace("Add(p, p)", "Mul(p, p)"))
    assert named(parts(reference, candidate)) == {"call"}


@pytest.mark.parametrize(
    ("operator", "says"),
    [
        ("Transpose <perm = [1, 0]> (a)", "its shape is (4, 2), but (2, 4)"),
        ("Cast <to = 10> (a)", "it is float16, but float32"),
        ("Sqrt (a)", "NaN or infinity in other places"),
        ("Gather (a, far)", "the candidate does not run"),
    ],
)
def test_what_differs_but_by_a_number(operator: str, says: str) -> None:
    body = """
    g (float[2, 4] x) => (float[4] y) <int64[1] far = {{9}}, int64[1] near = {{0}}> {{
      [before] a = Neg(x)
      [wrong] b = {operator}
      [back] c = Cast <to = 1> (b)
      [flat] y = ReduceSum <keepdims = 0> (c, near)
    }}"""
    reference = text(body.format(operator="Identity (a)"))
    found = parts(reference, text(body.format(operator=operator)))
    assert "wrong" in named(found)
    assert found.first is not None
    assert says in str(found.first.detail)


def test_integers_and_sequences() -> None:
    body = """
    g (float[2, 4] x) => (int64[2] y) <int64[2] split = {{2, 2}}, float[4, 4] w> {{
      [product] a = MatMul(x, w)
      [cut] s = SplitToSequence <axis = 1> (a, split)
      [join] b = ConcatFromSequence <axis = 1> (s)
      [where] i = ArgMax <axis = 1, keepdims = 0> (b)
      [one] k = Constant <value = int64[1] {{{one}}}> ()
      [twice] j = Add(k, k)
      [sum] y = Add(i, j)
    }}"""
    reference = filled(body.format(one=1))
    assert parts(reference, reference).first is None
    assert named(parts(reference, filled(body.format(one=2)))) == {"twice"}


def test_a_tensor_that_the_candidate_holds_as_a_constant() -> None:
    computed = """
    g (float[N, 4] x) => (float[N, 4] y) <float[4] k> {
      [root] a = Exp(k)
      [out] y = Mul(x, a)
    }"""
    stored = "g (float[N, 4] x) => (float[N, 4] y) <float[4] a> { [out] y = Mul(x, a) }"
    reference = filled(computed)
    right = np.exp(numpy_helper.to_array(reference.graph.initializer[0]))
    assert parts(reference, filled(stored, a=right)).first is None
    found = parts(reference, filled(stored, a=right * 1.01))
    assert found.first is not None
    assert (found.first.tensor, found.first.reference_node) == ("a", "root")
    assert found.first.candidate_node is None


def test_errors_that_add_up() -> None:
    nodes = [helper.make_node("Mul", [f"t{i}", f"w{i}"], [f"t{i + 1}"], f"n{i}") for i in range(60)]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 64]) for name in ("t0", "t60")
    )
    rng = np.random.default_rng(0)
    weights = [rng.uniform(1.0, 1.1, 64).astype(np.float32) for _ in nodes]

    def chain(step: int) -> onnx.ModelProto:
        moved = [(w.view(np.int32) + step).view(np.float32) for w in weights]
        tensors = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(moved)]
        graph = helper.make_graph(nodes, "g", [x], [y], tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    found = parts(chain(0), chain(3))
    assert found.first is not None
    assert "their errors add up" in str(found.detail)


def test_types_that_the_runtime_does_not_compute() -> None:
    stack = layers(3, dtype=TensorProto.BFLOAT16)
    reference = network(stack, folded=False)
    wrong = network(planted(stack, "sign", 1), folded=True)
    feed = np.random.default_rng(0).normal(size=(1, 3, 12, 12)).astype(ml_dtypes.bfloat16)
    assert parts(reference, network(stack, folded=True), x=feed).first is None
    found = parts(reference, wrong, x=feed)
    assert found.first is not None
    assert found.first.tensor == "n1"


def test_external_data(tmp_path: Path) -> None:
    model = NETS["residual"](STYLES["float32"], 1)
    fault = BUGS["mean"](model, 4, np.random.default_rng(0))
    assert fault is not None
    for name, proto in (("a", model), ("b", fault.model)):
        onnx.save(proto, tmp_path / f"{name}.onnx", save_as_external_data=True, size_threshold=0)
    assert fault.where in named(parts(str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx")))


def test_one_node_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = layers(40)
    live, nodes = [], []
    run = stepwise.Stepper.run

    class Counted(stepwise.SessionNode):
        def __init__(self, model: object, *rest: object) -> None:
            nodes.append(len(model.graph.node))  # type: ignore[attr-defined]
            super().__init__(model, *rest)  # type: ignore[arg-type]

    def counted(
        self: object, step: object, worlds: list[dict[str, object]], *rest: object
    ) -> object:
        live.extend(len(world) for world in worlds)
        return run(self, step, worlds, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(stepwise, "SessionNode", Counted)
    monkeypatch.setattr(stepwise.Stepper, "run", counted)
    found = parts(network(stack, folded=False), network(planted(stack, "sign", 30), folded=True))
    assert found.first is not None
    assert found.first.tensor == "n30"
    assert set(nodes) == {1}
    assert max(live) <= 3


LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.mark.slow
def test_a_model_of_the_standard() -> None:
    path = LIGHT / "light_squeezenet.onnx"
    if not path.exists():
        pytest.skip("this build of onnx has no test models")
    model = onnx.load(path)
    fills = {n.output[0]: n for n in model.graph.node if n.op_type == "ConstantOfShape"}
    conv = next(n for n in model.graph.node[::-1] if n.op_type == "Conv" and n.input[1] in fills)
    fill = fills[conv.input[1]].attribute[0].t
    fill.CopyFrom(numpy_helper.from_array(np.array([0.013], np.float32)))
    found = parts(str(path), model)
    assert found.first is not None
    assert found.first.tensor in {conv.input[1], conv.output[0]}
