"""One explicit table: operator -> rule. A new operator is one entry, in the file of its family."""

from __future__ import annotations

from bnfold.graph.plan import Rule
from bnfold.graph.rules import (
    activation,
    channel,
    convolution,
    depth,
    elementwise,
    layout,
    matrix,
    normalization,
    padding,
    pooling,
    recurrent,
)

__all__ = ["FAMILIES", "RULES"]

FAMILIES: dict[str, dict[str, Rule]] = {
    "Convolutions": convolution.RULES,
    "Matrix products": matrix.RULES,
    "Recurrent layers": recurrent.RULES,
    "Elementwise arithmetic": elementwise.RULES,
    "Layout": layout.RULES,
    "Joining and cutting": channel.RULES,
    "Padding": padding.RULES,
    "Depth and space": depth.RULES,
    "Pooling, reduction, resizing": pooling.RULES,
    "Activations and selection": activation.RULES,
    "Normalizations": normalization.RULES,
}

RULES: dict[str, Rule] = {op: rule for family in FAMILIES.values() for op, rule in family.items()}
