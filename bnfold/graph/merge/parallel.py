"""Side by side: branches that begin at one value and are added become one operator.

Of the terms of a tree of additions, those that begin at one value are joined, as many of them as
pay: the joined operator may need neither more multiply-adds nor more stored numbers than the
branches that it replaces. Constants that are the same at every position join the bias.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bnfold.affine import Float64
from bnfold.graph.facts import Facts
from bnfold.graph.merge.branches import Branch, read_branch
from bnfold.graph.merge.cost import Cost, no_gain
from bnfold.graph.merge.emit import rewrite, survivor
from bnfold.graph.merge.operators import Form, Operator, join
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
    for chosen in _subsets(members):
        if all(member.branch.form is None for member in chosen):
            continue
        shifts = _shifts(chosen[0].operator, constants, facts)
        if len(chosen) + len(shifts) < 2:
            continue
        result = _plan(tree, chosen, shifts, facts)
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


def _plan(
    tree: Tree, chosen: Sequence[_Member], shifts: dict[Term, Float64], facts: Facts
) -> Plan | Refusal:
    links = [link for member in chosen for link in member.branch.links]
    stays = survivor(links)
    home = next(member for member in chosen if stays in member.branch.links)
    gone = [*(member.term for member in chosen), *shifts]
    whole = len(gone) == len(tree.terms)
    turn = 1 if whole else home.term.sign
    source = home.branch.source
    dims = facts.dims(source)
    spatial = home.operator.form.spatial
    known = dims is not None and len(dims) == spatial + 2
    lengths = [
        length if known and isinstance(length := dims[2 + i], int) else None  # type: ignore[index]
        for i in range(spatial)
    ]
    merged = join(
        [member.operator for member in chosen],
        [turn * member.term.sign for member in chosen],
        lengths,
    )
    if isinstance(merged, Refusal):
        return Refusal(merged.reason, f'at "{tree.root.name}", {merged.detail}')
    for term, values in shifts.items():
        merged = merged.plus(turn * term.sign * values)
    before = sum((member.cost for member in chosen), Cost(0, sum(map(len, shifts.values()))))
    refusal = no_gain(tree.root, merged, before)
    if refusal is not None:
        return refusal
    edits = rewrite(stays, merged, facts)
    if isinstance(edits, Refusal):
        return edits
    plan = Plan("parallel", list(edits), into=[stays.node], through=list(tree.nodes), gain=1)
    take_over(plan, tree, stays.node, stays.index, source, home.term, None if whole else gone)
    for member in chosen:
        if member is not home:
            nodes = member.branch.nodes
            plan.branches.append(nodes[0] if nodes else member.term.use.node)
    return plan
