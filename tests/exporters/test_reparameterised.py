"""Networks with parallel branches become what their authors deploy: one convolution per block."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from bnfold.check import check
from bnfold.graph.fold import FoldOptions, fold_model
from bnfold.store import load, save

torch = pytest.importorskip("torch", reason="the exporters are PyTorch's")
pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")

from tests.exporters.exporting import export_module  # noqa: E402 - needs torch
from tests.exporters.reparameterised import NETWORKS, build_network, deployed  # noqa: E402

EXPORTERS = ("dynamo-unoptimized", "legacy-unfolded")
LARGE = ("repvgg-a0", "mobileone-s0")


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in LARGE])
def test_one_convolution_per_block(name: str, exporter: str, tmp_path: Path) -> None:
    _assert_deployed(name, exporter, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", LARGE)
def test_large_networks(name: str, exporter: str, tmp_path: Path) -> None:
    _assert_deployed(name, exporter, tmp_path)


def _assert_deployed(name: str, exporter: str, folder: Path) -> None:
    source, target, plain = (folder / f"{part}.onnx" for part in ("model", "folded", "plain"))
    network = NETWORKS[name]
    module, batch = build_network(name, batch=2)
    export_module(module, batch, exporter, source)
    export_module(deployed(module), batch, exporter, plain)
    model = load(source)
    report, _ = fold_model(model, FoldOptions())
    save(model, target)
    onnx.checker.check_model(str(target), full_check=True)
    norms = [verdict for verdict in report.sites if verdict.kind == "BatchNormalization"]
    assert len(norms) == network.norms
    assert not report.kept + report.apart, report.to_dict()["sites"]
    operators = [node.op_type for node in model.proto.graph.node]
    assert operators.count("Conv") == network.convolutions
    assert operators.count("BatchNormalization") == 0
    reference = load(plain)
    fold_model(reference, FoldOptions())  # computed zero biases of the exporter go here too
    assert len(operators) == len(reference.proto.graph.node)
    for verdict in check(source, target, seed=1):
        assert verdict.equivalent, verdict
