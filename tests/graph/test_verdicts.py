"""Verdicts of two folds, the second of what the first has left."""

from __future__ import annotations

from bnfold.graph.verdicts import continued
from bnfold.report import Reason, Verdict


def gone(name: str, *into: str, kind: str = "BatchNormalization") -> Verdict:
    return Verdict(name, kind, "main", 4, folded=True, direction="backward", into=into)


def kept(name: str, reason: Reason, kind: str = "BatchNormalization") -> Verdict:
    return Verdict(name, kind, "main", 4, folded=False, reason=reason, detail="because")


def test_what_is_kept_has_its_last_verdict() -> None:
    first = (gone("a", "c"), kept("b", Reason.UNKNOWN_SHAPE))
    assert continued(first, (gone("b", "d"),)) == (gone("a", "c"), gone("b", "d"))
    second = (kept("b", Reason.NONLINEAR),)
    assert continued(first, second) == (gone("a", "c"), kept("b", Reason.NONLINEAR))


def test_what_was_folded_into_a_site_went_with_it() -> None:
    first = (gone("a", "b", "e"), kept("b", Reason.UNKNOWN_SHAPE))
    second = (gone("b", "d", "e"),)
    assert continued(first, second) == (gone("a", "d", "e"), gone("b", "d", "e"))


def test_sites_of_one_name_are_taken_in_order() -> None:
    first = (kept("b", Reason.UNKNOWN_SHAPE), kept("b", Reason.UNKNOWN_SHAPE))
    second = (gone("b", "d"), kept("b", Reason.NONLINEAR))
    assert continued(first, second) == second


def test_chains_may_be_others_and_normalizations_may_not() -> None:
    shape = Reason.UNKNOWN_SHAPE
    chain = (gone("x", "d", kind="Affine"),)
    assert continued((kept("a", shape, kind="Affine"),), chain) == chain
    assert continued((kept("a", shape),), chain) is None
    assert continued((kept("x", shape),), chain) is None


def test_branches_are_those_that_went_and_those_that_are_left() -> None:
    no_gain = Reason.NO_GAIN
    first = (gone("p", "q", kind="branch"), kept("r", no_gain, kind="branch"))
    second = (gone("r", "s", kind="branch"), kept("t", no_gain, kind="branch"))
    assert continued(first, second) == (first[0], *second)
