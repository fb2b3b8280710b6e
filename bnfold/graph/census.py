"""How many nodes of each operator a model has."""

from __future__ import annotations

from collections import Counter

from onnx import ModelProto

__all__ = ["operator_counts"]


def operator_counts(model: ModelProto) -> dict[str, int]:
    """Return the number of nodes of the main graph by operator, the most frequent first.

    Operators of another domain than ONNX have it before their name: ``com.microsoft.FusedConv``.
    """
    counts = Counter(
        f"{node.domain}.{node.op_type}" if node.domain not in {"", "ai.onnx"} else node.op_type
        for node in model.graph.node
    )
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
