"""``docs/neighbours.md`` is run."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from bnfold.cli import main
from bnfold.neighbours import model_explorer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "neighbours.md").read_text(encoding="utf-8")
PLACE = "/tmp"  # noqa: S108 - where the page writes; the tests write elsewhere


def example(title: str, language: str) -> str:
    section = re.split(rf"^## {title}.*$", PAGE, maxsplit=1, flags=re.MULTILINE)[1]
    found = re.search(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("title", "package", "printed"),
    [
        ("onnx_ir", "onnx_ir", "True 3 folded\n"),
        ("PyTorch", "onnxscript", "['Conv']\n"),
        ("Olive", "olive", ""),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_the_python_runs(
    title: str,
    package: str,
    printed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip(package)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    shutil.copytree(ROOT / "models", tmp_path / "models", ignore=shutil.ignore_patterns("*.py"))
    monkeypatch.chdir(tmp_path)
    exec(example(title, "python").replace(PLACE, str(tmp_path)), {})  # noqa: S102 - our own page
    assert capsys.readouterr().out.endswith(printed)


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    lines = example("Model Explorer", "bash").replace(PLACE, str(tmp_path)).splitlines()
    ours = [shlex.split(line)[1:] for line in lines if line.startswith("bnfold ")]
    for arguments in ours:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.stderr
    (theirs,) = (shlex.split(line) for line in lines if line.startswith("model-explorer "))
    assert Path(theirs[1]).is_file()
    assert Path(theirs[-1].removeprefix("--node_data_paths=")).is_file()


def test_the_colours_are_those_of_the_file() -> None:
    limits = re.findall(r"^\| up to ([\d.]+) \|", PAGE, re.MULTILINE)
    assert [float(limit) for limit in limits] == [limit for limit, _ in model_explorer.COLOURS]
