"""What is kept of an output when its values are let go, beside the verdict.

Scores of classes: does the same class win? An output that is the same on every feed: then it passes
whatever the models do. Outputs that came with the data: does the reference agree with them at all?
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bnfold.check.feeds.draws import is_float
from bnfold.check.models.model import Array
from bnfold.check.runtimes.sessions import Value
from bnfold.check.verdict.compare import Tolerance, Truth, failure, flatten
from bnfold.report import ExpectedComparison

__all__ = [
    "EXPECTED",
    "Glimpse",
    "Opinion",
    "agreement",
    "expected_of",
    "glimpse",
    "opinions",
    "says_little",
]

EXPECTED = Tolerance(rtol=1e-3, atol=1e-7)
"""How near to expected outputs is near: as ONNX's own runner of its backend tests has it."""


@dataclass(frozen=True)
class Glimpse:
    """One output on one feed.

    Attributes:
        rows: Number of rows of scores; 0 where the output does not look like scores.
        agreeing: In how many of them the largest score is of the same class in both models.
        digest: What the reference's values are known by.
        only: The one number that all elements of the reference are, as text; None if they differ.
        finite: False if the reference has floats and none of them is finite.
    """

    rows: int
    agreeing: int
    digest: bytes
    only: str | None
    finite: bool


def glimpse(reference: Value, candidate: Value | None) -> Glimpse:
    """Look at an output; the candidate's is None where it did not run."""
    rows, agreeing = _scores(reference, candidate)
    structure, leaves = flatten(reference)
    sha = hashlib.sha256(structure.encode())
    only: set[str] = set()
    finite = not leaves or any(not leaf.size for leaf in leaves)
    for leaf in leaves:
        values = leaf.astype(str) if leaf.dtype == object else np.ascontiguousarray(leaf)
        sha.update(values.tobytes())
        if leaf.size:
            # The sum makes zero of minus zero.
            first = leaf.flat[0] + 0 if is_float(leaf.dtype) else leaf.flat[0]
            only.add(f"{first}" if np.all(leaf == first) else "")
        finite |= not is_float(leaf.dtype) or bool(np.isfinite(leaf).any())
    text = next(iter(only)) if len(only) == 1 else ""
    return Glimpse(rows, agreeing, text.encode() if text else sha.digest(), text or None, finite)


def _scores(reference: Value, candidate: Value | None) -> tuple[int, int]:
    if not isinstance(reference, np.ndarray) or not isinstance(candidate, np.ndarray):
        return 0, 0
    fitting = reference.ndim in {2, 3} and reference.size and reference.shape[-1] > 1
    if not fitting or not is_float(reference.dtype) or reference.shape != candidate.shape:
        return 0, 0
    ours, theirs = (v.astype(np.float64).reshape(-1, v.shape[-1]) for v in (reference, candidate))
    same = _winners(ours) == _winners(theirs)
    return len(same), int(np.count_nonzero(same))


def _winners(scores: Array) -> Array:
    return np.asarray(np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1))


def agreement(glimpses: Iterable[Glimpse]) -> float | None:
    """The fraction of all rows where both models choose the same class; None without rows."""
    seen = list(glimpses)
    rows = sum(one.rows for one in seen)
    return sum(one.agreeing for one in seen) / rows if rows else None


def says_little(glimpses: Sequence[Glimpse]) -> str | None:
    """Say why an output that passes proves nothing, or None if it does.

    Args:
        glimpses: The output on every feed.
    """
    if glimpses and not any(one.finite for one in glimpses):
        return "says little: it has no finite element on any feed"
    if len(glimpses) < 2 or len({one.digest for one in glimpses}) > 1:
        return None
    only = glimpses[0].only
    if only is not None:
        return f"says little: it is {only} everywhere, on every feed"
    return "says little: it is the same on every feed"


@dataclass(frozen=True)
class Opinion:
    """Both models against an expected output on one feed."""

    output: str
    feed: str
    reference: float
    candidate: float
    reference_agrees: bool
    candidate_agrees: bool


def opinions(
    names: Sequence[str],
    feed: str,
    expected: Mapping[str, Value] | None,
    reference: Sequence[Value],
    candidate: Sequence[Value] | None,
) -> list[Opinion]:
    """Compare both models with what a feed came with, by :data:`EXPECTED`.

    Args:
        names: Names of the outputs.
        feed: Name of the feed.
        expected: Values by output name; outputs that it lacks are left out.
        reference: All outputs of the reference.
        candidate: All outputs of the candidate, or None if it did not run.
    """
    found = []
    for position, name in enumerate(names):
        if expected is None or name not in expected:
            continue
        truth = Truth(expected[name])
        nothing = failure("the candidate does not run")
        ours = truth.compare(reference[position], EXPECTED)
        theirs = nothing if candidate is None else truth.compare(candidate[position], EXPECTED)
        found.append(
            Opinion(
                name, feed, ours.difference, theirs.difference, ours.equivalent, theirs.equivalent
            )
        )
    return found


def expected_of(found: Sequence[Opinion]) -> tuple[ExpectedComparison, ...]:
    """Sum the opinions on all feeds up, one entry for each output."""
    by_output: dict[str, list[Opinion]] = {}
    for opinion in found:
        by_output.setdefault(opinion.output, []).append(opinion)
    return tuple(
        ExpectedComparison(
            output=name,
            feeds=len(those),
            reference_agrees=all(one.reference_agrees for one in those),
            candidate_agrees=all(one.candidate_agrees for one in those),
            reference=max((one.reference for one in those), default=math.nan),
            candidate=max((one.candidate for one in those), default=math.nan),
        )
        for name, those in by_output.items()
    )
