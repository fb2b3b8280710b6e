"""PyTorch files: told by content, read without running code, fitted to a module key by key."""

from __future__ import annotations

import argparse
import contextlib
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bnfold
from bnfold.errors import InputError, MissingPackageError, ModelError
from bnfold.torch.files import Kind, kind_of

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402 - needs torch

from bnfold.torch.arch_args import parse_arch_args  # noqa: E402

MODELS = Path(__file__).parents[2] / "models"
SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)
    def forward(self, x):
        return self.bn(self.conv(x))

def make(width=4, **rest):
    return Net(width)

def broken():
    raise RuntimeError("no such luck")

number = int
"""


@pytest.fixture
def arch(tmp_path: Path) -> str:
    (tmp_path / "somebodys_net.py").write_text(SOURCE)
    return f"{tmp_path}/somebodys_net.py"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


def weights(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {
        key: torch.rand(value.shape).to(value.dtype) for key, value in Net().state_dict().items()
    }


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in weights().items()}


ARGUMENTS = argparse.Namespace(lr=0.1)
CHECKPOINTS: dict[str, Any] = {
    "plain": weights(),
    "state_dict": {"state_dict": weights(), "epoch": 3, "optimizer": {"lr": 0.1}},
    "model": {"model": weights(), "args": ARGUMENTS},
    "net": {"net": weights(), "acc": 93.0},
    "nested": {"model": {"state_dict": weights()}},
    "data-parallel": {"state_dict": prefixed("module.")},
    "compiled": prefixed("_orig_mod."),
    "compiled-parallel": prefixed("module._orig_mod."),
    "lightning": {"state_dict": prefixed("model."), "pytorch-lightning_version": "2.0"},
    "somebodys": prefixed("encoder_q."),
    "averaged": {"n_averaged": torch.tensor(3), **prefixed("module.")},
    "profiled": {**weights(), "total_ops": torch.zeros(1), "conv.total_params": torch.zeros(1)},
    "old": {k: v for k, v in weights().items() if "num_batches" not in k},
    "half": {k: v.half() if v.is_floating_point() else v for k, v in weights().items()},
}


@pytest.mark.parametrize("content", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_checkpoint(content: Any, arch: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.th")
    module = bnfold.torch.load(tmp_path / "weights.th", arch=f"{arch}:Net")
    assert type(module).__name__ == "Net"
    assert not module.training
    for key, value in weights().items():
        if "num_batches" not in key:
            found = module.state_dict()[key]
            assert torch.allclose(found, value, atol=1e-3)


EMA: dict[str, Any] = {
    "model_ema": {"model": weights(1), "model_ema": weights()},
    "ema_state_dict": {"state_dict": weights(1), "ema_state_dict": prefixed("module.")},
    "ema-module": {"model": weights(1), "ema": {"module": weights(), "decay": 0.9}},
    "among": {"state_dict": {**weights(1), **prefixed("model_ema.")}},
}


@pytest.mark.parametrize("content", EMA.values(), ids=EMA)
def test_averaged_weights(content: Any, arch: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(content, file)
    averaged = bnfold.torch.load(file, arch=f"{arch}:Net", ema=True).state_dict()
    usual = bnfold.torch.load(file, arch=f"{arch}:Net").state_dict()
    assert torch.equal(averaged["conv.weight"], weights()["conv.weight"])
    assert torch.equal(usual["conv.weight"], weights(1)["conv.weight"])


def test_no_averaged_weights(arch: str, tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "w.pt")
    with pytest.raises(InputError, match="holds no averaged weights"):
        bnfold.torch.load(tmp_path / "w.pt", arch=f"{arch}:Net", ema=True)


def test_legacy_and_safetensors(arch: str, tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    torch.save(weights(), tmp_path / "a.onnx", _use_new_zipfile_serialization=False)
    save_file(weights(), tmp_path / "b.bin")
    assert kind_of(tmp_path / "a.onnx") is Kind.PICKLE
    assert kind_of(tmp_path / "b.bin") is Kind.SAFETENSORS
    for name in ("a.onnx", "b.bin"):
        module = bnfold.torch.load(tmp_path / name, arch=f"{arch}:make", arch_args={"width": 4})
        assert torch.equal(module.conv.weight, weights()["conv.weight"])


def test_kinds() -> None:
    assert kind_of(MODELS / "digits.pt2") is Kind.PROGRAM
    assert kind_of(MODELS / "digits.script.pt") is Kind.SCRIPT
    assert kind_of(MODELS / "digits.state_dict.pt") is Kind.PICKLE
    for name in ("digits.onnx", "digits_heldout.npz", "train_digits.py", "nowhere"):
        assert kind_of(MODELS / name) is None


def test_the_kind_costs_no_torch() -> None:
    code = (
        "import sys, pathlib\nfrom bnfold.torch.files import kind_of\n"
        f"kind_of(pathlib.Path({str(MODELS / 'digits.pt2')!r})); print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


def test_a_pickled_module_needs_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "somebodys", sys.modules[__name__])
    monkeypatch.setattr(Net, "__module__", "somebodys")
    for content in (Net().eval(), {"model": Net().eval(), "epoch": 1}):
        torch.save(content, tmp_path / "m.pt")
        with pytest.raises(InputError, match="a pickled module, not only weights") as raised:
            bnfold.torch.load(tmp_path / "m.pt")
        assert "runs the code that its file names" in str(raised.value.hint)
        assert isinstance(bnfold.torch.load(tmp_path / "m.pt", trust_pickle=True), nn.Module)


def test_no_code_runs_without_trust(tmp_path: Path, arch: str) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": weights(), "extra": Evil()}, tmp_path / "m.pt")
    with contextlib.suppress(InputError):
        bnfold.torch.load(tmp_path / "m.pt", arch=f"{arch}:Net")
    assert not (tmp_path / "ran").exists()


def refused(match: str, path: Path, error: Any = InputError, **options: Any) -> None:
    with pytest.raises(error, match=match) as raised:
        bnfold.torch.load(path, **options)
    assert "\n" not in raised.value.message
    assert raised.value.hint


def test_bad_files(tmp_path: Path, arch: str) -> None:
    whole = (MODELS / "digits.pt2").read_bytes()
    (tmp_path / "cut.pt2").write_bytes(whole[: len(whole) // 2])
    refused("cut.pt2: a damaged archive", tmp_path / "cut.pt2", ModelError)
    newer = bytearray(whole)
    newer[newer.rindex(b"PK\1\2") + 6] = 127  # the version that is needed to extract
    (tmp_path / "newer.pt2").write_bytes(newer)
    refused("newer.pt2: a damaged archive", tmp_path / "newer.pt2", ModelError)
    (tmp_path / "empty.pt").write_bytes(b"")
    refused("this is no PyTorch file", tmp_path / "empty.pt", ModelError)
    refused("no such file", tmp_path / "nowhere.pt", ModelError)
    torch.save(weights(), tmp_path / "w.pt")
    refused("a state dict holds weights only", tmp_path / "w.pt")
    refused("needs no --arch", MODELS / "digits.pt2", arch="a:b")
    torch.save({"epoch": 3, "loss": 0.1}, tmp_path / "none.pt")
    refused(
        "no weights found; its keys are 'epoch', 'loss'", tmp_path / "none.pt", arch=f"{arch}:Net"
    )


TALL = b"K\x01" + b"".join(b"q%ch%c\x86" % (at, at) for at in range(60))  # pairs of the last one
DEEP = b"K\x01" + b"\x85" * 100_000


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"}" + TALL + b"K\x01s", "too deep or too long"),
        (b"}" + DEEP + b"K\x01s", "too deep or too long"),
        (b"cbuiltins\nset\n](" + TALL + b"e\x85R", "too deep or too long"),
        (b"cbuiltins\nbytearray\n\x8a\x05" + (10**10).to_bytes(5, "little") + b"\x85R", "memory"),
    ],
)
@pytest.mark.parametrize("is_legacy", [False, True])
def test_pickles_that_would_not_end(
    content: bytes, why: str, is_legacy: bool, tmp_path: Path, arch: str
) -> None:
    pickled = b"\x80\x02" + content + b"."
    file = tmp_path / "w.pt"
    torch.save({}, file, _use_new_zipfile_serialization=not is_legacy)
    if is_legacy:
        empty = pickle.dumps({}, protocol=2)
        file.write_bytes(file.read_bytes().replace(empty, pickled, 1))
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("w/data.pkl", pickled)
            archive.writestr("w/version", "3")
    refused(why, file, ModelError, arch=f"{arch}:Net")


def test_placeholders_are_found_in_one_pass(
    tmp_path: Path, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: [passes.append(a), load(*a, **k)][1])
    objects = {f"o{at}": type(f"Config{at}", (), {}) for at in range(50)}
    for name, kind in objects.items():
        kind.__module__, kind.__qualname__ = __name__, kind.__name__
        monkeypatch.setattr(sys.modules[__name__], kind.__name__, kind, raising=False)
        objects[name] = kind()
    torch.save({"state_dict": weights(), **objects}, tmp_path / "w.pt")
    bnfold.torch.load(tmp_path / "w.pt", arch=f"{arch}:Net")
    assert len(passes) == 1


def test_bad_architectures(tmp_path: Path, arch: str) -> None:
    file = tmp_path / "w.pt"
    torch.save(weights(), file)
    refused("does not name a factory", file, arch="resnet50")
    refused("no_such_package", file, MissingPackageError, arch="no_such_package.models:net")
    refused("AttributeError", file, arch=f"{arch}:nothing")
    refused("RuntimeError: no such luck", file, arch=f"{arch}:broken")
    refused("makes a int, not a torch.nn.Module", file, arch=f"{arch}:number")
    refused(
        "'conv.weight' is 4x3x3x3, not 8x3x3x3", file, arch=f"{arch}:Net", arch_args={"width": 8}
    )
    state = weights()
    state["fc.weight"] = state.pop("conv.bias")
    torch.save(state, file)
    refused("missing 'conv.bias'; unexpected 'fc.weight'", file, arch=f"{arch}:Net")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (Tensor.to_sparse, "'conv.weight' is 4x3x3x3, sparse, not 4x3x3x3"),
        (lambda t: t.to("meta"), "'conv.weight' is 4x3x3x3, without values, not 4x3x3x3"),
        (lambda t: t.to(torch.complex64), "'conv.weight' is 4x3x3x3, complex, not 4x3x3x3"),
        (
            lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
            "'conv.weight' is 4x3x3x3, quantized, not 4x3x3x3",
        ),
        (
            lambda t: torch.nested.nested_tensor([t[0, 0], t[0, 0, :2]]),
            "'conv.weight' is nested, not 4x3x3x3",
        ),
    ],
)
def test_tensors_of_other_kinds(
    change: Callable[[Tensor], Tensor], why: str, tmp_path: Path, arch: str
) -> None:
    state = weights()
    state["conv.weight"] = change(state["conv.weight"])
    torch.save(state, tmp_path / "w.pt")
    refused(why, tmp_path / "w.pt", arch=f"{arch}:Net")


def test_arguments_of_an_architecture() -> None:
    pairs = ("width=8", "name=big", "sizes=[1, 2]", "flag=True")
    assert parse_arch_args(pairs) == {"width": 8, "name": "big", "sizes": [1, 2], "flag": True}
    with pytest.raises(InputError, match="'width' is not of the form key=value"):
        parse_arch_args(("width",))
