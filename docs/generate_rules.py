"""Writes docs/rules.md from the rule table: ``python docs/generate_rules.py``."""

from __future__ import annotations

import inspect
from pathlib import Path

from bnfold.graph import rules
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
    parts.append("\n## Reason codes\n\n| code | meaning |\n|---|---|")
    parts += [f"| `{reason}` | {meaning} |" for reason, meaning in REASONS.items()]
    return "\n".join(parts) + "\n"


def _introduction(table: dict[str, rules.Rule]) -> str:
    """The first paragraphs of the module that holds the family."""
    module = next(m for m in vars(rules).values() if getattr(m, "RULES", None) is table)
    text = inspect.getdoc(module) or ""
    return text.split("\n", 1)[0] + "\n"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
