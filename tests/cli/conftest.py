from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from bnfold import pipeline
from bnfold.cli import main
from bnfold.store import ArraySource

ROOT = Path(__file__).parents[2]

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Run the command line in this process."""

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A copy of the digits model, alone in a directory: three batch normalizations, all fold."""
    return Path(shutil.copy(ROOT / "models" / "digits.onnx", tmp_path / "digits.onnx"))


@pytest.fixture
def wrong_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold that spoils a bias: what the check is there to catch."""
    right = pipeline.fold_model

    def wrong(model: Any, options: Any) -> Any:
        result = right(model, options)
        bias = next(t for t in model.proto.graph.initializer if t.name == "fc2.bias")
        model.tensors.attach(bias, ArraySource(model.tensors.array(bias) + np.float32(0.01)))
        return result

    monkeypatch.setattr(pipeline, "fold_model", wrong)
