"""Finds sites, plans, applies, and repeats until nothing changes.

The only module that changes a graph. Sites are tried in topological order, first towards their
producers, then towards their consumers; a fold can make room for another, so what stayed is tried
again until a round folds nothing. Then branches are merged, which makes room for folds again, and
so on until a round of both changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto

from bnfold._version import __version__
from bnfold.graph import shapes, sites
from bnfold.graph.census import operator_counts
from bnfold.graph.constants import Constants
from bnfold.graph.edits import Editor
from bnfold.graph.facts import EFFORT, EFFORT_PER_NODE, Facts
from bnfold.graph.functions import executed, inline
from bnfold.graph.index import Graph, Node
from bnfold.graph.merge.merger import Merger
from bnfold.graph.ones import plan_ones_channel
from bnfold.graph.plan import Bypass, Plan, Refusal
from bnfold.graph.planner import plan_backward, plan_forward
from bnfold.graph.sites import Candidate, Site
from bnfold.graph.validity import blaming
from bnfold.graph.verdicts import continued
from bnfold.graph.verdicts import sites as sites_of
from bnfold.report import FoldReport, Reason, Verdict
from bnfold.store import LoadedModel, TensorStore

__all__ = ["FoldOptions", "fold_model"]

PROVENANCE = "pkg.bnfold.version"


@dataclass(frozen=True)
class FoldOptions:
    """What a user may ask of a fold.

    Attributes:
        keep: Globs on site names; matching sites are left alone.
        freeze_initializers: Treat initializers that callers could override as constants, and take
            them out of the graph inputs.
        merge: Make one operator of linear ones that are added or follow one another.
        ones_channel: Fold in front of padded convolutions by a channel that is constantly 1.
    """

    keep: tuple[str, ...] = ()
    freeze_initializers: bool = False
    merge: bool = True
    ones_channel: bool = False


@dataclass(eq=False)
class _Record:
    """What has become of one candidate so far."""

    candidate: Candidate
    direction: str | None = None
    into: list[Node] = field(default_factory=list)
    through: list[Node] = field(default_factory=list)
    constant: str = ""
    refusal: Refusal | None = None
    eaten_by: _Record | None = None

    def took(self, plan: Plan) -> None:
        self.direction = plan.direction
        self.into += plan.into
        self.through += plan.through
        self.constant = self.constant or plan.constant


def fold_model(model: LoadedModel, options: FoldOptions) -> tuple[FoldReport, bool]:
    """Fold everything that can be folded exactly.

    Args:
        model: Edited in place: the skeleton changes, new tensors are attached to its store.
        options: What to leave alone.

    Returns:
        The report, and whether the model has changed at all.

    Raises:
        ModelError: The model is not valid, and cannot be worked on.
    """
    with blaming(model):
        return _fold_model(model, options)


@dataclass(frozen=True)
class _Pass:
    """What folding a graph once, or more often, has shown.

    Attributes:
        verdicts: On all sites and branches.
        changed: True if the graph is another one.
        again: True if shapes were missing, of which what is left may tell more.
        names: For nodes without a name, by graph and output: what reports call them.
    """

    verdicts: tuple[Verdict, ...]
    changed: bool
    again: bool
    names: dict[tuple[str, str], str]


def _fold_model(model: LoadedModel, options: FoldOptions) -> tuple[FoldReport, bool]:
    before = operator_counts(model.proto)
    whole = _fold_repeatedly(model.proto, model.tensors, options, {})
    verdicts, changed = whole.verdicts, whole.changed
    in_functions = {
        v.graph for v in sites_of(verdicts) if not v.folded and v.graph.startswith("function ")
    }
    inlined = inline(model.proto, in_functions)
    if inlined is not None:
        others = _fold_repeatedly(inlined, model.tensors, options, whole.names)
        rest = tuple(v for v in verdicts if v.folded or v.graph not in in_functions)
        joined = continued(rest, others.verdicts)
        if joined is not None and executed(inlined) < executed(model.proto):
            model.proto.CopyFrom(inlined)
            verdicts, changed = joined, True
    if changed:
        _sign(model.proto)
    report = FoldReport(
        model=None if model.path is None else str(model.path),
        output=None,
        sites=verdicts,
        nodes_before=sum(before.values()),
        nodes_after=len(model.proto.graph.node),
        bytes_before=model.size,
        hints=tuple(_hints(verdicts)),
        operators_before=before,
        operators_after=operator_counts(model.proto),
    )
    return report, changed


def _fold_repeatedly(
    proto: ModelProto,
    tensors: TensorStore,
    options: FoldOptions,
    names: dict[tuple[str, str], str],
) -> _Pass:
    """Fold again where shapes were missing, for as long as that changes something."""
    whole = last = _fold_graph(proto, tensors, options, names)
    while last.again:
        result = _copy(proto)
        last = _fold_graph(result, tensors, options, last.names)
        joined = continued(whole.verdicts, last.verdicts) if last.changed else None
        if joined is None:
            break
        proto.CopyFrom(result)
        whole = _Pass(joined, changed=True, again=False, names=last.names)
    return whole


def _fold_graph(
    proto: ModelProto,
    tensors: TensorStore,
    options: FoldOptions,
    names: dict[tuple[str, str], str],
) -> _Pass:
    graph = Graph(proto)
    for node in _nameless(graph):
        node.name = names.get((node.scope.label, node.proto.output[0]), node.name)
    shapes.infer(graph)
    unknown = any(
        value.shape is None
        for scope in graph.scopes
        if not scope.is_function
        for value in scope.values.values()
    )
    frozen = options.freeze_initializers and proto.ir_version >= 4 and graph.freeze()
    constants = Constants(graph, tensors)
    editor = Editor(graph, constants, tensors)
    facts = Facts(constants, effort=EFFORT + EFFORT_PER_NODE * sum(1 for _ in graph.nodes()))
    folder = _Folder(graph, facts, editor, options)
    changed = folder.run() or frozen
    if changed:
        editor.finish()
    verdicts = tuple(folder.verdicts())
    unknown |= any(verdict.reason is Reason.UNKNOWN_SHAPE for verdict in verdicts)
    return _Pass(
        verdicts,
        changed=changed,
        again=changed and unknown,
        names={(n.scope.label, n.proto.output[0]): n.name for n in _nameless(graph)},
    )


def _nameless(graph: Graph) -> Iterable[Node]:
    return (node for node in graph.nodes() if not node.proto.name and node.proto.output)


def _copy(proto: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(proto)
    return copy


class _Folder:
    def __init__(self, graph: Graph, facts: Facts, editor: Editor, options: FoldOptions) -> None:
        self.graph = graph
        self.facts = facts
        self.editor = editor
        self.options = options
        self.merger = Merger(graph, facts, options.keep, self._apply_merge)
        self.records: list[_Record] = []
        self.owners: dict[Node, _Record] = {}
        self.new_constants = False

    def run(self) -> bool:
        """Fold and merge until nothing changes; True if anything did."""
        changed = self._fold(self._find())
        while (self.options.merge and self.merger.run()) or self._add_channels():
            changed = True
            new = self._find()
            self._fold(
                [*(r for r in self.records if not r.candidate.is_gone and r not in new), *new]
            )
        return changed

    def _add_channels(self) -> bool:
        """Fold what needs a channel of ones, where that is asked for; True if anything did."""
        if not self.options.ones_channel:
            return False
        changed = False
        for record in self.records:
            if record.candidate.is_gone:
                continue
            site = record.candidate.read(self.facts)
            plan = site if isinstance(site, Refusal) else plan_ones_channel(site, self.facts)
            if isinstance(plan, Plan):
                self._apply(record, plan)
                changed = True
        return changed

    def _fold(self, left: list[_Record]) -> bool:
        """Fold until nothing changes; True if anything did."""
        changed = False
        while left:
            folded = [record for record in left if self._try(record)]
            changed = changed or bool(folded)
            left = [record for record in left if not record.candidate.is_gone]
            if not folded or not left:
                new, again = self._find() if changed else [], self.new_constants
                left = list(dict.fromkeys([*left, *new])) if new or again else []
                self.new_constants = False
        return changed

    def _find(self) -> list[_Record]:
        """Candidates that were none before, or shorter: a fold may make a constant of an operand.

        Returns:
            The records that are new. A record whose chain has grown counts as new.
        """
        self.facts.constants.reconsider()
        new: list[_Record] = []
        for candidate in sites.find(self.graph, self.facts, self.options.keep):
            record = self.owners.get(candidate.nodes[0])
            if record is None:
                record = _Record(candidate)
                self.records.append(record)
            elif {n for n in record.candidate.nodes if n.alive} < set(candidate.nodes):
                record.candidate.nodes = candidate.nodes
            else:
                continue
            new.append(record)
            for node in candidate.nodes:
                self.owners.setdefault(node, record)
        return new

    def _try(self, record: _Record) -> bool:
        """Fold one candidate, or its nodes one by one; True if anything changed."""
        if record.candidate.is_gone:
            return False
        site = record.candidate.read(self.facts)
        result = site if isinstance(site, Refusal) else self._plan(site)
        if isinstance(result, Plan):
            self._apply(record, result)
            return True
        record.refusal = result
        changed = False
        for part in record.candidate.parts(self.facts):
            plan = self._plan(part)
            if isinstance(plan, Plan):
                self._apply(record, plan)
                changed = True
        return changed

    def _plan(self, site: Site) -> Plan | Refusal:
        with np.errstate(all="ignore"):  # what is not finite is refused where it is stored
            backward = plan_backward(site, self.facts)
            if isinstance(backward, Plan):
                return backward
            forward = plan_forward(site, self.facts)
        return forward if isinstance(forward, Plan) else _better(site, backward, forward)

    def _apply(self, record: _Record, plan: Plan) -> None:
        record.took(plan)
        self.new_constants |= bool(plan.constant)
        for edit in plan.edits:
            owner = self.owners.get(edit.node) if isinstance(edit, Bypass) else None
            if owner is not None and owner is not record:
                owner.took(plan)
        self.editor.apply(plan)
        for node in plan.through:
            self.editor.cancel_reshapes(node)
        for node in self.editor.taken_unread():
            owner = self.owners.get(node)
            if owner is not None and owner.direction is None:
                owner.took(plan)  # a constant expression that the plan has put a constant for

    def _apply_merge(self, plan: Plan) -> None:
        self.editor.apply(plan)
        for node in dict.fromkeys([*self.editor.taken_unread(), *plan.through]):
            owner = self.owners.get(node)
            if owner is not None and owner.candidate.is_gone and not node.alive:
                owner.took(plan)

    def verdicts(self) -> Iterable[Verdict]:
        """One verdict for each site that people should know of, and for each branch."""
        for record in self.records:
            verdict = self._verdict(record)
            if verdict is not None:
                yield verdict
        yield from self.merger.verdicts(self.owners)

    def _verdict(self, record: _Record) -> Verdict | None:
        candidate = record.candidate
        folded = candidate.is_gone
        if not folded and candidate.kind == "Affine" and self._is_mere_shift(candidate):
            return None
        refusal = None if folded else record.refusal
        return Verdict(
            name=candidate.name,
            kind=candidate.kind,
            graph=candidate.graph,
            channels=candidate.channels,
            folded=folded,
            direction=record.direction if folded else None,
            into=self._into(record) if folded else (),
            through=tuple(dict.fromkeys(n.name for n in record.through)) if folded else (),
            reason=None if refusal is None else refusal.reason,
            detail=None if refusal is None else refusal.detail,
        )

    def _into(self, record: _Record) -> tuple[str, ...]:
        names = tuple(node.name for node in self._final(record))
        return names or ((record.constant,) if record.constant else ())

    def _final(self, record: _Record) -> list[Node]:
        """The nodes that hold the affine in the end: an absorber may have been folded itself."""
        final: dict[Node, None] = {}
        stack, seen = list(reversed(record.into)), set()
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            owner = self.owners.get(node)
            if node.alive or owner is None:
                final[node] = None
            else:
                stack += reversed(owner.into)
        return self.merger.final(final)

    def _is_mere_shift(self, candidate: Candidate) -> bool:
        site = candidate.read(self.facts)
        return isinstance(site, Site) and site.affine.is_shift


def _better(site: Site, backward: Refusal, forward: Refusal) -> Refusal:
    """The refusal that tells more: where one side is a plain wall, what blocks the other."""
    walls = (Reason.NONLINEAR, Reason.GRAPH_INPUT)
    detail = f"backward, {backward.detail}; forward, {forward.detail}"
    if site.input.is_input and site.output.is_output:
        return Refusal(Reason.NO_LINEAR_NEIGHBOUR, detail)
    informative = forward.reason not in (*walls, Reason.GRAPH_OUTPUT)
    chosen = forward if backward.reason in walls and informative else backward
    return Refusal(chosen.reason, detail)


def _sign(model: ModelProto) -> None:
    """Say who changed the model, without time or path: equal runs give equal bytes."""
    for entry in model.metadata_props:
        if entry.key == PROVENANCE:
            entry.value = __version__
            return
    model.metadata_props.add(key=PROVENANCE, value=__version__)


def _hints(verdicts: tuple[Verdict, ...]) -> Iterable[str]:
    overridable = sum(v.reason is Reason.OVERRIDABLE_INITIALIZER for v in verdicts)
    if overridable:
        yield (
            f"sites kept because their weights are also graph inputs: {overridable}; no runtime "
            "optimizes such weights; if no caller replaces them, use --freeze-initializers"
        )
