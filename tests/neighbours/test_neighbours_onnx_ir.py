"""``bnfold.FoldBatchNormPass`` in the pass managers of others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import bnfold
from tests.support import assert_same, build, evaluate, feeds_of

onnx_ir = pytest.importorskip("onnx_ir", reason="the pass is one of onnx_ir's")

from onnx_ir.passes import PassManager, Sequential, functionalize  # noqa: E402 - needs onnx_ir
from onnx_ir.passes import common as common_passes  # noqa: E402

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"

NET = """
agraph (float[N,3,8,8] x) => (float[N,4,8,8] y)
<float[4,3,1,1] w, float[4] scale, float[4] shift, float[4] mean, float[4] var,
 float[64,64] big, float[4,4,1,1] last>
{
    a = Conv<kernel_shape = [1, 1]>(x, w)
    b = BatchNormalization(a, scale, shift, mean, var)
    c = Relu(b)
    y = Conv<kernel_shape = [1, 1]>(c, last)
}
"""


def named() -> onnx.ModelProto:
    """A model whose nodes have names, with a large and two small tensors that do not change."""
    model = build(NET)
    for position, node in enumerate(model.graph.node):
        node.name = f"layer/{position}"
    return model


@pytest.fixture
def model() -> onnx_ir.Model:
    return onnx_ir.from_proto(named())


def test_it_folds_in_place(model: onnx_ir.Model) -> None:
    fold = bnfold.FoldBatchNormPass()
    assert fold.report is None
    result = fold(model)
    assert result.model is model
    assert result.modified
    assert [node.op_type for node in model.graph] == ["Conv", "Relu", "Conv"]
    assert [site.name for site in fold.report.folded] == ["layer/1"]
    proto = onnx_ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    feeds = feeds_of(named(), {"N": 2})
    assert_same(evaluate(named(), feeds), evaluate(proto, feeds), 1e-5)


def test_modified_is_honest(model: onnx_ir.Model) -> None:
    kept = bnfold.FoldBatchNormPass(keep=["layer/*"])
    graph, nodes = model.graph, list(model.graph)
    result = kept(model)
    assert not result.modified
    assert model.graph is graph
    assert list(model.graph) == nodes
    assert not model.metadata_props
    assert [site.reason for site in kept.report.kept] == ["excluded"]
    assert bnfold.FoldBatchNormPass()(model).modified
    assert not bnfold.FoldBatchNormPass()(model).modified


def test_managers_of_others(model: onnx_ir.Model) -> None:
    fold = bnfold.FoldBatchNormPass()
    passes = PassManager([fold, common_passes.RemoveUnusedNodesPass()], steps=4, early_stop=True)
    result = passes(model)
    assert result.model is model
    assert result.modified
    assert "big" not in model.graph.initializers
    untouched = onnx_ir.from_proto(named())
    folded = functionalize(Sequential(common_passes.TopologicalSortPass(), fold))(untouched).model
    assert len(list(untouched.graph)) == 4
    assert len(list(folded.graph)) == 3


def test_what_nobody_changed_is_kept(model: onnx_ir.Model) -> None:
    model.doc_string, model.producer_name = "about", "maker"
    model.metadata_props["owner"] = "somebody"
    model.meta["object"] = here = object()
    model.graph.doc_string = "graph"
    model.graph.metadata_props["of"] = "graph"
    for node in model.graph:
        node.metadata_props["from"] = node.name
        node.meta["node"] = node.name
        node.outputs[0].meta["value"] = node.outputs[0].name
    bnfold.FoldBatchNormPass()(model)
    assert (model.doc_string, model.producer_name, model.graph.doc_string) == (
        "about", "maker", "graph"
    )  # fmt: skip
    assert model.metadata_props["owner"] == "somebody"
    assert model.metadata_props["pkg.bnfold.version"] == bnfold.__version__
    assert model.meta["object"] is here
    assert model.graph.metadata_props["of"] == "graph"
    assert [node.name for node in model.graph] == ["layer/0", "layer/2", "layer/3"]
    for node in model.graph:
        assert node.metadata_props["from"] == node.meta["node"] == node.name
        assert node.outputs[0].meta["value"] == node.outputs[0].name
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_tensors_that_do_not_change_are_the_same_objects(model: onnx_ir.Model) -> None:
    evaluated: list[str] = []

    def lazy(value: onnx_ir.Value) -> onnx_ir.LazyTensor:
        tensor = value.const_value

        def evaluate_now() -> onnx_ir.TensorProtocol:
            evaluated.append(value.name)
            return tensor

        return onnx_ir.LazyTensor(
            evaluate_now, dtype=tensor.dtype, shape=tensor.shape, name=value.name
        )

    for name in ("big", "last"):
        value = model.graph.initializers[name]
        value.const_value = lazy(value)
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    bnfold.FoldBatchNormPass()(model)
    after = {name: value.const_value for name, value in model.graph.initializers.items()}
    assert after["big"] is before["big"]
    assert "big" not in evaluated
    assert after["last"] is before["last"]
    assert after["w"] is not before["w"]


def test_external_tensors_stay_external(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    onnx.save(named(), file, save_as_external_data=True, size_threshold=0)
    model = onnx_ir.load(file)
    bnfold.FoldBatchNormPass()(model)
    kinds = {
        name: isinstance(value.const_value, onnx_ir.ExternalTensor)
        for name, value in model.graph.initializers.items()
    }
    assert kinds == {"w": False, "big": True, "last": True, "layer/0_bias": False}
    onnx_ir.save(model, tmp_path / "folded.onnx")
    folded = onnx.load(tmp_path / "folded.onnx")
    feeds = feeds_of(named(), {"N": 2})
    assert_same(evaluate(named(), feeds), evaluate(folded, feeds), 1e-5)


def test_models_beyond_what_protobuf_can_hold_are_not_serialized() -> None:
    """Of a big tensor that is not changed only type and shape are looked at."""
    model = onnx_ir.from_proto(named())

    def fail() -> onnx_ir.TensorProtocol:
        raise AssertionError("this tensor is not needed")

    big = model.graph.initializers["big"]
    big.const_value = onnx_ir.LazyTensor(
        fail, dtype=onnx_ir.DataType.FLOAT, shape=onnx_ir.Shape([1 << 15, 1 << 15]), name="big"
    )
    big.shape = onnx_ir.Shape([1 << 15, 1 << 15])
    assert bnfold.FoldBatchNormPass()(model).modified
    assert list(model.graph.initializers["big"].shape) == [1 << 15, 1 << 15]


def test_two_values_of_one_name_are_told_apart_first(model: onnx_ir.Model) -> None:
    nodes = list(model.graph)
    nodes[0].outputs[0].name = nodes[2].outputs[0].name
    with pytest.raises(bnfold.ModelError, match="two values of the model in memory") as raised:
        bnfold.FoldBatchNormPass()(model)
    assert "NameFixPass" in raised.value.hint
    assert list(model.graph) == nodes
    common_passes.NameFixPass()(model)
    assert bnfold.FoldBatchNormPass()(model).modified


def test_subgraphs_and_their_tensors() -> None:
    proto = build("""
        agraph (float[N,3,8,8] x, bool c) => (float[N,4,8,8] y) {
            y = If(c) <
                then_branch = then () => (float[N,4,8,8] t)
                    <float[4,3,1,1] w1, float[4] s, float[4] b, float[4] m, float[4] var1> {
                    p = Conv<kernel_shape = [1, 1]>(x, w1)
                    t = BatchNormalization(p, s, b, m, var1)
                },
                else_branch = other () => (float[N,4,8,8] e) <float[4,3,1,1] w2> {
                    e = Conv<kernel_shape = [1, 1]>(x, w2)
                }
            >
        }
        """)
    model = onnx_ir.from_proto(proto)
    result = bnfold.FoldBatchNormPass()(model)
    assert result.modified
    folded = onnx_ir.to_proto(model)
    onnx.checker.check_model(folded, full_check=True)
    feeds = feeds_of(proto, {"N": 2})
    for condition in (True, False):
        feeds["c"] = np.array(condition)
        assert_same(evaluate(proto, feeds), evaluate(folded, feeds), 1e-5)


def test_the_same_as_a_fold_of_the_file() -> None:
    model = onnx_ir.load(DIGITS)
    bnfold.FoldBatchNormPass()(model)
    ours, theirs = onnx_ir.to_proto(model), bnfold.fold(DIGITS)
    assert [node.name for node in ours.graph.node] == [node.name for node in theirs.graph.node]
    for one, other in zip(ours.graph.initializer, theirs.graph.initializer, strict=True):
        assert (one.name, one.dims, one.raw_data) == (other.name, other.dims, other.raw_data)


def test_without_onnx_ir_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['onnx_ir'] = None\n"
        "import bnfold\n"
        "try:\n    bnfold.FoldBatchNormPass\n"
        "except bnfold.MissingPackageError as error:\n    print(error.exit_code, error.hint)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "4 pip install onnx_ir\n"
