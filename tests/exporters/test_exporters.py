"""Every architecture, by every exporter: the attainable minimum is reached and PyTorch agrees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from bnfold.check import check
from bnfold.graph.fold import FoldOptions, fold_model
from bnfold.store import load, save

torch = pytest.importorskip("torch", reason="the exporters are PyTorch's")
pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")

from tests.exporters.architectures import ARCHITECTURES, build  # noqa: E402 - needs torch
from tests.exporters.exporting import EXPORTERS, export_module  # noqa: E402 - as above

ARITHMETIC = {"Sub", "Div", "Sqrt", "Pow", "Reciprocal", "BatchNormalization"}


def export(name: str, exporter: str, path: Path) -> int:
    module, batch, left = build(name)
    export_module(module, batch, exporter, path)
    return left


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_minimum_is_reached(name: str, exporter: str, tmp_path: Path) -> None:
    source, target = tmp_path / "model.onnx", tmp_path / "folded.onnx"
    left = export(name, exporter, source)
    model = load(source)
    report, _ = fold_model(model, FoldOptions())
    save(model, target)
    onnx.checker.check_model(str(target), full_check=True)
    operators = [node.op_type for node in model.proto.graph.node]
    assert operators.count("BatchNormalization") == left, report.to_dict()["sites"]
    assert len([v for v in report.kept if v.kind == "BatchNormalization"]) == left
    if name == "hand-written":
        assert not ARITHMETIC & set(operators)
    assert_names(onnx.load(source, load_external_data=False), model.proto)
    for verdict in check(source, target, seed=1):
        assert verdict.equivalent, verdict


def assert_names(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """No name is empty or there twice, and a new one stands beside what it came from."""
    nodes = [node.name for node in after.graph.node]
    values = [output for node in after.graph.node for output in node.output if output]
    values += [tensor.name for tensor in after.graph.initializer]
    for names in (nodes, values):
        assert all(names)
        assert len(set(names)) == len(names)
    known = {node.name for node in before.graph.node}
    known |= {name for node in before.graph.node for name in (*node.input, *node.output)}
    for new in {*nodes, *values} - known:
        assert any(old and new.startswith(f"{old}_") for old in known), new


@pytest.mark.parametrize("name", ["resnet", "levit", "hand-written"])
def test_pytorch_agrees(name: str, tmp_path: Path) -> None:
    import onnxruntime as ort  # noqa: PLC0415 - only here

    source, target = tmp_path / "model.onnx", tmp_path / "folded.onnx"
    export(name, "dynamo-unoptimized", source)
    model = load(source)
    fold_model(model, FoldOptions())
    save(model, target)
    module, batch, _ = build(name)
    session = ort.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
    with torch.no_grad():
        expected = module(batch).numpy()
    assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()
