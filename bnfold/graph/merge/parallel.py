"""Side by side: branches that begin at one value and are added become one operator.

Of the terms of a tree of additions, those that begin at one value are joined: of all choices that
need neither more multiply-adds nor more stored numbers than the branches that they replace, the one
that saves most. Constants that are the same at every position join the bias.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bnfold.affine import Float64
from bnfold.graph.facts import Facts
from bnfold.graph.merge.branches import Branch, read_branch
from bnfold.graph.merge.cost import Cost, cost_of, no_gain
from bnfold.graph.merge.emit import rewrite, survivor
from bnfold.graph.merge.operators import Form, Operator, join
from bnfold.graph.merge.readers import Link
from bnfold.graph.merge.trees import Term, Tree, take_over
from bnfold.graph.plan import Plan, Refusal

__all__ = ["plan_parallel"]

EXHAUSTIVE = 7


@dataclass(frozen=True, eq=False)
class _Member:
    """A term that begins at the common value, as an operator."""

    term: Term
    branch: Branch
    operator: Operator
    cost: Cost


@dataclass(frozen=True, eq=False)
class _Choice:
    """Terms that are joined.

    Attributes:
        members: The terms that begin at the common value.
        gone: Their terms, and the constants that join the bias.
        stays: The link whose node computes the sum.
        home: The member that it belongs to.
        merged: What it computes.
        saved: Multiply-adds, stored numbers and additions saved: the more, the better.
    """

    members: tuple[_Member, ...]
    gone: tuple[Term, ...]
    stays: Link
    home: _Member
    merged: Operator
    saved: tuple[int, int, int]


def plan_parallel(tree: Tree, facts: Facts) -> Plan | Refusal | None:
    """The plan that joins terms of a tree.

    Args:
        tree: Additions.
        facts: Knowledge about the graph.

    Returns:
        The plan; the refusal of terms that begin at one value and yet cannot be joined; None where
        there are no such terms.
    """
    constants = [term for term in tree.terms if facts.constants.get(term.value) is not None]
    branches = {
        term: read_branch(term.value, facts) for term in tree.terms if term not in constants
    }
    refusal: Refusal | None = None
    for source in dict.fromkeys(branch.source for branch in branches.values()):
        terms = [term for term, branch in branches.items() if branch.source is source]
        forms = dict.fromkeys(form for term in terms if (form := branches[term].form) is not None)
        for form in forms:
            own = [t for t in terms if branches[t].form in (form, None)]
            result = _join(tree, own, constants, branches, form, facts)
            if isinstance(result, Plan):
                return result
            refusal = refusal or result
    return refusal


def _join(
    tree: Tree,
    terms: list[Term],
    constants: list[Term],
    branches: dict[Term, Branch],
    form: Form,
    facts: Facts,
) -> Plan | Refusal | None:
    """Join as many terms of one source and form as pay."""
    channels = next(c for t in terms if (c := branches[t].channels) is not None)
    members: list[_Member] = []
    refusal: Refusal | None = None
    for term in terms:
        operator = branches[term].resolve(form, channels, facts)
        if isinstance(operator, Refusal):
            refusal = refusal or operator
        else:
            members.append(_Member(term, branches[term], operator, branches[term].cost(channels)))
    choices: list[_Choice] = []
    for chosen in _subsets(members):
        if all(member.branch.form is None for member in chosen):
            continue
        shifts = _shifts(chosen[0].operator, constants, facts)
        if len(chosen) + len(shifts) < 2:
            continue
        choice = _choose(tree, chosen, shifts, facts)
        if isinstance(choice, _Choice):
            choices.append(choice)
        else:
            refusal = refusal or choice
    for choice in sorted(choices, key=lambda each: each.saved, reverse=True):
        result = _plan(tree, choice)
        if isinstance(result, Plan):
            return result
        refusal = refusal or result
    return refusal if len(terms) > 1 else None


def _subsets(members: Sequence[_Member]) -> Iterator[tuple[_Member, ...]]:
    """All members, then fewer and fewer of them; of very many only all and pairs."""
    few = len(members) <= EXHAUSTIVE
    for size in range(len(members), 0, -1) if few else (len(members), 2, 1):
        yield from itertools.combinations(members, size)


def _shifts(operator: Operator, constants: list[Term], facts: Facts) -> dict[Term, Float64]:
    """The constants that are the same at every position, as vectors along the channels."""
    if operator.form.is_matrix:
        return {}
    found: dict[Term, Float64] = {}
    for term in constants:
        constant = facts.constant(term.value)
        if constant is None or constant.any_shape or constant.elem_type != operator.form.elem_type:
            continue
        rank = operator.form.spatial + 2
        shape = (1,) * (rank - len(constant.shape)) + constant.shape
        along = shape[1] if len(shape) == rank else 0
        if along not in (1, operator.outputs) or np.prod(shape) != along:
            continue
        values = constant.float64.reshape(-1)
        if np.isfinite(values).all():
            found[term] = np.broadcast_to(values, (operator.outputs,))
    return found


def _choose(
    tree: Tree, chosen: Sequence[_Member], shifts: dict[Term, Float64], facts: Facts
) -> _Choice | Refusal:
    """What some terms are together, if that pays."""
    gone = [*(member.term for member in chosen), *shifts]
    stays = survivor(link for member in chosen for link in member.branch.links)
    home = next(member for member in chosen if stays in member.branch.links)
    turn = 1 if len(gone) == len(tree.terms) else home.term.sign
    merged = join(
        [member.operator for member in chosen],
        [turn * member.term.sign for member in chosen],
        _lengths(home, facts),
    )
    if isinstance(merged, Refusal):
        return Refusal(merged.reason, f'at "{tree.root.name}", {merged.detail}')
    for term, values in shifts.items():
        merged = merged.plus(turn * term.sign * values)
    before = sum((member.cost for member in chosen), Cost(0, sum(map(len, shifts.values()))))
    refusal = no_gain(tree.root, merged, before)
    if refusal is not None:
        return refusal
    after = cost_of(merged)
    saved = (before.multiply_adds - after.multiply_adds, before.elements - after.elements)
    return _Choice(tuple(chosen), tuple(gone), stays, home, merged, (*saved, len(gone)))


def _lengths(member: _Member, facts: Facts) -> list[int | None]:
    """The spatial lengths of the common value, None where they are unknown."""
    dims, spatial = facts.dims(member.branch.source), member.operator.form.spatial
    if dims is None or len(dims) != spatial + 2:
        return [None] * spatial
    return [length if isinstance(length, int) else None for length in dims[2:]]


def _plan(tree: Tree, choice: _Choice) -> Plan | Refusal:
    stays, home = choice.stays, choice.home
    edits = rewrite(stays, choice.merged)
    if isinstance(edits, Refusal):
        return edits
    plan = Plan("parallel", list(edits), into=[stays.node], through=list(tree.nodes))
    gone = None if len(choice.gone) == len(tree.terms) else choice.gone
    take_over(plan, tree, stays.node, stays.index, home.branch.source, home.term, gone)
    for member in choice.members:
        if member is not home:
            nodes = member.branch.nodes
            plan.branches.append(nodes[0] if nodes else member.term.use.node)
    return plan
