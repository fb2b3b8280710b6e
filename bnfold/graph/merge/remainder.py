"""What is left of a tree of additions once its operators are joined.

**Zero** adds nothing: a constant of zeros, or an operator whose weight and bias are zero. It goes
if it is proved that the result keeps its shape without it.

**Per channel**: terms that are all a scale and a shift of one value, a normalization among them,
are one normalization: gamma = sum of +-s_i, beta = sum of +-t_i, mean 0, variance 1, epsilon 0.
"""

from __future__ import annotations

import numpy as np

from bnfold.affine import Affine
from bnfold.graph.constants import FLOATS
from bnfold.graph.facts import Facts
from bnfold.graph.merge.branches import Branch, is_private, read_branch
from bnfold.graph.merge.readers import Link, read_link
from bnfold.graph.merge.trees import Term, Tree, leave_out, take_over
from bnfold.graph.plan import Plan, Refusal, SetAttributes, SetConstant, dense
from bnfold.graph.rules.batchnorm import BatchNorm, read_batchnorm

__all__ = ["plan_normalization", "plan_zeros"]


# --- zero


def plan_zeros(tree: Tree, facts: Facts) -> Plan | None:
    """The plan that takes the terms out that are zero, if there are any and another one is left."""
    zeros = [term for term in tree.terms if _is_zero(term, facts)]
    others = [term for term in tree.terms if term not in zeros]
    gone = [term for term in zeros if any(_covers(other, term, facts) for other in others)]
    if not gone:
        return None
    plan = Plan("parallel", through=list(tree.nodes))
    leave_out(plan, tree, gone)
    for term in gone:
        producer = term.value.producer
        computed = producer is not None and facts.constants.get(term.value) is None
        plan.branches.append(producer if computed and producer is not None else term.use.node)
    return plan


def _is_zero(term: Term, facts: Facts) -> bool:
    constant = facts.constant(term.value)
    if constant is not None:
        return not constant.any_shape and not constant.lazy().any()
    node = term.value.producer
    if node is None or not is_private(term.value, node):
        return False
    link = read_link(node, facts)
    if isinstance(link, Refusal) or link.operator is None:
        return False
    return not link.operator.bias.any() and not link.operator.weight.any()


def _covers(term: Term, zero: Term, facts: Facts) -> bool:
    """True if a sum with ``zero`` has the shape that it has without, because of ``term``."""
    constant = facts.constants.get(zero.value)
    small = facts.dims(zero.value) if constant is None else constant.shape
    rank, dims = facts.rank(term.value), facts.dims(term.value)
    if small is None or rank is None or len(small) > rank:
        return False
    own = (1,) * rank if dims is None else dims
    behind = own[rank - len(small) :]
    return all(length in (1, other) for length, other in zip(small, behind, strict=True))


# --- per channel


def plan_normalization(tree: Tree, facts: Facts) -> Plan | None:
    """The plan that makes one normalization of terms that are affines of one value."""
    branches = {term: read_branch(term.value, facts) for term in tree.terms}
    for source in dict.fromkeys(branch.source for branch in branches.values()):
        chosen = {
            term: branch
            for term, branch in branches.items()
            if branch.source is source
            and not any(link.operator or link.axes for link in branch.links)
        }
        home = next((term for term, branch in chosen.items() if _norm(branch) is not None), None)
        if home is not None and len(chosen) > 1:
            plan = _plan(tree, chosen, home, facts)
            if plan is not None:
                return plan
    return None


def _norm(branch: Branch) -> Link | None:
    return next((k for k in branch.links if k.node.op == "BatchNormalization"), None)


def _plan(tree: Tree, chosen: dict[Term, Branch], home: Term, facts: Facts) -> Plan | None:
    stays = _norm(chosen[home])
    assert stays is not None  # noqa: S101 - home is a term that has one
    norm = read_batchnorm(stays.node, facts)
    rank = facts.rank(chosen[home].source)
    if not isinstance(norm, BatchNorm) or rank is None:
        return None
    whole = len(chosen) == len(tree.terms)
    turn = 1 if whole else home.sign
    scale, shift = np.zeros(norm.channels), np.zeros(norm.channels)
    for term, branch in chosen.items():
        affine = _affine(branch, rank, norm.channels)
        if affine is None:
            return None
        scale = scale + turn * term.sign * affine.scale
        shift = shift + turn * term.sign * affine.offset
    vectors = (scale, shift, np.zeros_like(scale), np.ones_like(scale))
    kinds = (norm.kind, norm.kind, norm.statistics_kind, norm.statistics_kind)
    edits: list[SetConstant | SetAttributes] = []
    for index, (values, kind) in enumerate(zip(vectors, kinds, strict=True), start=1):
        data = dense(values, FLOATS[kind])
        if data.out_of_range() is not None:
            return None
        edits.append(SetConstant(stays.node, index, data, kind, ROLES[index - 1]))
    edits.append(SetAttributes(stays.node, {"epsilon": 0.0}))
    plan = Plan("parallel", list(edits), into=[stays.node], through=list(tree.nodes))
    source = chosen[home].source
    take_over(plan, tree, stays.node, 0, source, home, None if whole else list(chosen))
    for term, branch in chosen.items():
        if term is not home:
            plan.branches.append(branch.nodes[0] if branch.links else term.use.node)
    return plan


ROLES = ("scale", "bias", "mean", "variance")


def _affine(branch: Branch, rank: int, channels: int) -> Affine | None:
    """What a branch does to each channel, as vectors; the channel axis is 1."""
    whole = Affine.identity(rank)
    for link in reversed(branch.links):
        affine = None if link.affine is None else link.affine(rank)
        if isinstance(affine, Refusal):
            return None
        whole = whole if affine is None else whole.then(affine)
    return whole.along(1, channels)
