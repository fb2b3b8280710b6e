"""The oracle: which of two models is nearer to the truth?

The truth is what the reference computes in float64 (:mod:`.evaluator`). A correct fold is
as far from it as the original is, about 0.6 to 1.2 times, because both round as often; a fault is
many times as far. Where the candidate is nearer, the reference is the one that loses precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bnfold.check.exact.evaluator import ExactRunner
from bnfold.check.feeds.feed import Feed
from bnfold.check.models.model import Array, Model
from bnfold.check.runtimes.sessions import RunError, Value
from bnfold.check.verdict.compare import flatten
from bnfold.check.verdict.noise import eps_of
from bnfold.report import OracleOpinion

__all__ = ["consult"]

# Errors that are apart by less than this factor are of one size.
_FACTOR = 2.0


def consult(
    reference: Model,
    candidate: Model,
    feed: Feed,
    outputs_reference: Sequence[Value],
    outputs_candidate: Sequence[Value],
) -> list[OracleOpinion]:
    """Ask for the truth on one feed.

    Args:
        reference: The original, whose result in float64 is the truth.
        candidate: The other model; its own result in float64 says what the files differ by.
        feed: The inputs.
        outputs_reference: All outputs of the reference as it ran, in graph order.
        outputs_candidate: All outputs of the candidate as it ran.

    Returns:
        An opinion on each output; one without numbers where there is no truth, with the reason.
    """
    try:
        truths = ExactRunner(reference).run(feed.arrays)
    except RunError as error:
        why = f"the reference cannot be computed in float64: {error}"
        return [OracleOpinion(None, None, None, detail=why)] * len(outputs_reference)
    exact: Sequence[Value] = [None] * len(truths)
    why_not: str | None = None
    try:
        exact = ExactRunner(candidate).run(feed.arrays)
    except RunError as error:
        why_not = f"the candidate itself cannot be computed in float64: {error}"
    return [
        _opinion(*values, why_not)
        for values in zip(truths, outputs_reference, outputs_candidate, exact, strict=True)
    ]


def _opinion(
    truth: Value, reference: Value, candidate: Value, exact: Value, why_not: str | None
) -> OracleOpinion:
    ours, theirs = _distance(truth, reference), _distance(truth, candidate)
    own = None if why_not is not None else _distance(truth, exact)
    if ours is None or theirs is None:
        who = "reference" if ours is None else "candidate"
        return OracleOpinion(
            ours, theirs, None, own, f"the {who} has another structure or shape than the truth"
        )
    # Rounding the result itself is nobody's fault.
    least = max((eps_of(leaf.dtype) for leaf in flatten(reference)[1]), default=0.0)
    nearer = "equal"
    if max(ours, theirs) > _FACTOR * max(min(ours, theirs), least):
        nearer = "reference" if ours < theirs else "candidate"
    return OracleOpinion(ours, theirs, nearer, own, why_not)


def _distance(truth: Value, value: Value) -> float | None:
    """Return max|value - truth| / max|truth|; the fraction that differs where floats are not meant.

    Infinity where only one of the two is finite; None if they cannot be compared.
    """
    ours, theirs = flatten(truth)[1], flatten(value)[1]
    if [leaf.shape for leaf in ours] != [leaf.shape for leaf in theirs]:
        return None
    return max(
        (_leaf_distance(one, other) for one, other in zip(ours, theirs, strict=True)), default=0.0
    )


def _leaf_distance(truth: Array, value: Array) -> float:
    if truth.dtype.kind not in "fc" or not truth.size:
        unequal = np.asarray(truth != value)
        return float(np.mean(unequal)) if unequal.size else 0.0
    number = np.complex128 if truth.dtype.kind == "c" else np.float64
    value = value.astype(number)
    same = (truth == value) | (np.isnan(truth) & np.isnan(value))
    finite = np.isfinite(truth) & np.isfinite(value)
    if not np.all(same | finite):
        return math.inf
    with np.errstate(all="ignore"):
        distance = np.where(same, 0.0, np.abs(value - truth))
    scale = float(np.abs(truth[finite]).max(initial=0.0)) or 1.0
    return float(distance.max()) / scale
