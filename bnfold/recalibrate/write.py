"""Puts new statistics into a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto

from bnfold.graph.constants import Constants
from bnfold.graph.edits import Editor
from bnfold.graph.index import Graph
from bnfold.graph.plan import Plan, SetConstant
from bnfold.recalibrate.norms import Norm
from bnfold.recalibrate.renewal import Renewal
from bnfold.store import TensorStore

__all__ = ["PROVENANCE", "sign", "write_statistics"]

PROVENANCE = "pkg.bnfold.recalibrated"

_ROLES = ((3, "mean"), (4, "variance"))


def write_statistics(
    graph: Graph, tensors: TensorStore, norms: Sequence[Norm], renewals: Sequence[Renewal]
) -> bool:
    """Give normalizations their new statistics.

    An initializer that nothing else reads keeps its name; one that is shared with something else
    stays as it is, and the normalization gets another.

    Args:
        graph: The model; its lists are written back.
        tensors: Takes the data.
        norms: Normalizations of ``graph``.
        renewals: What each of them gets.

    Returns:
        True if anything differs from what was there.
    """
    constants = Constants(graph, tensors)
    editor = Editor(graph, constants, tensors)
    changed = False
    for norm, renewal in zip(norms, renewals, strict=True):
        old = (norm.mean, norm.var)
        for (index, role), stored, before in zip(_ROLES, renewal.stored, old, strict=True):
            dtype = stored.dtype
            if np.array_equal(before.astype(dtype), stored, equal_nan=True):
                continue
            changed = True
            plan = Plan("backward")
            plan.edits += [
                SetConstant(node, index, stored, norm.statistics_kind, role) for node in norm.nodes
            ]
            editor.apply(plan)
    if changed:
        editor.finish()
    return changed


def sign(model: ModelProto, about: str) -> None:
    """Note what was done, without time or path: equal runs give equal bytes."""
    for entry in model.metadata_props:
        if entry.key == PROVENANCE:
            entry.value = about
            return
    model.metadata_props.add(key=PROVENANCE, value=about)
