"""TorchScript and exported programs that use PyTorch's own readers and operators as a weapon."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bnfold.cli import main
from bnfold.errors import BnfoldError, InputError, ModelError
from bnfold.torch.archive import require_harmless

torch = pytest.importorskip("torch")

SHAPE = (1, 4, 8, 8)


def module() -> Any:
    return torch.nn.Sequential(torch.nn.Conv2d(4, 5, 3), torch.nn.BatchNorm2d(5)).eval()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "m.ts"
    with pytest.warns(DeprecationWarning, match="deprecated"):
        torch.jit.trace(module(), torch.zeros(SHAPE)).save(str(file))
    return file


def rewrite(file: Path, name: str, edit: Callable[[bytes], bytes]) -> None:
    """Change the entry of an archive whose name ends so."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    (found,) = [each for each in entries if each.endswith(name)]
    edited = edit(entries[found])
    assert edited != entries[found]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for each, data in {**entries, found: edited}.items():
            archive.writestr(each, data)


def load(file: Path) -> Any:
    from bnfold.torch import load as read  # noqa: PLC0415 - torch is optional

    return read(file)


def test_what_pytorch_writes_is_read(script: Path) -> None:
    assert load(script)(torch.zeros(SHAPE)).shape == (1, 5, 6, 6)


NUMEL = b"K\xb4"
"""How the traced module says that its weight has 5 * 4 * 3 * 3 elements."""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (NUMEL, b"K\xff"),
        (NUMEL, b"J\xff\xff\xff\x7f"),
        (NUMEL, b"J\xff\xff\xff\xff"),
        (NUMEL, b"\x8a\x08" + b"\xff" * 7 + b"\x3f"),
        (b"FloatStorage", b"DoubleStorage"),
        (b"FloatStorage", b"OtherStorage"),
    ],
    ids=["more", "2-GiB", "negative", "overflow", "wider", "unknown"],
)
def test_a_tensor_beyond_its_bytes_is_refused(old: bytes, new: bytes, script: Path) -> None:
    rewrite(script, "/data.pkl", lambda data: data.replace(old, new, 1))
    with pytest.raises(ModelError, match=r"'m/data.pkl' cannot be what PyTorch wrote"):
        load(script)


def test_a_text_that_says_to_be_of_4_gb_is_refused(script: Path) -> None:
    rewrite(
        script,
        "/data.pkl",
        lambda data: data.replace(b"X\x08\x00\x00\x00training", b"X\xff\xff\xff\xfftraining", 1),
    )
    with pytest.raises(ModelError, match="cannot be what PyTorch wrote"):
        load(script)


class UsesFile(torch.nn.Module):  # type: ignore[misc]
    """Makes the file ``was-here`` when it is loaded, and when it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.zeros(1)

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        self.weight = state[0] + torch.from_file("was-here", True, 4)
        self.training = state[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.weight.sum() + torch.from_file("was-here", True, 4).sum()


def test_a_script_uses_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.warns(DeprecationWarning, match="deprecated"):
        torch.jit.script(UsesFile().eval()).save("m.ts")
    Path("was-here").unlink(missing_ok=True)
    arguments = ["optimize", "m.ts", "-o", "out.onnx", "--input", "1x4x8x8", "--no-check"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: m.ts: it holds code that reads or writes files")
    assert not Path("was-here").exists()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "m.pt2"
    torch.export.save(torch.export.export(module(), (torch.zeros(SHAPE),)), file)
    require_harmless(file)
    return file


@pytest.mark.parametrize(
    "target",
    ["torch.ops.aten.from_file.default", "torch.ops.load_library", "torch.ops.aten.save.default"],
)
def test_a_program_calls_nothing_that_uses_files(target: str, program: Path) -> None:
    def edit(data: bytes) -> bytes:
        content = json.loads(data)
        content["graph_module"]["graph"]["nodes"][0]["target"] = target
        return json.dumps(content).encode()

    rewrite(program, "models/model.json", edit)
    with pytest.raises(InputError, match="an operator that reads or writes files"):
        load(program)


@pytest.mark.parametrize(
    "context",
    [
        {"default_factory_module": "evil", "default_factory_name": "f", "dict_context": []},
        {"__enum__": True, "fqn": "evil:E", "name": "A"},
    ],
)
def test_a_structure_imports_nothing(
    context: dict[str, Any], program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil.py").write_text("import os; os.mkdir('was-here')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def edit(data: bytes) -> bytes:
        inner = json.dumps(context).replace("_", "\\u005f")
        spec = {"type": "collections.defaultdict", "context": inner, "children_spec": []}
        content = json.loads(data)
        signature = content["graph_module"]["module_call_graph"][0]["signature"]
        signature["in_spec"] = json.dumps([1, spec]).replace("_", "\\u005f")
        return json.dumps(content).encode()

    rewrite(program, "models/model.json", edit)
    with pytest.raises(BnfoldError):
        load(program)
    with pytest.raises(InputError, match="a structure whose types are imported"):
        require_harmless(program)
    assert not Path("was-here").exists()
