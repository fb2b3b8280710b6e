"""Windows and kernels against convolutions written out, along one axis."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bnfold.graph.merge.windows import Axis, align, compose
from bnfold.kernels import Joined, Placed, Product, contract, depthwise
from bnfold.lazy import Scaled

F64 = np.dtype(np.float64)


def lazy(array: np.ndarray) -> Scaled:
    return Scaled(array, None, F64)


def conv(x: np.ndarray, weight: np.ndarray, axis: Axis, groups: int = 1) -> np.ndarray:
    """(C, L) to (M, L'), tap by tap."""
    padded = np.pad(x, ((0, 0), (axis.begin, axis.end)))
    count = (padded.shape[1] - axis.reach) // axis.stride + 1
    rows, width, _ = weight.shape
    out = np.zeros((rows, max(count, 0)))
    for m in range(rows):
        first = m // (rows // groups) * width
        for o in range(out.shape[1]):
            at = o * axis.stride + axis.dilation * np.arange(axis.kernel)
            out[m, o] = (weight[m] * padded[first : first + width, at]).sum()
    return out


def transposed(x: np.ndarray, weight: np.ndarray, axis: Axis) -> np.ndarray:
    length = (x.shape[1] - 1) * axis.stride + axis.reach + axis.extra
    out = np.zeros((weight.shape[1], length))
    for j in range(x.shape[1]):
        for i in range(axis.kernel):
            out[:, j * axis.stride + i * axis.dilation] += weight[:, :, i].T @ x[:, j]
    return out[:, axis.begin : length - axis.end]


def some_axis(rng: random.Random, *, stride: int | None = None) -> Axis:
    kernel = rng.randint(1, 3)
    dilation = rng.randint(1, 2) if kernel > 1 else 1
    stride = rng.randint(1, 2) if stride is None else stride
    return Axis(kernel, stride, dilation, rng.randint(0, 2), rng.randint(0, 2))


@pytest.mark.parametrize("seed", range(20))
def test_side_by_side(seed: int) -> None:
    rng, data = random.Random(seed), np.random.default_rng(seed)  # noqa: S311 - not for secrets
    merged = 0
    for _ in range(60):
        stride = rng.randint(1, 2)
        axes = [some_axis(rng, stride=stride) for _ in range(rng.randint(2, 3))]
        if rng.random() < 0.5:
            axes = [axis for axis in axes if axis.slack == axes[0].slack]
        length = rng.randint(6, 9)
        known = rng.random() < 0.5
        found = align(axes, transposed=False, length=length if known else None)
        weights = [data.normal(size=(3, 2, axis.kernel)) for axis in axes]
        x = data.normal(size=(2, length))
        parts = [conv(x, w, axis) for w, axis in zip(weights, axes, strict=True)]
        if isinstance(found, str):
            assert not known or len({p.shape for p in parts}) > 1
            continue
        merged += 1
        window, places = found
        kernel = np.zeros((3, 2, window.kernel))
        for weight, place in zip(weights, places, strict=True):
            kernel[:, :, place] += weight
        np.testing.assert_allclose(conv(x, kernel, window), sum(parts), atol=1e-12)
    assert merged


@pytest.mark.parametrize("seed", range(10))
def test_transposed_side_by_side(seed: int) -> None:
    rng, data = random.Random(seed), np.random.default_rng(seed)  # noqa: S311 - not for secrets
    merged = 0
    for _ in range(80):
        stride = rng.randint(1, 2)
        axes = []
        for _ in range(2):
            axis = some_axis(rng, stride=stride)
            extra = rng.randint(0, stride - 1)
            axes.append(Axis(axis.kernel, stride, axis.dilation, axis.begin, axis.end, extra))
        found = align(axes, transposed=True, length=None)
        if isinstance(found, str):
            continue
        window, places = found
        assert window.extra < stride
        weights = [data.normal(size=(2, 3, axis.kernel)) for axis in axes]
        kernel = np.zeros((2, 3, window.kernel))
        for weight, place in zip(weights, places, strict=True):
            kernel[:, :, place] += weight
        x = data.normal(size=(2, 7))
        parts = [transposed(x, w, axis) for w, axis in zip(weights, axes, strict=True)]
        merged += 1
        np.testing.assert_allclose(transposed(x, kernel, window), sum(parts), atol=1e-12)
    assert merged


@pytest.mark.parametrize("seed", range(30))
def test_one_behind_the_other(seed: int) -> None:
    rng, data = random.Random(seed), np.random.default_rng(seed)  # noqa: S311 - not for secrets
    merged = refused = 0
    for _ in range(60):
        inner, outer = some_axis(rng), some_axis(rng)
        silent = rng.random() < 0.7
        first, second = (
            data.normal(size=(2, 3, inner.kernel)),
            data.normal(size=(4, 2, outer.kernel)),
        )
        bias = np.zeros(2) if silent else data.normal(size=2)
        x = data.normal(size=(3, rng.randint(7, 11)))
        middle = conv(x, first, inner) + bias[:, None]
        expected = conv(middle, second, outer)
        found = compose(outer, inner, silent=silent)
        if isinstance(found, str):
            refused += 1
            continue
        merged += 1
        window, left, right = found
        args = ((window.kernel,), (left,), (right,), F64)
        weight = Product(lazy(second), 1, lazy(first), 1, 1, *args).float64()
        carried = np.einsum("mck,c->m", second, bias)
        np.testing.assert_allclose(conv(x, weight, window) + carried[:, None], expected, atol=1e-12)
    assert merged
    assert refused


@pytest.mark.parametrize(("outer", "inner"), [(1, 2), (2, 1), (2, 4), (4, 2), (2, 3), (6, 3)])
def test_product_of_groups(outer: int, inner: int) -> None:
    data = np.random.default_rng(0)
    first = data.normal(size=(12, 12 // inner, 2))
    second = data.normal(size=(24, 12 // outer, 3))
    groups = int(np.gcd(outer, inner))
    product = Product(lazy(second), outer, lazy(first), inner, groups, (4,), (1,), (1,), F64)
    x = data.normal(size=(12, 9))
    expected = conv(conv(x, first, Axis(2), inner), second, Axis(3), outer)
    found = conv(x, product.float64(), Axis(4), groups)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    rows = np.concatenate([product.rows(i, min(i + 5, 24)) for i in range(0, 24, 5)])
    np.testing.assert_allclose(rows, product.float64(), atol=1e-12)


def test_blocks_are_the_whole() -> None:
    data = np.random.default_rng(0)
    dense = data.normal(size=(700, 60, 3, 3)).astype(np.float32)
    diagonal = depthwise(data.normal(size=700), (1, 1), np.dtype(np.float32))
    parts = (
        Placed(Scaled(dense, None, np.dtype(np.float32)), 1, (slice(0, 3), slice(0, 3))),
        Placed(diagonal, 700, (slice(1, 2), slice(1, 2))),
    )
    joined = Joined((700, 700, 3, 3), 1, parts, None, np.dtype(np.float32))
    wide = joined.times(data.normal(size=(700, 1, 1, 1)))
    assert sum(1 for _ in wide.blocks()) > 1
    np.testing.assert_array_equal(np.concatenate(list(wide.blocks())), wide.rounded().reshape(-1))
    swapped = wide.swapped()
    np.testing.assert_array_equal(swapped.rows(3, 5), wide.float64().swapaxes(0, 1)[3:5])
    assert wide.same_as(joined.times(wide.scale))
    assert not wide.same_as(joined)


def test_contract() -> None:
    data = np.random.default_rng(0)
    weight, shift = data.normal(size=(5, 4, 3)), data.normal(size=4)
    expected = np.einsum("rsk,s->rk", weight, shift)[:, None]
    np.testing.assert_allclose(contract(lazy(weight), shift), expected)
