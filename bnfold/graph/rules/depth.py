"""DepthToSpace and SpaceToDepth: channels become positions, and the other way round.

The deep side has blocksize**2 as many channels as the shallow one; each of its channels belongs to
one of the shallow side, and the affine follows that map.

Source: the ONNX operator specification of DepthToSpace and SpaceToDepth.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bnfold.affine import Affine
from bnfold.graph.facts import Facts, length_of, unknown_length
from bnfold.graph.index import Node, Value
from bnfold.graph.plan import Answer, Refusal, Rule, Step
from bnfold.report import Reason

__all__ = ["RULES"]

Indices = NDArray[np.int64]


def _deep_channels(node: Node, value: Value | None, facts: Facts) -> tuple[int, int] | None:
    """Number of channels on the deep side, and block size squared."""
    block = node.attribute("blocksize", 0) ** 2
    length = length_of(value, 1, facts)
    return None if length is None or block == 0 else (length, block)


def _shallow_of_deep(node: Node, deep: int, block: int) -> Indices:
    """For each channel of the deep side, its channel on the shallow side."""
    channels = np.arange(deep)
    columns_first = node.op == "DepthToSpace" and node.attribute("mode") == "CRD"
    return channels // block if columns_first else channels % (deep // block)


def _to_deep(node: Node, affine: Affine, value: Value | None, facts: Facts) -> Answer:
    if not affine.axes <= {0, 1}:
        return Refusal(Reason.NOT_PER_CHANNEL, f'"{node.name}" moves positions into channels')
    sizes = _deep_channels(node, value, facts)
    if sizes is None:
        return [Step(passes={0: affine})] if 1 not in affine.axes else unknown_length(node, 1)
    return [Step(passes={0: affine.take(1, _shallow_of_deep(node, *sizes))})]


def _to_shallow(node: Node, affine: Affine, value: Value | None, facts: Facts) -> Answer:
    if not affine.axes <= {0, 1}:
        return Refusal(Reason.NOT_PER_CHANNEL, f'"{node.name}" moves channels into positions')
    if 1 not in affine.axes:
        return [Step(passes={0: affine})]
    sizes = _deep_channels(node, value, facts)
    if sizes is None:
        return unknown_length(node, 1)
    origin = _shallow_of_deep(node, *sizes)
    _, first = np.unique(origin, return_index=True)
    shallow = affine.take(1, first)
    if not shallow.take(1, origin).same_as(affine):
        return Refusal(
            Reason.NOT_PER_CHANNEL, f'"{node.name}" mixes channels with different affines'
        )
    return [Step(passes={0: shallow})]


def _depth_backward(node: Node, demands: Mapping[int, Affine], facts: Facts) -> Answer:
    side = _to_deep if node.op == "DepthToSpace" else _to_shallow
    deep = node.input(0) if node.op == "DepthToSpace" else node.output()
    return side(node, demands[0], deep, facts)


def _depth_forward(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
    side = _to_shallow if node.op == "DepthToSpace" else _to_deep
    deep = node.input(0) if node.op == "DepthToSpace" else node.output()
    return side(node, pending[0], deep, facts)


_DEPTH = Rule(
    _depth_backward,
    _depth_forward,
    takes="any per channel",
    gives="any per channel; towards fewer channels only if those that merge agree",
    equation="channels are mapped, in both modes",
)

RULES = {"DepthToSpace": _DEPTH, "SpaceToDepth": _DEPTH}
