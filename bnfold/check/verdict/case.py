"""One feed: what every model computed on it, and what follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bnfold.check.feeds.feed import Feed
from bnfold.check.runtimes.sessions import RunError, Value
from bnfold.check.verdict.compare import HOPELESS, Finding, Tolerance, Truth, failure
from bnfold.check.verdict.glimpse import Glimpse, Opinion

__all__ = ["Case"]


@dataclass
class Case:
    """One feed: what every model computed, and what follows.

    Attributes:
        index: Position of the feed.
        feed: The values.
        truths: The reference's outputs at the first level (R0) with their noise.
        candidates: The candidate's outputs (C0, C1), or why there are none, for each level.
        own: The reference's outputs at the second level (R1), or why there are none; None where
            there is one level.
        rules: A caller's rule for each output, or None for the noise rule.
        glimpses: Each output at each level.
        opinions: What expected outputs say, at each level.
    """

    index: int
    feed: Feed
    truths: list[Truth]
    candidates: list[list[Value] | RunError]
    own: list[Value] | RunError | None
    rules: Sequence[Tolerance | None]
    glimpses: list[list[Glimpse]]
    opinions: list[list[Opinion]]
    findings: list[list[Finding]] = field(default_factory=list)
    changes: list[Finding] = field(default_factory=list)

    def learn(self, neighbours: Iterable[list[Value]]) -> None:
        """Take in the outputs of neighbours of the reference, and judge again."""
        for outputs in neighbours:
            for truth, value in zip(self.truths, outputs, strict=True):
                truth.add_neighbour(value)
        self.findings = [
            self._judge(outcome, second=level > 0) for level, outcome in enumerate(self.candidates)
        ]
        if isinstance(self.own, list):
            self.changes = self._compare(self.truths, self.own)

    def _judge(self, outcome: list[Value] | RunError, *, second: bool) -> list[Finding]:
        if isinstance(outcome, RunError):
            return [failure(f"the candidate does not run: {outcome}")] * len(self.truths)
        findings = self._compare(self.truths, outcome)
        if not second or not isinstance(self.own, list):
            return findings
        rebased = [t.rebased(value) for t, value in zip(self.truths, self.own, strict=True)]
        return [
            min(either, key=lambda finding: finding.severity)
            for either in zip(findings, self._compare(rebased, outcome), strict=True)
        ]

    def _compare(self, truths: Sequence[Truth], values: Sequence[Value]) -> list[Finding]:
        return [
            truth.compare(value, rule)
            for truth, value, rule in zip(truths, values, self.rules, strict=True)
        ]

    @property
    def passes(self) -> bool:
        """True if every output passes at every level."""
        return all(finding.equivalent for part in self.findings for finding in part)

    def doubtful(self, hopeless: float = HOPELESS) -> bool:
        """True if a rejection could turn out to be noise."""
        compared = [
            part
            for outcome, part in zip(self.candidates, self.findings, strict=True)
            if isinstance(outcome, list)
        ]
        return any(
            finding.doubtful(hopeless) for part in (*compared, self.changes) for finding in part
        )

    def forget(self) -> None:
        """Let go of the outputs once the findings are final; only failures to run are kept."""
        self.truths = []
        self.candidates = [[] if isinstance(o, list) else o for o in self.candidates]
        self.own = self.own if isinstance(self.own, RunError) else None
