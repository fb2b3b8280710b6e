"""Lazy tensors computed ahead of the writer, in threads: NumPy releases the GIL where it computes.

Each thread evaluates one tensor at a time and stays a few blocks ahead at most, so memory does not
grow with the tensors. The order of the bytes is that of the pieces, whatever the threads do.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TypeGuard

from bnfold.store.files import FileRange
from bnfold.store.tensors import LazyBytes
from bnfold.store.wire import Piece

__all__ = ["read_ahead"]

_WORTHWHILE = 1 << 20
_THREADS = 4
_BLOCKS_AHEAD = 4


def read_ahead(pieces: Sequence[Piece]) -> Iterator[memoryview | FileRange]:
    """Yield pieces in order: ranges of files as they are, lazy tensors block by block.

    Raises:
        BaseException: Whatever the evaluation of a tensor raises, where its next block is due.
    """
    waiting = deque(each for each in pieces if _is_worth_a_thread(each))
    running: deque[_Evaluation] = deque()
    threads = min(_THREADS, _cores())
    try:
        for piece in pieces:
            while waiting and len(running) < threads:
                running.append(_Evaluation(waiting.popleft()))
            if isinstance(piece, memoryview | FileRange):
                yield piece
            elif _is_worth_a_thread(piece):
                yield from running.popleft()
            else:
                yield from piece.blocks()
    finally:
        for evaluation in running:
            evaluation.stop()


def _is_worth_a_thread(piece: Piece) -> TypeGuard[LazyBytes]:
    """Whether starting a thread takes little time beside computing it."""
    return isinstance(piece, LazyBytes) and piece.nbytes >= _WORTHWHILE


class _Evaluation:
    """The blocks of one tensor, computed in a thread of their own."""

    def __init__(self, tensor: LazyBytes) -> None:
        self._tensor = tensor
        self._blocks: queue.Queue[memoryview | BaseException | None] = queue.Queue(_BLOCKS_AHEAD)
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[memoryview]:
        try:
            while (block := self._blocks.get()) is not None:
                if isinstance(block, BaseException):
                    raise block
                yield block
        finally:
            self.stop()

    def stop(self) -> None:
        """End the thread, whether or not all blocks were asked for."""
        self._is_stopped = True
        while self._thread.is_alive():
            try:
                self._blocks.get(timeout=0.01)
            except queue.Empty:
                continue

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            for block in self._tensor.blocks():
                if self._is_stopped:
                    return
                self._blocks.put(block)
        except BaseException as error:  # noqa: BLE001 - raised again where the block is due
            end = error
        self._blocks.put(end)


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
