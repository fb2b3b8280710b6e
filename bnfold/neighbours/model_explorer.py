"""The error of every layer as an overlay for Model Explorer: its *node data*, a JSON file.

The file colours the nodes of the candidate. A node has the largest difference of the tensors that
it makes, divided by the difference that would have passed: up to 1 is within noise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import onnx

from bnfold.report import CheckReport

__all__ = ["node_data"]

LARGEST = 1e6
"""What stands for anything larger, for infinity and NaN: JSON has no number for them."""

COLOURS = ((0.25, "#d3f9d8"), (1.0, "#fff3bf"), (10.0, "#ffc078"), (LARGEST, "#ff8787"))
"""Up to which value a node has which colour."""


def node_data(model: onnx.ModelProto, checks: Sequence[CheckReport]) -> dict[str, Any]:
    """Return the node data of a comparison.

    Args:
        model: The candidate, its weights inside or not.
        checks: How it compares with the reference. Without a localization, which equivalent models
            have none of, the nodes are those that make the outputs.

    Returns:
        ``{graph: {"name", "results": {node: {"value"}}, "thresholds"}}``. Nodes and graph are
        named as the ONNX adapter of Model Explorer names them.
    """
    nodes = {
        output: name
        for node, name in zip(model.graph.node, _names(model.graph), strict=True)
        for output in node.output
        if output
    }
    results: dict[str, float] = {}
    for tensor, share in _shares(checks):
        if tensor in nodes:
            node = nodes[tensor]
            results[node] = max(share, results.get(node, 0.0))
    return {
        model.graph.name or "<main>": {
            "name": "bnfold: difference / allowed",
            "results": {node: {"value": share} for node, share in results.items()},
            "thresholds": [
                {"value": limit, "bgColor": colour, "textColor": "#000000"}
                for limit, colour in COLOURS
            ],
        }
    }


def _names(graph: onnx.GraphProto) -> list[str]:
    """Return the names under which the nodes are shown: every node has one of its own."""
    used: dict[str, None] = {}
    counts: Counter[str] = Counter()
    for node in graph.node:
        name = base = node.name or "node"
        while name in used:
            counts[base] += 1
            name = f"{base}_{counts[base]}"
        used[name] = None
    return list(used)


def _shares(checks: Sequence[CheckReport]) -> Iterator[tuple[str, float]]:
    """Yield tensors, and how much of the difference that would have passed each of them uses."""
    for check in checks:
        for output in check.outputs:
            yield output.name, _share(output.difference, output.allowed)
        for layer in check.localization.layers if check.localization else ():
            yield layer.tensor, _share(layer.difference, layer.allowed)


def _share(difference: float, allowed: float) -> float:
    if difference == 0:
        return 0.0
    share = difference / allowed if allowed > 0 else math.inf
    return min(float(f"{share:.3g}"), LARGEST) if math.isfinite(share) else LARGEST
