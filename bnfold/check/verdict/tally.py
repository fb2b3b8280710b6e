"""What has been found at one optimization level so far, output by output."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from bnfold.check.exact.judge import Objection
from bnfold.check.feeds.feed import Feed
from bnfold.check.verdict.compare import Finding
from bnfold.check.verdict.glimpse import Glimpse, Opinion, agreement, expected_of, says_little
from bnfold.report import CheckReport, OracleOpinion

__all__ = ["Tally"]


@dataclass
class Tally:
    """The worst finding for each output at one level.

    Attributes:
        level: The optimization level.
        names: Names of the outputs.
        worst: The worst finding for each output, and the feed on which it was made.
        notes: What was remarkable about outputs that pass.
        warnings: Sentences for the report.
        detail: Why nothing could be compared, or None.
        feeds: Number of feeds.
        glimpses: Each output on every feed.
        opinions: What expected outputs say.
        oracle: What the oracle says about the worst feed of each output.
    """

    level: str
    names: Sequence[str]
    worst: dict[str, tuple[Finding, Feed]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    detail: str | None = None
    feeds: int = 0
    glimpses: dict[str, list[Glimpse]] = field(default_factory=dict)
    opinions: list[Opinion] = field(default_factory=list)
    oracle: dict[str, OracleOpinion] = field(default_factory=dict)

    def add(
        self,
        feed: Feed,
        findings: Sequence[Finding],
        glimpses: Sequence[Glimpse],
        opinions: Sequence[Opinion],
    ) -> None:
        """Count the final findings on one feed."""
        self.feeds += 1
        self.opinions += opinions
        for name, seen in zip(self.names, glimpses, strict=True):
            self.glimpses.setdefault(name, []).append(seen)
        for name, finding in zip(self.names, findings, strict=True):
            if finding.detail and finding.equivalent:
                self.notes.setdefault(name, finding.detail)
            if name not in self.worst or finding.severity > self.worst[name][0].severity:
                self.worst[name] = (finding, feed)

    def object(self, objection: Objection, outputs: Sequence[str]) -> None:
        """Turn what passed into failures, for the reason that the second judge gives.

        Args:
            objection: The reason, and which outputs it concerns.
            outputs: Those that are not judged by a caller's own rule.
        """
        for name in self.worst.keys() & objection.outputs & set(outputs):
            finding, _ = self.worst[name]
            passing = finding.difference * objection.limit / objection.times
            rejected = dataclasses.replace(
                finding,
                equivalent=False,
                allowed=min(finding.allowed, passing),
                detail=objection.sentence,
            )
            self.worst[name] = rejected, objection.feed

    def warn(self, sentence: str) -> None:
        """Add a sentence to the report, once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def report(self, provider: str, warnings: Sequence[str]) -> CheckReport:
        """Return the report."""
        outputs = []
        for name, (finding, _) in self.worst.items():
            seen = self.glimpses.get(name, [])
            note = finding.detail or self.notes.get(name)
            if finding.equivalent:
                note = says_little(seen) or note
            outputs.append(
                dataclasses.replace(
                    finding.named(name),
                    detail=note,
                    argmax_agreement=agreement(seen),
                    oracle=self.oracle.get(name),
                )
            )
        expected = expected_of(self.opinions)
        apart = [entry.output for entry in expected if not entry.reference_agrees]
        if apart:
            listed = ", ".join(f"'{name}'" for name in apart)
            self.warn(
                f"the reference itself departs from the expected outputs that came with the data, "
                f"by more than rtol 1e-3 and atol 1e-7: {listed}"
            )
        return CheckReport(
            provider=provider,
            level=self.level,
            equivalent=all(output.equivalent for output in outputs),
            outputs=tuple(outputs),
            feeds=self.feeds,
            warnings=(*warnings, *self.warnings),
            detail=self.detail,
            expected=expected,
        )
