"""One explicit table: aten operator -> how it is written as ONNX nodes for the planner."""

from __future__ import annotations

from bnfold.torch.operators import arithmetic, layout, linear, normalization, pooling
from bnfold.torch.operators.arguments import Translate

__all__ = ["OPERATORS"]

OPERATORS: dict[str, Translate] = {
    **linear.OPERATORS,
    **normalization.OPERATORS,
    **layout.OPERATORS,
    **pooling.OPERATORS,
    **arithmetic.OPERATORS,
}
