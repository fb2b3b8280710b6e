"""What rules answer with and what plans are made of: edits, steps and refusals, all plain values.

Nothing here touches a graph. A rule returns one or more :class:`Step` alternatives, best first, or
a :class:`Refusal`; the planner puts steps together into a :class:`Plan`; ``fold.py`` applies it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bnfold.affine import Affine
from bnfold.lazy import Scaled, Unrounded
from bnfold.report import Reason

if TYPE_CHECKING:
    from bnfold.graph.facts import Facts
    from bnfold.graph.index import Node, Use, Value

__all__ = [
    "Answer",
    "AppendAdd",
    "Ask",
    "Become",
    "Bypass",
    "DropOperands",
    "Edit",
    "Plan",
    "Refusal",
    "Reroute",
    "Rule",
    "SetAttributes",
    "SetConstant",
    "SetShape",
    "Step",
]


@dataclass(frozen=True)
class Refusal:
    """Why a rule cannot take an affine.

    Attributes:
        reason: The stable code.
        detail: One sentence that names the node or tensor.
    """

    reason: Reason
    detail: str


@dataclass(frozen=True, eq=False)
class SetConstant:
    """Give an input of a node another constant.

    Attributes:
        node: The node that reads it.
        index: Which input; one past the last adds an input.
        data: The new values: float data unrounded, others as an array.
        elem_type: ``TensorProto`` element type.
        role: Name of the parameter, from which a fresh name is formed.
    """

    node: Node
    index: int
    data: Unrounded | NDArray[Any]
    elem_type: int
    role: str


@dataclass(frozen=True, eq=False)
class SetAttributes:
    """Set attributes of a node; None removes one."""

    node: Node
    values: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Become:
    """Turn a node into another operator with the same inputs and outputs, without attributes."""

    node: Node
    op_type: str


@dataclass(frozen=True, eq=False)
class AppendAdd:
    """Add a constant to the only output of a node, in a node of its own behind it."""

    node: Node
    data: Scaled
    elem_type: int


@dataclass(frozen=True, eq=False)
class Bypass:
    """Take a node out: its output is its input ``index``."""

    node: Node
    index: int = 0


@dataclass(frozen=True, eq=False)
class SetShape:
    """Note that the first output of a node has another shape; None where it is unknown."""

    node: Node
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True, eq=False)
class DropOperands:
    """Take operands out of an addition; some are left.

    Attributes:
        node: The addition.
        indices: Which operands.
        keeps_name: True if its result means the same as before, and keeps its name.
    """

    node: Node
    indices: tuple[int, ...]
    keeps_name: bool


@dataclass(frozen=True, eq=False)
class Reroute:
    """Let a node read another value, and put its result elsewhere.

    Attributes:
        node: The node.
        index: The input that changes.
        source: What it reads there.
        instead_of: The node whose output it computes from now on, which goes; or None.
        at: The input that reads its result, if no node goes for it.
    """

    node: Node
    index: int
    source: Value
    instead_of: Node | None = None
    at: Use | None = None


Edit = SetConstant | SetAttributes | SetShape | Become | AppendAdd | Bypass | DropOperands | Reroute


@dataclass(frozen=True, eq=False)
class Step:
    """How one node takes part in a plan.

    Attributes:
        passes: Backward: the affine that each input must take on. Forward: the affine that is left
            on each output. Inputs or outputs that are not named stay as they are.
        edits: What changes at the node.
        absorbs: True if constants of the node take the affine in.
        cost: Elementwise operations that the step adds (positive) or removes (negative).
    """

    passes: Mapping[int, Affine] = field(default_factory=dict)
    edits: Sequence[Edit] = ()
    absorbs: bool = False
    cost: int = 0


Answer = Refusal | Sequence[Step]
Ask = Callable[["Node", Mapping[int, Affine], "Facts"], Answer]


@dataclass(frozen=True)
class Rule:
    """What an operator does with an affine.

    Attributes:
        backward: Given the affine that each output must take on, how the node can comply.
        forward: Given the affine that is missing on each input, what the node makes of it.
        takes: For the documentation: which affines, backward.
        gives: For the documentation: which affines, forward.
        equation: For the documentation.
    """

    backward: Ask | None
    forward: Ask | None
    takes: str = ""
    gives: str = ""
    equation: str = ""


@dataclass(eq=False)
class Plan:
    """All the edits that make one site vanish.

    Attributes:
        direction: ``backward`` or ``forward``; ``parallel`` or ``series`` for a merge.
        edits: In the order in which they are applied.
        changed: Values that mean something else afterwards and need another name.
        into: Nodes whose constants take the affine in.
        through: Nodes that the affine passes.
        branches: The last nodes of the branches that a merge takes out.
        reshaped: Values among ``changed`` whose shape may be another one.
        constant: Name of the constant that the site applies to, if that is what it does.
    """

    direction: str
    edits: list[Edit] = field(default_factory=list)
    changed: list[Value] = field(default_factory=list)
    into: list[Node] = field(default_factory=list)
    through: list[Node] = field(default_factory=list)
    constant: str = ""
    branches: list[Node] = field(default_factory=list)
    reshaped: list[Value] = field(default_factory=list)


def dense(values: Any, dtype: np.dtype[Any]) -> Scaled:
    """A small computed tensor, to be rounded when it is written."""
    return Scaled(np.asarray(values, np.float64), None, dtype)
