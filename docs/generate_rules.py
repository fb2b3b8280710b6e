"""Writes docs/rules.md from the rule table: ``python docs/generate_rules.py``."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType

from bnfold.graph import ones, rules
from bnfold.graph.merge import cost, readers
from bnfold.graph.planner import SHAPE_ONLY
from bnfold.report import REASONS

TARGET = Path(__file__).with_name("rules.md")

HEAD = """# Rules

*Generated from the rule table by `python docs/generate_rules.py`; a test holds it up to date.*

An affine is y = s x + t, with arrays that broadcast against the tensor. **Backward**, it moves from
a site towards the producers of its input: "takes" says what an operator can take on at its output.
**Forward**, it moves towards the consumers of its output: "gives" says what an operator can do with
an affine that is missing at its input. An operator that has no row lets nothing pass.

A plan covers every node that must change together, and every use of every changed value lies inside
it; `{shape_only}` read only the shape and are no uses. A plan is applied only if it removes more
elementwise operations than it adds: a BatchNormalization counts 2 (multiply and add), a Mul or Add
with a constant 1. Shared initializers are copied before they change, unless all their uses change
alike.
"""


MERGING = """
## Merging

Linear operators on one value whose results are added are one operator, and so are two of which the
second alone reads the first. Once batch normalizations are folded, such operators are merged, and
what that frees is folded again. W = sum of the kernels, each at its place in the window of all; b =
sum of the biases; all in float64, rounded once for all branches and folds together.

**Side by side.** The terms of a tree of Add, Sub, Sum and Neg that begin at the same value, in any
order and with signs. Nobody else may read a branch or a sum inside the tree. Windows must have one
stride and provably one output length; kernels that lie at different places or have other dilations
are put on their common grid. Groups that do not nest become their common groups. A term that is
broadcast is not merged.

**One behind the other.** Conv behind Conv and matrix product behind matrix product. Where the
second one pads, the first may have no bias and must not reach over the border (kernel 1).

### What a merge may cost

{cost}

### What is left

The largest node stays, with its name, and the sum keeps the name of its result. The report has an
entry of kind `branch` for each branch that goes, and for each place where branches begin at one
value and stay apart, with the reason. `--no-merge` switches all of this off.

| operator | takes part | as |
|---|---|---|
"""

ONES = """
## A channel of ones

`--ones-channel` folds a normalization in front of a zero-padded Conv, where a Conv before it has
it to itself: Conv, f, s x + t, Conv with f among `{keeps}`.

{text}
"""


def render() -> str:
    """The whole page."""
    parts = [HEAD.format(shape_only="`, `".join(SHAPE_ONLY))]
    for family, table in rules.FAMILIES.items():
        parts.append(f"\n## {family}\n")
        parts.append(_introduction(table))
        parts.append(
            "| operator | takes (backward) | gives (forward) | equation |\n|---|---|---|---|"
        )
        for op, rule in table.items():
            takes = rule.takes if rule.backward else "nothing"
            gives = rule.gives if rule.forward else "nothing"
            parts.append(f"| {op} | {takes} | {gives} | {rule.equation} |")
        parts.append("")
    parts.append(_merging())
    parts.append("\n## Reason codes\n\n| code | meaning |\n|---|---|")
    parts += [f"| `{reason}` | {meaning} |" for reason, meaning in REASONS.items()]
    return "\n".join(parts) + "\n"


def _merging() -> str:
    lines = [MERGING.format(cost=_paragraphs(cost, 1, 4)).rstrip()]
    lines += [f"| {op} | {r.takes_part} | {r.kernel} |" for op, r in readers.READERS.items()]
    keeps = "`, `".join(ones.KEEPS_ONE)
    return "\n".join([*lines, "", ONES.format(keeps=keeps, text=_paragraphs(ones, 1, 4))])


def _paragraphs(module: ModuleType, first: int, end: int) -> str:
    """Some paragraphs of the docstring of a module."""
    return "\n\n".join((inspect.getdoc(module) or "").split("\n\n")[first:end])


def _introduction(table: dict[str, rules.Rule]) -> str:
    """The first paragraphs of the module that holds the family."""
    module = next(m for m in vars(rules).values() if getattr(m, "RULES", None) is table)
    text = inspect.getdoc(module) or ""
    return text.split("\n", 1)[0] + "\n"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
