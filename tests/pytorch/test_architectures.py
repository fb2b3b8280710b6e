"""Small networks in the layouts of well-known ones: as modules, as programs, as files of both."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import bnfold

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402 - needs torch

from bnfold.torch.operators.normalization import BATCH_NORMS  # noqa: E402
from tests.exporters.architectures import ARCHITECTURES, build  # noqa: E402

# normalizations written by hand, in a class that only its author knows, are nodes of the graph
NAMES = [name for name in ARCHITECTURES if name != "hand-written"]


def norms_in(module: nn.Module) -> int:
    return sum(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


def norm_nodes(program: Any) -> int:
    names = [getattr(node.target, "overloadpacket", None) for node in program.graph.nodes]
    return sum(getattr(name, "__name__", "") in BATCH_NORMS for name in names)


def apart(one: Any, other: Any) -> float:
    pairs = zip(tuples(one), tuples(other), strict=True)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def tuples(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


@pytest.mark.parametrize("name", NAMES)
def test_module(name: str) -> None:
    module, batch, left = build(name)
    folded, report = bnfold.torch.fold(module, batch)
    assert norms_in(folded) == left, report.to_dict()["sites"]
    assert len(report.kept) == left
    assert report.equivalent
    with torch.no_grad():
        assert apart(module(batch), folded(batch)) < 1e-5


FORMS = [(name, "static") for name in NAMES if name not in ("quartznet", "efficientnet", "hrnet")]
FORMS += [(name, form) for name in ("levit", "unet", "mlp") for form in ("dynamic", "core")]


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_program(name: str, form: str) -> None:
    module, batch, left = build(name)
    dims = ({0: torch.export.Dim.AUTO},) if form == "dynamic" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about itself
        program = torch.export.export(module, (batch,), dynamic_shapes=dims, strict=False)
        program = program.run_decompositions() if form == "core" else program
    before = str(program)
    folded, report = bnfold.torch.fold_program(program)
    assert str(program) == before
    assert norm_nodes(folded) == left, report.to_dict()["sites"]
    size = 5 if form == "dynamic" else len(batch)
    inputs = torch.randn(size, *batch.shape[1:])
    with torch.no_grad():
        assert apart(module(inputs), folded.module()(inputs)) < 1e-5


def test_a_folded_program_runs_in_a_new_process_with_another_batch(tmp_path: Path) -> None:
    module, batch, _ = build("unet")
    dims = ({0: torch.export.Dim("N")},)
    program = torch.export.export(module, (batch,), dynamic_shapes=dims, strict=False)
    torch.export.save(program, tmp_path / "model.pt2")
    report = bnfold.torch.optimize(tmp_path / "model.pt2")
    assert report.output == str(tmp_path / "model.folded.pt2")
    inputs = torch.randn(7, *batch.shape[1:])
    with torch.no_grad():
        torch.save((inputs, module(inputs)), tmp_path / "data.pt")
    code = (
        "import sys, torch\n"
        "module = torch.export.load(sys.argv[1]).module()\n"
        "inputs, expected = torch.load(sys.argv[2])\n"
        "torch.testing.assert_close(module(inputs), expected, rtol=1e-4, atol=1e-4)\n"
    )
    files = [report.output, str(tmp_path / "data.pt")]
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, *files], check=True)


def test_the_example_runs(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "export_model.py"
    target = tmp_path / "model.onnx"
    result = subprocess.run(
        [sys.executable, example, target], capture_output=True, text=True, check=True
    )
    assert "in PyTorch: 3 folded, 0 kept" in result.stdout
    assert f"{target}: 3 folded, 0 kept" in result.stdout
    assert target.is_file()


@pytest.mark.parametrize("name", ["resnet", "shufflenet", "levit", "unet", "pointnet", "mlp"])
def test_a_recorded_run_tells_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise RuntimeError("not today")

    monkeypatch.setattr(torch.export, "export", refuses)
    module, batch, left = build(name)
    folded, report = bnfold.torch.fold(module, batch)
    assert norms_in(folded) == left, report.to_dict()["sites"]


@pytest.mark.parametrize("name", ["resnet", "dcgan", "quartznet", "resnet-3d", "mlp"])
def test_an_input_is_guessed(name: str) -> None:
    module, _, left = build(name)
    folded, _ = bnfold.torch.fold(module)
    assert norms_in(folded) == left
