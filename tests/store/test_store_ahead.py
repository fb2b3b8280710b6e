"""Blocks computed ahead in threads: the same bytes, errors where due, nothing left over."""

import threading

import numpy as np
import pytest

from bnfold.store.ahead import read_ahead
from bnfold.store.tensors import ArraySource, LazyBytes

_FLOAT = 1


class _Counting(ArraySource):
    """A tensor that notes how many of its blocks were asked for, and may fail at one."""

    def __init__(self, array, fails_at=None):
        super().__init__(array)
        self.asked = 0
        self._fails_at = fails_at

    def blocks(self):
        for part in np.array_split(self.array.reshape(-1), 64):
            if self.asked == self._fails_at:
                raise ArithmeticError("this block")
            self.asked += 1
            yield part


def _tensor(megabytes, seed=0, **options):
    values = np.random.default_rng(seed).standard_normal((megabytes << 18,), np.float32)
    return LazyBytes(_Counting(values, **options), _FLOAT, values.nbytes)


def _workers():
    return [each for each in threading.enumerate() if each is not threading.main_thread()]


def _collect(blocks, got):
    for block in blocks:
        got += block


def test_order_is_that_of_the_pieces():
    tensors = [_tensor(1 + seed % 3, seed) for seed in range(9)]
    tensors.insert(3, LazyBytes(ArraySource(np.float32([1, 2])), _FLOAT, 8))
    pieces = [piece for tensor in tensors for piece in (memoryview(b"between"), tensor)]
    expected = b"".join(b"between" + tensor.source.array.tobytes() for tensor in tensors)
    assert b"".join(read_ahead(pieces)) == expected


def test_an_error_comes_where_the_block_is_due():
    good, bad = _tensor(2), _tensor(2, fails_at=20)
    before = set(_workers())
    got = bytearray()
    with pytest.raises(ArithmeticError, match="this block"):
        _collect(read_ahead([good, bad, _tensor(2)]), got)
    assert got[: good.nbytes] == good.source.array.tobytes()
    assert good.nbytes < len(got) < good.nbytes + bad.nbytes
    assert set(_workers()) <= before


def test_a_writer_that_stops_leaves_no_thread_and_little_was_computed():
    tensors = [_tensor(2, seed) for seed in range(8)]
    before = set(_workers())
    blocks = read_ahead(tensors)
    next(blocks)
    blocks.close()
    assert set(_workers()) <= before
    assert sum(tensor.source.asked for tensor in tensors) < 100
