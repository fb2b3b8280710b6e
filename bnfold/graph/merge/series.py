"""One behind the other: two operators without anything between that is not linear become one.

A convolution behind another, or a matrix product behind another, where the first is read by the
second alone. What stands between them (a bias, a scale) goes along. The same cost rule holds as
side by side: a bottleneck that is cheaper in two steps stays in two.
"""

from __future__ import annotations

from bnfold.graph.facts import Facts
from bnfold.graph.index import Graph, Node
from bnfold.graph.merge.branches import Branch, read_branch
from bnfold.graph.merge.cost import no_gain
from bnfold.graph.merge.emit import rewrite, survivor
from bnfold.graph.plan import Plan, Refusal, Reroute

__all__ = ["find_ends", "plan_series", "read_series"]

OPERATORS = ("Conv", "Gemm", "MatMul")


def find_ends(graph: Graph) -> list[Node]:
    """The nodes that may be the last of a run."""
    return [node for node in graph.nodes() if node.op in OPERATORS]


def read_series(node: Node, facts: Facts) -> Branch | None:
    """The run of nodes from one operator to ``node``, another one, if there is one."""
    value = node.output()
    if value is None:
        return None
    whole = read_branch(value, facts, last=node)
    places = [i for i, link in enumerate(whole.links) if link.operator is not None]
    if len(places) < 2:
        return None
    links = whole.links[: places[1] + 1]
    source = links[-1].node.inputs[links[-1].index]
    if source is None or any(link.axes for link in links):
        return None
    return Branch(source, links)


def plan_series(branch: Branch, facts: Facts) -> Plan | Refusal:
    """The plan that makes one operator of a run of nodes.

    Args:
        branch: The run; its last node is where the result is.
        facts: Knowledge about the graph.
    """
    root, form, channels = branch.links[0].node, branch.form, branch.channels
    assert form is not None  # noqa: S101 - read_series has seen two operators
    assert channels is not None  # noqa: S101 - as above
    merged = branch.resolve(form, channels, facts)
    if isinstance(merged, Refusal):
        return merged
    refusal = no_gain(root, merged, branch.cost(channels))
    if refusal is not None:
        return refusal
    stays = survivor(branch.links)
    edits = rewrite(stays, merged)
    if isinstance(edits, Refusal):
        return edits
    reroute = Reroute(stays.node, stays.index, branch.source, instead_of=root)
    gone = [link.node for link in branch.links if link is not stays and link.operator is not None]
    through = [link.node for link in branch.links if link.operator is None]
    return Plan("series", [reroute, *edits], into=[stays.node], through=through, branches=gone)
