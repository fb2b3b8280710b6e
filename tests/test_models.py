"""The committed models are what their script says they are."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import onnx
import pytest

import bnfold

MODELS = Path(__file__).parents[1] / "models"


@pytest.fixture(scope="module")
def evaluation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evaluate", MODELS / "evaluate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_batch_normalization_is_alive_after_convolutions_and_after_a_linear_layer() -> None:
    model = onnx.load(MODELS / "digits.onnx")
    onnx.checker.check_model(model, full_check=True)
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    normalized = [
        producers[node.input[0]]
        for node in model.graph.node
        if node.op_type == "BatchNormalization"
    ]
    assert normalized == ["Conv", "Conv", "Gemm"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_accuracy_survives_folding(evaluation: ModuleType, tmp_path: Path) -> None:
    folded = tmp_path / "folded.onnx"
    bnfold.optimize(MODELS / "digits.onnx", folded, data=(MODELS / "digits_heldout.npz",))
    right, total = evaluation.evaluate(str(MODELS / "digits.onnx"))
    assert total == 450
    assert right / total > 0.97
    assert evaluation.evaluate(str(folded)) == (right, total)


def test_state_dict_and_onnx_hold_the_same_weights() -> None:
    torch = pytest.importorskip("torch")
    state = torch.load(MODELS / "digits.state_dict.pt")
    model = onnx.load(MODELS / "digits.onnx")
    for tensor in model.graph.initializer:
        expected = state[tensor.name].numpy()
        assert onnx.numpy_helper.to_array(tensor).tobytes() == expected.tobytes()
