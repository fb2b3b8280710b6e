"""What operators cost, and whether joining them pays.

**Multiply-adds** are counted for one position of the output (ConvTranspose: of the input, matrices:
for one row), with those that meet padding: M * C/g * k for a Conv, C for a normalization or a Mul
per channel, C * k for an AveragePool; additions and Identity count nothing. A node in front of
strides counts as often as they make it: four times in front of a stride of 2 x 2.

**Weight bytes** are those of weights, biases and parameters in the type in which they are stored;
four vectors for a BatchNormalization. A weight that other nodes read as well counts like any other.

A merge is made only if neither grows beyond the sum of the nodes that it replaces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bnfold.graph.constants import FLOATS
from bnfold.graph.index import Node
from bnfold.graph.merge.operators import Operator
from bnfold.graph.plan import Refusal
from bnfold.report import Reason

__all__ = ["Cost", "cost_of", "no_gain"]


@dataclass(frozen=True)
class Cost:
    """What a node costs, a run of nodes, or what they become.

    Attributes:
        multiply_adds: For one position of the output (ConvTranspose: of the input).
        elements: Numbers stored.
    """

    multiply_adds: int
    elements: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.multiply_adds + other.multiply_adds, self.elements + other.elements)


def cost_of(operator: Operator) -> Cost:
    """What a merged operator costs."""
    size = math.prod(operator.weight.shape)
    bias = operator.bias.size if operator.bias.any() else 0
    return Cost(size, size + bias)


def no_gain(node: Node, merged: Operator, before: Cost) -> Refusal | None:
    """The refusal of a merge that costs more than what it replaces, with the figures.

    Args:
        node: Where it is, for the message.
        merged: What would be made.
        before: What it would replace.
    """
    after = cost_of(merged)
    if after.multiply_adds <= before.multiply_adds and after.elements <= before.elements:
        return None
    width = FLOATS[merged.form.elem_type].itemsize
    return Refusal(
        Reason.NO_GAIN,
        f'merging at "{node.name}" would take {after.multiply_adds} multiply-adds per position and '
        f"{after.elements * width} weight bytes instead of {before.multiply_adds} and "
        f"{before.elements * width}",
    )
