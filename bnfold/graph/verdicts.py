"""Joins the verdicts of two folds, the second of what the first has left."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable

from bnfold.report import BRANCH, Verdict

__all__ = ["continued", "sites"]


def sites(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Return the verdicts on sites: all but those on branches."""
    return [verdict for verdict in verdicts if verdict.kind != BRANCH]


def continued(
    first: tuple[Verdict, ...], second: tuple[Verdict, ...]
) -> tuple[Verdict, ...] | None:
    """Return the verdicts of both folds as those of one.

    Args:
        first: Of the model.
        second: Of the result of the first.

    Returns:
        What became of the sites of the model and of those that the folds have made; None where a
        normalization that the first has left cannot be told from others by its name.
    """
    later: defaultdict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for verdict in sites(second):
        later[verdict.graph, verdict.name].append(verdict)
    into = {key: found[0].into for key, found in later.items() if found[0].folded}
    joined: list[Verdict] = []
    for verdict in sites(first):
        found = later[verdict.graph, verdict.name]
        if verdict.folded:
            joined.append(_moved(verdict, into))
        elif found and found[0].kind == verdict.kind:
            joined.append(found.pop(0))
        elif verdict.kind != "Affine":  # other chains may be found than before
            return None
    joined += [verdict for rest in later.values() for verdict in rest]
    gone = [verdict for verdict in first if verdict.kind == BRANCH and verdict.folded]
    return (*joined, *gone, *(verdict for verdict in second if verdict.kind == BRANCH))


def _moved(verdict: Verdict, into: dict[tuple[str, str], tuple[str, ...]]) -> Verdict:
    """What was folded into a site that is gone itself is where that went."""
    names = [other for name in verdict.into for other in into.get((verdict.graph, name), (name,))]
    return dataclasses.replace(verdict, into=tuple(dict.fromkeys(names)))
