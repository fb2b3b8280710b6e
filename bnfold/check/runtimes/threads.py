"""How many threads a session may use."""

from __future__ import annotations

import os
from typing import Any

__all__ = ["limit_threads"]


def limit_threads(options: Any) -> None:
    """Let ``OMP_NUM_THREADS`` bound a session, as it bounds the other numerical libraries.

    ONNX Runtime itself does not look at it, and takes every core for every process.

    Args:
        options: ``SessionOptions``, to be changed.
    """
    count = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if count.isdecimal() and int(count):
        options.intra_op_num_threads = int(count)
