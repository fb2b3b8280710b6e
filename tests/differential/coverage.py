"""Which rules a run has reached, and how each has answered."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator

from bnfold.graph.plan import Answer, Refusal
from bnfold.graph.rules import RULES
from bnfold.report import REASONS

__all__ = ["Coverage"]

DIRECTIONS = ("backward", "forward")


class Coverage:
    """Counts the answers of every rule of the table while models are folded.

    Attributes:
        answers: For each operator, direction and answer (``passes`` or a reason code), how often.
        reasons: For each reason code, how many sites or branches are kept for it.
    """

    def __init__(self) -> None:
        self.answers: collections.Counter[tuple[str, str, str]] = collections.Counter()
        self.reasons: collections.Counter[str] = collections.Counter()
        for op, rule in list(RULES.items()):
            counted = {way: self._counted(op, way, getattr(rule, way)) for way in DIRECTIONS}
            RULES[op] = dataclasses.replace(rule, **counted)

    def _counted(self, op: str, way: str, ask):  # type: ignore[no-untyped-def]
        if ask is None:
            return None

        def answer(*question) -> Answer:  # type: ignore[no-untyped-def]
            result: Answer = ask(*question)
            kind = str(result.reason) if isinstance(result, Refusal) else "passes"
            self.answers[op, way, kind] += 1
            return result

        return answer

    def never(self) -> Iterator[str]:
        """What has not been reached: rules that let nothing pass, reasons nothing was kept for."""
        for op, rule in RULES.items():
            for way, promise in (("backward", rule.takes), ("forward", rule.gives)):
                if promise != "nothing" and not self.answers[op, way, "passes"]:
                    refused = sum(n for (o, w, _), n in self.answers.items() if (o, w) == (op, way))
                    yield f"{op} {way}: nothing passed, {refused} refused"
        for reason in REASONS:
            if not self.reasons[str(reason)]:
                yield f"reason {reason}"
