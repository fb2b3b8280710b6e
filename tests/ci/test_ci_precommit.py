"""The hooks, run by pre-commit itself in a repository of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="hooks are YAML")
pytest.importorskip("pre_commit", reason="it runs the hooks")

ROOT = Path(__file__).parents[2]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="pre-commit needs git")


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that finds ours, and no configuration of whoever runs the tests."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PRE_COMMIT_HOME": str(cwd.parent / "pre-commit"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
    }
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def hooks(cwd: Path, *names: str) -> subprocess.CompletedProcess[str]:
    run("git", "add", "--all", cwd=cwd)
    return run(sys.executable, "-m", "pre_commit", "run", "--all-files", *names, cwd=cwd)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a model that is not folded."""
    folder = tmp_path / "repository"
    folder.mkdir()
    assert run("git", "init", cwd=folder).returncode == 0
    shutil.copy(ROOT / "models" / "digits.onnx", folder / "a b.onnx")
    (folder / "a.onnx.txt").write_text("no model\n", encoding="utf-8")
    return folder


def configure(folder: Path, config: dict[str, Any]) -> None:
    text = yaml.safe_dump(config)
    (folder / ".pre-commit-config.yaml").write_text(text, encoding="utf-8")


def test_the_hooks_are_valid() -> None:
    result = run(
        sys.executable, "-m", "pre_commit", "validate-manifest", ".pre-commit-hooks.yaml", cwd=ROOT
    )
    assert result.returncode == 0, result.stdout
    assert [hook["id"] for hook in HOOKS] == ["bnfold-folded", "bnfold-fold"]


def test_the_hooks_in_this_environment(repository: Path) -> None:
    """Everything but the environment that pre-commit installs is as in a user's repository."""
    ours = [
        {key: value for key, value in hook.items() if key != "additional_dependencies"}
        | {"language": "system"}
        for hook in HOOKS
    ]
    configure(repository, {"repos": [{"repo": "local", "hooks": ours}]})
    result = hooks(repository)
    assert result.returncode == 1
    assert "a b.onnx: not folded, 3 sites would go" in result.stdout
    assert "bnfold optimize 'a b.onnx' --in-place" in result.stdout
    assert "files were modified by this hook" in result.stdout
    assert "a.onnx.txt" not in result.stdout
    result = hooks(repository)
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("Passed") == 2


@pytest.mark.slow
def test_the_hooks_as_pre_commit_installs_them(repository: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("pre-commit installs from a repository, and this is none")
    revision = run("git", "rev-parse", "HEAD", cwd=ROOT).stdout.strip()
    chosen = [{"id": hook["id"]} for hook in HOOKS]
    configure(repository, {"repos": [{"repo": str(ROOT), "rev": revision, "hooks": chosen}]})
    installed = run(sys.executable, "-m", "pre_commit", "install-hooks", cwd=repository)
    if installed.returncode:
        pytest.skip(f"the packages cannot be installed here: {installed.stdout[-200:]}")
    result = hooks(repository)
    assert result.returncode == 1
    assert "a b.onnx: not folded, 3 sites would go" in result.stdout
    assert "files were modified by this hook" in result.stdout
    assert hooks(repository).returncode == 0
