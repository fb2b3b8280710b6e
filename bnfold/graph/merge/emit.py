"""A merged operator as edits of the node that stays.

The node that stays is the largest of those that go into it; it keeps its name. Its weight, bias and
window become those of the merged operator, and attributes that say the same as before are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bnfold.graph.constants import FLOATS
from bnfold.graph.index import Node
from bnfold.graph.merge.operators import Operator
from bnfold.graph.merge.readers import Link
from bnfold.graph.plan import AppendAdd, Edit, Refusal, SetAttributes, SetConstant, dense
from bnfold.graph.rules.parameters import store_bias
from bnfold.lazy import Unrounded
from bnfold.report import Reason

__all__ = ["rewrite", "survivor"]

MAX_DEPTH = 16
"""Merges of merges that a weight is made of while it is written; more are computed at once."""


def survivor(links: Iterable[Link]) -> Link:
    """The link that stays: that of the most work, Gemm before MatMul, the first of equals."""
    own = [link for link in links if link.operator is not None]
    return max(own, key=lambda link: (link.node.op == "Gemm", link.work))


def rewrite(link: Link, merged: Operator) -> Sequence[Edit] | Refusal:
    """The edits that make the node of ``link`` compute ``merged`` from the same input.

    Args:
        link: The node that stays.
        merged: What it is to compute.
    """
    node = link.node
    if not np.isfinite(merged.bias).all():
        return Refusal(Reason.OVERFLOW, f'the merged bias of "{node.name}" is not finite')
    if merged.form.is_matrix:
        return _rewrite_matrix(link, merged)
    weight, bias = _weight(node, 1, merged), _bias(link, merged)
    for edits in (weight, bias):
        if isinstance(edits, Refusal):
            return edits
    return [*weight, *bias, *_window(link, merged)]  # type: ignore[misc]


def _weight(node: Node, index: int, merged: Operator) -> Sequence[Edit] | Refusal:
    weight = _shallow(merged.weight)
    trouble = weight.out_of_range()
    if trouble is not None:
        return Refusal(Reason.OVERFLOW, f'the merged weight of "{node.name}" {trouble}')
    return [SetConstant(node, index, weight, merged.form.elem_type, "weight")]


def _bias(link: Link, merged: Operator) -> Sequence[Edit] | Refusal:
    if _keeps_bias(link, merged):
        return ()
    return store_bias(link.node, 2, merged.bias, merged.form.elem_type)


def _keeps_bias(link: Link, merged: Operator) -> bool:
    """True if the node adds the right bias already, or has none where none is wanted.

    A C that counts for nothing, with beta = 0, must still fit the shape of the result.
    """
    own = link.operator
    assert own is not None  # noqa: S101 - the survivor has an operator
    if link.node.input(2) is None:
        return not merged.bias.any()
    return own.outputs == merged.outputs and np.array_equal(own.bias, merged.bias)


def _shallow(weight: Unrounded) -> Unrounded:
    """The weight, computed where it is made of too many others."""
    return dense(weight.float64(), weight.dtype) if weight.depth > MAX_DEPTH else weight


def _window(link: Link, merged: Operator) -> list[Edit]:
    own = link.operator
    assert own is not None  # noqa: S101 - the survivor has an operator
    if own.axes == merged.axes and own.groups == merged.groups:
        return []
    axes, node = merged.axes, link.node
    pads = [axis.begin for axis in axes] + [axis.end for axis in axes]
    wanted: dict[str, tuple[Any, Any]] = {
        "kernel_shape": ([axis.kernel for axis in axes], None),
        "strides": ([axis.stride for axis in axes], [1] * len(axes)),
        "dilations": ([axis.dilation for axis in axes], [1] * len(axes)),
        "pads": (pads, [0] * len(pads)),
        "output_padding": ([axis.extra for axis in axes], [0] * len(axes)),
        "group": (merged.groups, 1),
    }
    values: dict[str, Any] = {"auto_pad": None}
    for name, (value, default) in wanted.items():
        given = node.attribute(name)
        if given is None and (default is None or value == default):
            continue
        if given != value:
            values[name] = value
    return [SetAttributes(node, values)]


# --- matrices


def _rewrite_matrix(link: Link, merged: Operator) -> Sequence[Edit] | Refusal:
    node, index = link.node, 1 - link.index
    gemm = node.op == "Gemm"
    turned = gemm and bool(node.attribute("transB" if index == 1 else "transA", 0))
    weight = _shallow(merged.weight.swapped() if turned else merged.weight)
    trouble = weight.out_of_range()
    if trouble is not None:
        return Refusal(Reason.OVERFLOW, f'the merged weight of "{node.name}" {trouble}')
    edits: list[Edit] = [SetConstant(node, index, weight, merged.form.elem_type, "weight")]
    values = merged.bias
    flat = values.reshape(-1) if values.shape[0] == 1 else values
    if not gemm:
        if not values.any():
            return edits
        data = dense(flat, FLOATS[merged.form.elem_type])
        if node.opset < 7 or data.out_of_range() == "overflows":
            return Refusal(Reason.OVERFLOW, f'the type of "{node.name}" cannot hold the shift')
        return [*edits, AppendAdd(node, data, merged.form.elem_type)]
    attributes: dict[str, Any] = {} if node.attribute("alpha", 1.0) == 1.0 else {"alpha": 1.0}
    if not _keeps_bias(link, merged):
        bias = store_bias(node, 2, flat, merged.form.elem_type)
        if isinstance(bias, Refusal):
            return bias
        edits += bias
        attributes |= {} if node.attribute("beta", 1.0) == 1.0 else {"beta": 1.0}
        attributes |= {"broadcast": 1} if node.opset < 7 else {}
    return [*edits, SetAttributes(node, attributes)]
