"""PyTorch in, ONNX out: what is written computes what PyTorch computes, or nothing is written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner, Result

import bnfold
from bnfold import torch as front
from bnfold.cli import main
from bnfold.errors import InputError, NotEquivalentError

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")

from torch import Tensor, nn  # noqa: E402 - needs torch

from bnfold.torch import onnx_proof  # noqa: E402
from tests.pytorch.traps import randomized  # noqa: E402

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
ARCH = f"{MODELS / 'train_digits.py'}:DigitsNet"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor, *, scale: Tensor | None = None) -> dict[str, Tensor]:
        y = self.bn(self.conv(x))
        return {"y": y if scale is None else y * scale, "z": y.mean((2, 3))}


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return randomized(Net())


IMAGE = torch.randn(2, 3, 8, 8)


def norms(path: Path) -> int:
    model = onnx.load(path)
    onnx.checker.check_model(model)
    return sum(node.op_type == "BatchNormalization" for node in model.graph.node)


def test_module(net: nn.Module, tmp_path: Path) -> None:
    target = tmp_path / "net.onnx"
    before = {key: value.clone() for key, value in net.state_dict().items()}
    report = bnfold.export(net, IMAGE, target, dynamic_shapes=({0: "N"},))
    assert norms(target) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    assert (report.model, report.output, len(report.folded)) == ("Net", str(target), 1)
    assert [check.provider for check in report.checks][-1] == "PyTorch"
    assert report.equivalent
    assert report.checks[-1].feeds == 2
    assert onnx.load(target).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_names_and_keyword_arguments(net: nn.Module, tmp_path: Path) -> None:
    target = tmp_path / "net.onnx"
    scale = torch.tensor(2.0)
    bnfold.export(
        net, (IMAGE,), target, kwargs={"scale": scale}, input_names=["image", "factor"],
        output_names=["a", "b"],
    )  # fmt: skip
    graph = onnx.load(target).graph
    assert [value.name for value in graph.input] == ["image", "factor"]
    assert [value.name for value in graph.output] == ["a", "b"]


@pytest.mark.parametrize("form", ["program", "script"])
def test_other_forms(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    target = tmp_path / "net.onnx"
    if form == "program":
        model: Any = torch.export.export(module, (IMAGE,), strict=False)
        report = bnfold.export(model, None, target)
    else:
        with pytest.warns(DeprecationWarning, match="deprecated"):
            model = torch.jit.trace(module, IMAGE)
        report = bnfold.export(model, IMAGE, target, dynamic_shapes=({0: "N"},))
    assert norms(target) == 0
    assert report.equivalent


def test_training_mode_is_refused(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with pytest.warns(DeprecationWarning, match="deprecated"):
        script = torch.jit.script(module)
    program = torch.export.export(module, (IMAGE,), strict=False)
    for model in (module, script, program):
        with pytest.raises(InputError, match="is in training mode") as raised:
            bnfold.export(model, IMAGE, tmp_path / "net.onnx")
        assert "eval()" in str(raised.value.hint)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(InputError, match=r"cannot be exported to ONNX: .+") as raised:
        bnfold.export(Branches().eval(), IMAGE, tmp_path / "net.onnx")
    assert "\n" not in raised.value.message
    assert not list(tmp_path.iterdir())


def test_a_difference_from_pytorch_is_the_last_word(
    net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = onnx_proof._Model.run

    def off(self: Any, example: Any) -> list[Tensor]:
        return [value + 1e-3 for value in run(self, example)]

    monkeypatch.setattr(onnx_proof._Model, "run", off)
    with pytest.raises(NotEquivalentError, match="does not compute what PyTorch computes"):
        bnfold.export(net, IMAGE, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


# --- the command line


def bnfold_optimize(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["optimize", *map(str, arguments)])


def logits(path: Path) -> np.ndarray:
    images = np.load(MODELS / "digits_heldout.npz")["images"][:4]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])


SHAPE = ("--input", "4x1x8x8")
FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "program": ("digits.pt2", ()),
    "script": ("digits.script.pt", SHAPE),
    "state-dict": ("digits.state_dict.pt", ("--arch", ARCH, "--dim", "N=3", *SHAPE)),
}


@pytest.mark.parametrize(("name", "options"), FILES.values(), ids=FILES)
def test_each_path_to_onnx_gives_the_same_answers(
    name: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    target = tmp_path / "digits.onnx"
    result = bnfold_optimize(MODELS / name, *options, "-o", target)
    assert result.exit_code == 0, result.stderr
    assert "folded 3 of 3" in result.stderr
    np.testing.assert_allclose(logits(target), logits(MODELS / "digits.onnx"), atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["digits.onnx"]


def test_a_state_dict_becomes_a_program(tmp_path: Path) -> None:
    target = tmp_path / "digits.pt2"
    options = ("--arch", ARCH, "--dim", "N=3", *SHAPE)
    result = bnfold_optimize(MODELS / "digits.state_dict.pt", *options, "-o", target)
    assert result.exit_code == 0, result.stderr
    images = torch.from_numpy(np.load(MODELS / "digits_heldout.npz")["images"][:4])
    found = torch.export.load(target).module()(images)
    np.testing.assert_allclose(found.detach().numpy(), logits(MODELS / "digits.onnx"), atol=1e-4)


STATE = "digits.state_dict.pt"
ERRORS: dict[str, tuple[tuple[str, ...], int, str]] = {
    "no-arch": ((STATE, "-o", "OUT/x.onnx"), 2, "a state dict holds weights only"),
    "no-input": ((STATE, "--arch", ARCH, "-o", "OUT/x.onnx"), 2, "shape of its input is not known"),
    "wrong-input": (
        (STATE, "--arch", ARCH, "--input", "a:1x1x8x8", "-o", "OUT/x.onnx"), 2, "has no input 'a'",
    ),
    "wrong-shape": (
        ("digits.script.pt", "--input", "1x1x4x8", "-o", "OUT/x.onnx"), 2, "does not run on these",
    ),
    "suffix": (("digits.pt2", "-o", "OUT/x.pth"), 2, "are written as .onnx or .pt2"),
    "script-to-program": (
        ("digits.script.pt", *SHAPE, "-o", "OUT/x.pt2"), 2, "cannot become an exported program",
    ),
    "not-pytorch": (("digits.onnx", "--ema", "-o", "OUT/x.onnx"), 2, "are for PyTorch files"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "said"), ERRORS.values(), ids=ERRORS)
def test_bad_input(arguments: tuple[str, ...], code: int, said: str, tmp_path: Path) -> None:
    first, *rest = (argument.replace("OUT", str(tmp_path)) for argument in arguments)
    result = bnfold_optimize(MODELS / first, *rest)
    assert result.exit_code == code
    lines = [line for line in result.stderr.splitlines() if "arning" not in line]
    assert said in lines[0]
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("hint: ")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file: no space left")

    monkeypatch.setattr(torch.export, "save", full)
    result = bnfold_optimize(MODELS / "digits.pt2", "-o", tmp_path / "x.pt2")
    assert result.exit_code == 2
    assert "x.pt2: cannot be written: RuntimeError: PytorchStreamWriter failed" in result.stderr
    assert not list(tmp_path.iterdir())


def test_without_torch_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("bnfold.torch.")]:
        if name != "bnfold.torch.files":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(vars(front), "optimize", raising=False)
    result = bnfold_optimize(MODELS / "digits.pt2", "-o", tmp_path / "x.onnx")
    assert result.exit_code == 4
    assert "need the package 'torch', which is not installed" in result.stderr
    assert "hint: pip install 'bnfold[torch]'" in result.stderr
