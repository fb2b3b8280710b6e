"""The pass of Olive, in a workflow of Olive's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

import bnfold

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"


def run(model: Path, tmp_path: Path, fold: dict[str, Any]) -> Path:
    """Run a workflow of one pass; return the model that it leaves."""
    pytest.importorskip("olive", reason="olive-ai is not installed")
    from olive.workflows import run as run_workflow  # noqa: PLC0415 - slow to import

    from bnfold.neighbours.olive import package_config  # noqa: PLC0415 - needs olive

    workflow = {
        "input_model": {"type": "ONNXModel", "model_path": str(model)},
        "passes": {"fold": {"type": "FoldBatchNorm", **fold}},
        "output_dir": str(tmp_path / "out"),
        "cache_dir": str(tmp_path / "cache"),
    }
    run_workflow(workflow, package_config=package_config())
    (found,) = (tmp_path / "out").rglob("*.onnx")
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("external", [False, True], ids=["inside", "external"])
def test_a_workflow(tmp_path: Path, external: bool) -> None:
    source = tmp_path / "source" / "digits.onnx"
    source.parent.mkdir()
    onnx.save(onnx.load(DIGITS), source, save_as_external_data=external, size_threshold=100)
    found = run(source, tmp_path, {})
    operators = [node.op_type for node in onnx.load(found).graph.node]
    assert "BatchNormalization" not in operators
    assert all(check.equivalent for check in bnfold.check(DIGITS, found))


@pytest.mark.filterwarnings("ignore")
def test_options_arrive(tmp_path: Path) -> None:
    found = run(DIGITS, tmp_path, {"keep": ["/bn1/*"], "check": False})
    operators = [node.op_type for node in onnx.load(found).graph.node]
    assert operators.count("BatchNormalization") == 1


def test_without_olive_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['olive'] = None\n"
        "import bnfold\n"
        "try:\n    import bnfold.neighbours.olive\n"
        "except bnfold.MissingPackageError as error:\n    print(error.exit_code, error.hint)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "4 pip install olive-ai\n"
