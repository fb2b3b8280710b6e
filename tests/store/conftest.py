"""Fixtures for the tests of the store."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from store_models import MODELS, conv_model


@pytest.fixture(params=MODELS)
def proto(request: pytest.FixtureRequest) -> onnx.ModelProto:
    return MODELS[request.param]()


@pytest.fixture
def conv() -> onnx.ModelProto:
    return conv_model()


@pytest.fixture
def embedded(tmp_path: Path, conv: onnx.ModelProto) -> Path:
    """A directory ``src`` with a model whose weights are inside."""
    path = tmp_path / "src" / "m.onnx"
    path.parent.mkdir()
    path.write_bytes(conv.SerializeToString(deterministic=True))
    return path


@pytest.fixture
def external(tmp_path: Path, conv: onnx.ModelProto) -> Path:
    """A directory ``src`` with a model whose weights are all in m.onnx.data."""
    path = tmp_path / "src" / "m.onnx"
    path.parent.mkdir(exist_ok=True)
    onnx.save(conv, path, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    return path
