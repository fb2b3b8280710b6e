"""What ``torch.onnx.export`` returns, folded: to call, and to save."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import bnfold

torch = pytest.importorskip("torch", reason="programs are PyTorch's")
pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")

from tests.exporters.exporting import export_program  # noqa: E402 - needs torch


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    """A normalization in front of a convolution, which PyTorch's exporter leaves alone."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()
    ).eval()
    net[0].running_mean.normal_()
    net[0].running_var.uniform_(0.5, 2.0)
    return net


@pytest.fixture(scope="module")
def batch() -> torch.Tensor:
    return torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def program(module: torch.nn.Module, batch: torch.Tensor) -> torch.onnx.ONNXProgram:
    return export_program(module, batch)


def operators(program: torch.onnx.ONNXProgram) -> list[str]:
    return [node.op_type for node in program.model.graph]


def test_a_program_to_call_and_to_save(
    program: torch.onnx.ONNXProgram, module: torch.nn.Module, batch: torch.Tensor, tmp_path: Path
) -> None:
    assert operators(program) == ["BatchNormalization", "Conv", "Relu"]
    folded = bnfold.optimize(program)
    assert type(folded) is type(program)
    assert operators(folded) == ["Conv", "Relu"]
    assert operators(program) == ["BatchNormalization", "Conv", "Relu"]
    assert folded.exported_program is program.exported_program
    with torch.no_grad():
        torch.testing.assert_close(folded(batch)[0], module(batch), rtol=1e-5, atol=1e-5)
    folded.save(tmp_path / "folded.onnx")
    onnx.checker.check_model(str(tmp_path / "folded.onnx"), full_check=True)
    assert all(
        check.equivalent for check in bnfold.check(program.model_proto, tmp_path / "folded.onnx")
    )


def test_a_program_to_a_file(program: torch.onnx.ONNXProgram, tmp_path: Path) -> None:
    report = bnfold.optimize(program, tmp_path / "folded.onnx")
    assert report.model is None
    assert len(report.folded) == 1
    assert all(check.equivalent for check in report.checks)
    assert report.checks
    onnx.checker.check_model(str(tmp_path / "folded.onnx"), full_check=True)


def test_options_arrive(program: torch.onnx.ONNXProgram) -> None:
    kept = bnfold.optimize(program, keep="*", check=False)
    assert operators(kept) == operators(program)
    with pytest.raises(bnfold.InputError, match="a program in memory cannot be replaced"):
        bnfold.optimize(program, in_place=True)


def test_the_other_functions_take_programs(
    program: torch.onnx.ONNXProgram, batch: torch.Tensor
) -> None:
    assert len(bnfold.inspect(program).folded) == 1
    folded = bnfold.fold(program)
    assert operators(folded) == ["Conv", "Relu"]
    torch.testing.assert_close(folded(batch)[0], program(batch)[0], rtol=1e-5, atol=1e-5)
