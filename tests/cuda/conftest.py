"""Tests that need an NVIDIA GPU. Without one they are skipped, with the reason."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from bnfold.check import check
from bnfold.errors import ProviderError

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"


@functools.cache
def missing() -> str | None:
    """Why nothing runs on CUDA here, or None if it does."""
    try:
        check(DIGITS, DIGITS, providers="cuda", level="disable_all")
    except ProviderError as error:
        return error.message
    return None


@pytest.fixture(autouse=True)
def _gpu() -> None:
    why = missing()
    if why is not None:
        pytest.skip(why)
