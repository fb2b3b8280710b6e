"""Legal models that mutations start from: small, and with much that a fold looks at."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

from tests.generate.model import random_model
from tests.hostile.graphs import bn_model

__all__ = ["model_seeds"]

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"
GENERATED = 60


@cache
def model_seeds() -> tuple[bytes, ...]:
    """Serialized models, the same every time."""
    drawn = (
        random_model(random.Random(seed)).model.SerializeToString()  # noqa: S311 - not for secrets
        for seed in range(GENERATED)
    )
    return (bn_model().SerializeToString(), DIGITS.read_bytes(), *drawn)
