"""Finds the batch normalizations of a module in its traces, and what taking one out would leave.

A normalization can go if the whole call of a module amounts to it, apart from children behind it
(the activation of timm's BatchNormAct2d). Code that normalizes by itself, with ``F.batch_norm`` in
the middle of other operations, would still do so after its parameters were folded.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from bnfold.graph.index import Node, Value
from bnfold.graph.plan import Refusal
from bnfold.graph.sites import Candidate
from bnfold.report import Reason, Verdict
from bnfold.torch.planning import Norm, Setup
from bnfold.torch.surrogate import Slot, Surrogate
from bnfold.torch.trace import Call, Datum, Scope, Trace

__all__ = ["find_norms"]

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
INERT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def find_norms(module: nn.Module, graph: Surrogate, traces: Sequence[Trace]) -> Setup:
    """List the normalizations that the traces call.

    Args:
        module: The traced module.
        graph: The surrogate graph that holds the traces.
        traces: All of them.
    """
    return _Finder(module, graph, traces).find()


class _Finder:
    def __init__(self, module: nn.Module, graph: Surrogate, traces: Sequence[Trace]) -> None:
        self.module = module
        self.graph = graph
        self.traces = traces
        self.modules = dict(module.named_modules(remove_duplicate=False))
        self.names: dict[int, str] = {}
        for name, part in self.modules.items():
            self.names.setdefault(id(part), name)
        self.norms: dict[object, Norm] = {}
        self.taken: set[Node] = set()

    def find(self) -> Setup:
        watched: list[Value] = []
        for trace in self.traces:
            grouped: dict[Scope, list[Call]] = {}
            for call in trace.calls:
                for scope in call.scopes:
                    grouped.setdefault(scope, []).append(call)
            for scope, calls in grouped.items():
                part = self.modules.get(scope.name)
                if part is not None and _has_statistics(part):
                    self._module(part, scope, calls)
                if part is not None and _hooked(part):
                    watched += self._boundary(calls)
            for call in trace.calls:
                self._functional(call)
        norms = [norm for norm in self.norms.values() if norm.calls]
        for norm in norms:
            norm.kept = norm.kept or self._shared(norm)
        return Setup(self.graph, norms, watched, self._uncalled())

    def _uncalled(self) -> list[Verdict]:
        """Normalizations that the traces do not reach."""
        reason = Reason.NO_LINEAR_NEIGHBOUR
        return [
            Verdict(
                self.names[id(part)], "BatchNormalization", "main", _length_of_statistics(part),
                folded=False, reason=reason, detail="it is not called with the example inputs",
            )
            for part in self.module.modules()
            if _has_statistics(part) and id(part) not in self.norms and self._is_idle(part)
        ]  # fmt: skip

    def _is_idle(self, part: nn.Module) -> bool:
        """True if no operator reads what the normalization holds."""
        return not any(slot.uses or slot.blocked for _, slot in self._slots(part))

    def _module(self, part: nn.Module, scope: Scope, calls: list[Call]) -> None:
        """One call of a module that holds statistics."""
        own = [call for call in calls if call.scopes[-1] == scope]
        nodes = [node for call in own for node in self._nodes(call)]
        inner = [node for call in calls if call not in own for node in self._nodes(call)]
        if not nodes:
            return
        is_norm = [node.op == "BatchNormalization" for node in nodes]
        name = self.names[id(part)] or type(part).__name__
        norm = self.norms.setdefault(id(part), Norm(id(part), name))
        if is_norm == [True]:
            candidate = Candidate(norm.name, "BatchNormalization", nodes, _channels(nodes[0]))
        elif any(is_norm):
            node = nodes[is_norm.index(True)]
            candidate = Candidate(norm.name, "BatchNormalization", [node], _channels(node))
            if not node.attribute("training_mode", 0):
                norm.kept = norm.kept or _more(norm.name, part)
        else:
            candidate = Candidate(norm.name, "Affine", nodes, _length_of_statistics(part))
        norm.calls.append(candidate)
        self.taken.update(nodes)
        if candidate.nodes[0].attribute("training_mode", 0):
            return
        if any(isinstance(each, torch.jit.ScriptModule) for each in self._path(name)):
            norm.kept = Refusal(Reason.NO_GAIN, f'"{name}" is part of compiled TorchScript')
        elif _hooked(part):
            norm.kept = Refusal(Reason.FAN_OUT, f'a hook of "{norm.name}" would be lost with it')
        elif norm.kept is None and not self._only_children_follow(part, nodes, inner):
            norm.kept = _more(norm.name, part)
        elif norm.kept is None and part is self.module:
            norm.kept = Refusal(
                Reason.NO_LINEAR_NEIGHBOUR, f"the {type(part).__name__} is the whole module"
            )

    def _path(self, name: str) -> list[nn.Module]:
        """The modules that lead to one."""
        parts = name.split(".")
        names = (".".join(parts[:count]) for count in range(len(parts) + 1))
        return [self.modules[each] for each in names if each in self.modules]

    def _only_children_follow(self, part: nn.Module, nodes: list[Node], inner: list[Node]) -> bool:
        """Nothing but the norm itself, then its children one after another."""
        last = nodes[-1].outputs[0]
        own = set(nodes)
        for before, node in itertools.pairwise(nodes):
            uses = [] if before.outputs[0] is None else list(before.outputs[0].uses)
            if [use.node for use in uses] != [node]:
                return False
        if last is None:
            return False
        made = {value for node in inner for value in node.outputs}
        for node in inner:
            for value in node.inputs:
                known = value is last or value in made or self.graph.constants.get(value)
                if value is not None and not known:
                    return False
        outside = [use.node for use in last.uses if use.node not in inner and use.node not in own]
        if inner and (outside or last.is_output):
            return False
        called = {scope for node in inner for scope in self._child_of(node, part)}
        return all(
            isinstance(child, INERT) or name in called for name, child in part.named_children()
        )

    def _child_of(self, node: Node, part: nn.Module) -> list[str]:
        for call, nodes in self.graph.nodes_of.items():
            if node in nodes:
                scoped = [self.modules.get(scope.name) for scope in call.scopes]
                return [
                    name
                    for name, child in part.named_children()
                    if any(child is other for other in scoped)
                ]
        return []

    def _functional(self, call: Call) -> None:
        """F.batch_norm in code that does other things too."""
        for node in self._nodes(call):
            if node.op != "BatchNormalization" or node in self.taken:
                continue
            owners = [datum.owner for datum in call.inputs() if datum.owner is not None]
            scope = call.scopes[-1].name if call.scopes else ""
            name = owners[0].rpartition(".")[0] if owners else scope
            key = ("functional", name or call.name, scope)
            norm = self.norms.setdefault(key, Norm(key, name or call.name))
            norm.calls.append(Candidate(norm.name, "BatchNormalization", [node], _channels(node)))
            where = f'the code of "{scope}"' if scope else "the code of the module"
            norm.kept = Refusal(
                Reason.NO_GAIN, f"{where} calls batch_norm itself, and would still do so"
            )

    def _shared(self, norm: Norm) -> Refusal | None:
        """The parameters of a norm that goes must not be read by anything else."""
        part = next((m for m in self.modules.values() if id(m) == norm.key), None)
        if part is None:
            return None
        for name, slot in self._slots(part):
            if slot.blocked is not None and not self._is_frozen_form(norm):
                return Refusal(Reason.FAN_OUT, f'"{norm.name}.{name}" {slot.blocked}')
            readers = {use.node for use in slot.uses} - self.taken
            if readers:
                other = next(iter(readers)).name
                return Refusal(Reason.FAN_OUT, f'"{norm.name}.{name}" is also read by "{other}"')
        return None

    @staticmethod
    def _is_frozen_form(norm: Norm) -> bool:
        return all(call.kind == "Affine" for call in norm.calls)

    def _slots(self, part: nn.Module) -> list[tuple[str, Slot]]:
        named = {n: t for source in (part._parameters, part._buffers) for n, t in source.items()}  # noqa: SLF001
        return [
            (name, self.graph.slots[id(tensor)])
            for name, tensor in named.items()
            if tensor is not None and id(tensor) in self.graph.slots
        ]

    def _nodes(self, call: Call) -> list[Node]:
        return [node for node in self.graph.nodes_of.get(call, []) if node.alive]

    def _boundary(self, calls: list[Call]) -> list[Value]:
        """What goes into a module call and what comes out of it."""
        inside = set(calls)
        made: set[Datum] = {d for call in calls for d in call.outputs if d is not None}
        seen = [datum for call in calls for datum in call.inputs() if datum not in made]
        readers = {
            datum
            for trace in self.traces
            for call in trace.calls
            if call not in inside
            for datum in call.inputs()
        }
        returned = {datum for trace in self.traces for datum in trace.outputs}
        seen += [datum for datum in made if datum in readers or datum in returned]
        return [self.graph.value(datum) for datum in dict.fromkeys(seen) if datum.tensor is None]


def _has_statistics(part: nn.Module) -> bool:
    names = ("running_mean", "running_var")
    return isinstance(part, nn.modules.batchnorm._BatchNorm) or all(  # noqa: SLF001 - the only common base
        isinstance(getattr(part, name, None), torch.Tensor) for name in names
    )


def _hooked(part: nn.Module) -> bool:
    return any(getattr(part, name, None) for name in HOOKS)


def _more(name: str, part: nn.Module) -> Refusal:
    return Refusal(
        Reason.NO_GAIN,
        f'the code of "{name}" ({type(part).__name__}) does more than normalize, and would remain',
    )


def _channels(node: Node) -> int | None:
    for value in node.inputs[1:]:
        if value is not None and value.shape and isinstance(value.shape[0], int):
            return value.shape[0]
    return None


def _length_of_statistics(part: nn.Module) -> int | None:
    mean = getattr(part, "running_mean", None)
    return mean.numel() if isinstance(mean, torch.Tensor) else None
