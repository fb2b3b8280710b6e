from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnfold.affine import Affine
from bnfold.lazy import Scaled, round_to

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4, 3, 5))


def channelwise() -> Affine:
    return Affine.of(*(RNG.normal(size=(1, 4, 1, 1)) for _ in range(3)))


def test_batchnorm_is_what_the_operator_says() -> None:
    gamma, beta, mean = RNG.normal(size=(3, 4))
    var = RNG.uniform(0.5, 2, size=4)
    affine = Affine.from_batchnorm(gamma, beta, mean, var, 1e-3, rank=4)
    by_hand = np.stack(
        [(X[:, c] - mean[c]) / np.sqrt(var[c] + 1e-3) * gamma[c] + beta[c] for c in range(4)], 1
    )
    np.testing.assert_allclose(affine.apply(X), by_hand, rtol=1e-13)


@pytest.mark.parametrize("var", [-1.0, 0.0, np.nan])
def test_batchnorm_without_a_deviation_is_not_finite(var: float) -> None:
    assert not Affine.from_batchnorm([1.0], [0.0], [0.0], [var], 0.0, rank=2).finite


def test_parameters_of_a_narrow_type_are_computed_with_in_float64() -> None:
    vectors = [np.array([value], np.float32) for value in (0.1, 0.2, 1e4, 0.3)]
    gamma, beta, mean, var = (float(vector[0]) for vector in vectors)
    affine = Affine.from_batchnorm(*vectors, 1e-5, rank=2)
    assert affine.apply(np.array([[3.0]])).item() == (
        (3.0 - mean) * (gamma / np.sqrt(var + 1e-5)) + beta
    )
    built = Affine.of(*(vector.reshape(1, 1) for vector in vectors[:3]))
    assert {a.dtype for a in (built.scale, built.shift, built.center)} == {np.dtype(np.float64)}
    assert built.apply(np.array([[2]], np.float16)).item() == (2.0 - mean) * gamma + beta


def test_a_variance_below_epsilon_has_a_deviation() -> None:
    affine = Affine.from_batchnorm([2.0], [0.0], [0.0], [1e-7], 1e-3, rank=2)
    assert affine.scale.item() == 2.0 / np.sqrt(1e-7 + 1e-3)


@pytest.mark.parametrize(
    ("other", "same"), [((2.0, 1.0), True), ((2.0, 0.0), False), ((3.0, 1.0), False)]
)
def test_same_as_compares_scale_and_offset(other: tuple[float, float], same: bool) -> None:
    one = Affine.of([[2.0]], [[3.0]], [[1.0]])
    assert one.same_as(Affine.of([[other[0]]], [[other[1]]])) is same


IDLE = (1.0, 0.0)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ([IDLE, (2.0, 3.0)], [(4.0, 5.0), IDLE], [(4.0, 5.0), (2.0, 3.0)]),
        ([(2.0, 3.0), IDLE], [(2.0, 3.0), (4.0, 5.0)], [(2.0, 3.0), (4.0, 5.0)]),
        ([(2.0, 3.0)], [(2.0, 3.0)], [(2.0, 3.0)]),
        ([(2.0, 3.0), IDLE], [(2.0, 4.0), IDLE], None),
        ([(2.0, 3.0), IDLE], [(4.0, 3.0), IDLE], None),
        ([(1.0, 3.0)], [(1.0, 4.0)], None),
        ([(2.0, 0.0)], [(3.0, 0.0)], None),
        ([(1.0, 3.0)], [(2.0, 0.0)], None),
        ([(2.0, 0.0)], [(1.0, 3.0)], None),
        ([(2.0, 3.0), IDLE], [(2.0, 3.0), IDLE, IDLE], None),
    ],
)
def test_merged_takes_what_is_not_the_identity(
    one: list[tuple[float, float]],
    other: list[tuple[float, float]],
    both: list[tuple[float, float]] | None,
) -> None:
    first, second = (Affine.of(*np.array([each]).transpose(2, 0, 1)) for each in (one, other))
    merged = first.merged(second)
    if both is None:
        assert merged is None
    else:
        assert merged is not None
        assert merged.same_as(Affine.of(*np.array([both]).transpose(2, 0, 1)))


def test_two_equal_elements_are_stored_as_one() -> None:
    assert Affine.of([[2.0, 2.0]], [[0.0, 0.0]]).is_uniform
    assert Affine.of([[2.0, 3.0]], [[0.0, 0.0]]).axes == {1}


def test_composition_applies_one_after_the_other() -> None:
    first, second = channelwise(), channelwise()
    np.testing.assert_allclose(
        first.then(second).apply(X), second.apply(first.apply(X)), rtol=1e-12
    )


def test_the_center_keeps_what_cancels() -> None:
    affine = Affine.from_batchnorm([1.0], [0.25], [1e12], [1.0], 0.0, rank=2)
    assert affine.apply(1e12 + 0.5).item() == 0.75


def test_arrays_follow_the_tensor() -> None:
    a = channelwise()
    perm = (3, 1, 0, 2)
    np.testing.assert_array_equal(
        a.transpose(perm).apply(X.transpose(perm)), a.apply(X).transpose(perm)
    )
    chosen = np.array([3, 0])
    np.testing.assert_array_equal(a.take(1, chosen).apply(X[:, chosen]), a.apply(X)[:, chosen])
    both = Affine.concatenate([a, Affine.identity(4)], 1, [4, 4])
    np.testing.assert_array_equal(
        both.apply(np.concatenate([X, X], 1)), np.concatenate([a.apply(X), X], 1)
    )
    whole = a.scatter(1, np.array([1, 2, 5, 0]), 6)
    np.testing.assert_array_equal(whole.axes, frozenset({1}))
    assert whole.take(1, np.array([1, 2, 5, 0])).same_as(a)
    assert whole.take(1, np.array([3, 4])).is_identity


def test_axes_that_do_not_vary_are_not_stored() -> None:
    a = Affine.of(np.full((1, 4, 3, 1), 2.0), np.zeros((1, 4, 3, 1)))
    assert a.is_uniform
    assert a.along(1, 4) is not None
    assert channelwise().along(2, 3) is None


@settings(derandomize=True, deadline=None)
@given(st.floats(-1e38, 1e38, allow_subnormal=False))
def test_bfloat16_is_rounded_once(value: float) -> None:
    """The nearest of the two neighbours, the even one at a tie; computed with exact fractions."""
    found = float(round_to(np.array([value]), np.dtype(ml_dtypes.bfloat16))[0])
    mantissa, exponent = np.frexp(value)
    exact = np.ldexp(np.round(np.ldexp(mantissa, 8)), exponent - 8)
    if abs(exact) > 1e-37:
        assert found == exact


def test_bfloat16_where_two_roundings_go_wrong() -> None:
    just_above_half = np.array([1 + 2**-8 + 2**-40])
    assert just_above_half.astype(ml_dtypes.bfloat16)[0] == 1.0
    assert round_to(just_above_half, np.dtype(ml_dtypes.bfloat16))[0] == 1 + 2**-7


def test_two_scales_are_rounded_once() -> None:
    base = RNG.normal(size=(300, 40)).astype(np.float32)
    s, t = RNG.normal(size=(300, 1)), RNG.normal(size=(1, 40))
    lazy = Scaled(base, None, np.dtype(np.float32)).times(s).times(t)
    exact = (base.astype(np.float64) * (s * t)).astype(np.float32)
    np.testing.assert_array_equal(lazy.rounded(), exact)
    np.testing.assert_array_equal(np.concatenate(list(lazy.blocks())), exact.reshape(-1))


def test_blocks_of_a_large_tensor_are_small() -> None:
    base = np.broadcast_to(np.float32(0.5), (3, 2000, 1000))
    lazy = Scaled(base, RNG.normal(size=(3, 2000, 1)), np.dtype(np.float32))
    sizes = [block.size for block in lazy.blocks()]
    assert sum(sizes) == base.size
    assert max(sizes) <= 1 << 20


@pytest.mark.parametrize(
    ("scale", "verdict"), [(1.0, None), (1e6, "overflows"), (1e-9, "underflows"), (0.0, None)]
)
def test_range_of_float16(scale: float, verdict: str | None) -> None:
    base = np.array([[0.5, 1.0]], np.float16)
    assert Scaled(base, np.array([[scale]]), np.dtype(np.float16)).out_of_range() == verdict
