"""A slice of the attack of tests/differential, small enough for every run."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from tests.differential import attack
from tests.generate.model import Wishes, random_model

SETTINGS = settings(
    max_examples=80,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # python -m tests.differential makes models small
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
SOURCES = st.randoms(note_method_calls=False, use_true_random=False)
KINDS = [TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16]


@pytest.mark.parametrize("kind", KINDS, ids=TensorProto.DataType.Name)
@SETTINGS
@given(rng=SOURCES)
def test_shrinking_models(kind: int, rng: random.Random) -> None:
    attack(random_model(rng, Wishes(kind=kind)))


@pytest.mark.parametrize("start", range(0, 600, 300))
def test_seeded_models(start: int) -> None:
    for seed in range(start, start + 300):
        attack(random_model(random.Random(seed)))  # noqa: S311 - not for secrets


@pytest.mark.slow
@pytest.mark.parametrize("start", range(10_000, 60_000, 10_000))
def test_many_models(start: int) -> None:
    for seed in range(start, start + 10_000):
        attack(random_model(random.Random(seed)))  # noqa: S311 - not for secrets
