"""LSTM, GRU and RNN: their input weights take an affine of the input, and the input bias its shift.

With W[d, gates*H, I] and B[d, 2*gates*H], whose first half is added to W x::

    W[d, r, i] * s[i]        B[d, r] += sum_i W[d, r, i] * t[i]

Speech and text networks normalize between recurrent layers. The outputs are nonlinear, so nothing
is taken on that side.

Source: the ONNX operator specification of LSTM, GRU and RNN.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bnfold.affine import Affine, Float64, contracted
from bnfold.graph.facts import Facts
from bnfold.graph.index import Node
from bnfold.graph.plan import Answer, Edit, Refusal, Rule, Step
from bnfold.graph.rules.parameters import read_weight, store_bias, vectors
from bnfold.report import Reason

__all__ = ["RULES"]


def _forward(node: Node, pending: Mapping[int, Affine], facts: Facts) -> Answer:
    if set(pending) != {0}:
        return Refusal(Reason.DYNAMIC_WEIGHT, f'"{node.name}" reads it as a weight or a state')
    weight = read_weight(node, 1, facts)
    if isinstance(weight, Refusal):
        return weight
    if len(weight.shape) != 3 or pending[0].rank != 3:
        return Refusal(Reason.UNKNOWN_SHAPE, f'"{node.name}" does not read a sequence')
    directions, rows, inputs = weight.shape
    affine = vectors(pending[0], 2, inputs, node)
    if isinstance(affine, Refusal):
        return affine
    scaled = weight.scaled(affine.scale.reshape(1, 1, -1))
    if isinstance(scaled, Refusal):
        return scaled
    edits: list[Edit] = [*scaled]
    if affine.offset.any():
        bias: Float64 = np.zeros((directions, 2 * rows))
        if node.input(3) is not None:
            constant = facts.constant(node.input(3))
            if constant is None or constant.shape != bias.shape:
                return facts.not_constant(node, 3, "bias")
            bias = constant.float64.copy()
        bias[:, :rows] += contracted("drc,c->dr", weight.float64, affine.offset)
        stored = store_bias(node, 3, bias, weight.elem_type)
        if isinstance(stored, Refusal):
            return stored
        edits += stored
    return [Step(edits=edits, absorbs=True)]


_RECURRENT = Rule(
    None,
    _forward,
    takes="nothing",
    gives="any along the features of the input",
    equation="W[d,r,i] s[i], B[d,r] += sum W[d,r,i] t[i]",
)

RULES = {"LSTM": _RECURRENT, "GRU": _RECURRENT, "RNN": _RECURRENT}
