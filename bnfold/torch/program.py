"""Folds an exported program (``.pt2``): a graph, so any use of a weight may get one of its own.

Normalizations leave the graph, weights and biases take their place in the state dict, and where a
bias is missing, or a weight is also needed as it was, the program gets one more parameter: a
placeholder with its own entry in the signature. Dynamic shapes, inputs and outputs stay.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

from bnfold.errors import InputError, NotEquivalentError
from bnfold.graph.plan import Refusal
from bnfold.graph.sites import Candidate
from bnfold.lazy import Unrounded
from bnfold.report import CheckReport, FoldReport, Reason
from bnfold.torch.exported import events_of, trace_of
from bnfold.torch.operators import OPERATORS
from bnfold.torch.operators.normalization import BATCH_NORMS
from bnfold.torch.planning import Norm, Outcome, Setup, solve
from bnfold.torch.program_proof import prove
from bnfold.torch.surgery import tensor_from
from bnfold.torch.surrogate import Slot, Surrogate
from bnfold.torch.trace import Call, Datum

__all__ = ["fold_program"]

BIAS_AT = 2


def fold_program(
    program: ExportedProgram, *, keep: Sequence[str] = (), check: bool = True
) -> tuple[ExportedProgram, FoldReport]:
    """Fold the batch normalizations of an exported program.

    Args:
        program: It is not changed.
        keep: Globs of names to leave alone: of the module that a normalization was, or of its node.
        check: Compare both programs on random inputs, in float64 and in their own type.

    Returns:
        A new program with the same signature and the same dynamic shapes, and the report.

    Raises:
        InputError: ``program`` is no exported program.
        NotEquivalentError: The result does not compute the same: a bug in bnfold.
    """
    if not isinstance(program, ExportedProgram):
        raise InputError(
            f"a {type(program).__name__} is no torch.export.ExportedProgram",
            hint="bnfold.torch.fold folds modules",
        )
    keep = (keep,) if isinstance(keep, str) else tuple(keep)
    raw = events_of(program)
    refused: dict[Hashable, Refusal] = {}
    while True:
        outcome = solve(lambda: _prepare(raw), keep, refused)
        spills = trace_of(raw, frozenset(str(key) for key in outcome.folded)).spills
        leaks = {call: name for name, through in spills for call in through}
        if not leaks:
            break
        for call, name in leaks.items():
            why = f'without it, "{name}" would write into a tensor that is used elsewhere'
            refused[call] = Refusal(Reason.FAN_OUT, why)
    folded = _edited(program, outcome, exact=False)
    checks: tuple[CheckReport, ...] = ()
    if check and outcome.folded:
        exact = _edited(program, outcome, exact=True)
        result = prove(program, folded, exact)
        checks = (result,)
        if not result.equivalent:
            raise NotEquivalentError(
                f"the folded program does not compute the same ({result.detail})",
                hint="this is a bug in bnfold, please report it; keep= leaves sites alone",
                checks=checks,
            )
    count, after = (_count(each) for each in (program, folded))
    return folded, FoldReport(None, None, tuple(outcome.verdicts), count, after, checks=checks)


def _count(program: ExportedProgram) -> int:
    return sum(node.op == "call_function" for node in program.graph.nodes)


# --- planning


def _prepare(raw: Any) -> Setup:
    graph = Surrogate(lambda name: name, _new_bias, copies=True)
    graph.label = _label
    trace = trace_of(raw)
    graph.add(trace, OPERATORS)
    norms = [
        Norm(call.name, "", [Candidate("", "BatchNormalization", graph.nodes_of[call][:1])])
        for call in trace.calls
        if call.op in BATCH_NORMS and graph.nodes_of[call]
    ]
    by_name = {call.name: call for call in trace.calls}
    names = [_name(by_name[str(norm.key)]) for norm in norms]
    for norm, name in zip(norms, names, strict=True):
        unique = name if names.count(name) == 1 else str(norm.key)
        node = norm.calls[0].nodes[0]
        width = next((v.shape[0] for v in node.inputs[1:] if v is not None and v.shape), None)
        norm.name = norm.calls[0].name = unique
        norm.calls[0].channels = width if isinstance(width, int) else None
    return Setup(graph, norms)


def _name(call: Call) -> str:
    """The module that holds the statistics, or the node."""
    owners = [datum.owner for datum in call.inputs() if datum.owner is not None]
    return (owners[-1].rpartition(".")[0] if owners else "") or call.name


def _label(call: Call) -> str:
    owners = [datum.owner for datum in call.inputs() if datum.owner is not None]
    return owners[0].rpartition(".")[0] if owners and call.op in _WITH_BIAS else call.name


def _new_bias(call: Call, weight: Datum) -> tuple[Hashable, str] | None:
    if call.op not in _WITH_BIAS:
        return None
    owner = weight.owner or call.name
    return ("bias", call.name), f"{owner.rpartition('.')[0] or call.name}.bias"


_WITH_BIAS = {
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "convolution", "linear", "mm",
}  # fmt: skip


# --- editing


def _edited(program: ExportedProgram, outcome: Outcome, *, exact: bool) -> ExportedProgram:
    """A new program with the changes of a plan; ``exact`` keeps float64 values unrounded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about what it copies itself
        module = copy.deepcopy(program.graph_module)
        calls = copy.deepcopy(program.module_call_graph)
    for node, original in zip(module.graph.nodes, program.graph.nodes, strict=True):
        node.name = original.name  # a copy avoids names of builtins, such as "input"
    signature = copy.deepcopy(program.graph_signature)
    editor = _Editor(program, module, signature, exact=exact)
    for slot, values in outcome.changes.values():
        editor.change(slot, values)
    for name in outcome.folded:
        editor.remove(str(name))
    editor.sweep()
    module.graph.lint()
    module.recompile()
    return ExportedProgram(
        root=module,
        graph=module.graph,
        graph_signature=signature,
        state_dict=editor.state,
        range_constraints=copy.deepcopy(program.range_constraints),
        module_call_graph=calls,
        example_inputs=program.example_inputs,
        constants=dict(program.constants),
        verifiers=program.verifiers,
    )


class _Editor:
    def __init__(
        self, program: ExportedProgram, module: torch.fx.GraphModule, signature: Any, *, exact: bool
    ) -> None:
        self.graph = module.graph
        self.signature = signature
        self.exact = exact
        self.nodes = {node.name: node for node in module.graph.nodes}
        self.state: dict[str, Any] = dict(program.state_dict)
        self.taken = {*self.state, *program.constants}
        self.made: dict[tuple[str, bytes], torch.fx.Node] = {}

    def change(self, slot: Slot, values: Unrounded) -> None:
        """Give the use of a slot a parameter with other values."""
        use = slot.uses[0]
        node = self.nodes[use.call.name]
        data = torch.from_numpy(values.float64()) if self.exact else tensor_from(values)
        data = data.contiguous()
        key = (slot.name, data.numpy().tobytes() if data.dtype is not torch.bfloat16 else b"")
        if key not in self.made or not key[1]:
            self.made[key] = self._placeholder(slot.name, data, node)
        placeholder = self.made[key]
        if use.datum is not None:
            node.replace_input_with(self.nodes[use.datum.name], placeholder)
        elif node.target is torch.ops.aten.mm.default:
            node.target = torch.ops.aten.addmm.default
            node.args = (placeholder, *node.args)
        else:
            arguments = [*node.args, *[None] * (BIAS_AT + 1 - len(node.args))]
            arguments[BIAS_AT] = placeholder
            node.args = tuple(arguments)
            node.kwargs = {k: v for k, v in node.kwargs.items() if k != "bias"}

    def _placeholder(self, name: str, data: torch.Tensor, reader: torch.fx.Node) -> torch.fx.Node:
        target = self._fresh(name)
        holders = [node for node in self.graph.nodes if node.op == "placeholder"]
        stored = [
            index
            for index, spec in enumerate(self.signature.input_specs)
            if spec.kind is InputKind.PARAMETER
        ]
        place = stored[-1] + 1 if stored else 0
        label = "p_" + target.replace(".", "_")
        anchor = holders[place] if place < len(holders) else reader
        with self.graph.inserting_before(anchor):
            node = self.graph.placeholder(label)
        fake = next(
            mode
            for other in holders
            if (mode := getattr(other.meta.get("val"), "fake_mode", None)) is not None
        )
        node.meta["val"] = fake.from_tensor(data, static_shapes=True)
        node.name = node.target = _unused(label, self.nodes)
        self.nodes[node.name] = node
        spec = InputSpec(InputKind.PARAMETER, TensorArgument(name=node.name), target)
        self.signature.input_specs.insert(place, spec)
        self.state[target] = torch.nn.Parameter(data, requires_grad=data.is_floating_point())
        return node

    def _fresh(self, name: str) -> str:
        base, number = name, 0
        while name in self.taken:
            number += 1
            name = f"{base}_folded" if number == 1 else f"{base}_folded_{number}"
        self.taken.add(name)
        return name

    def remove(self, name: str) -> None:
        """Take a normalization out: its input goes where its result went."""
        node = self.nodes[name]
        source = node.args[0]
        assert isinstance(source, torch.fx.Node)  # noqa: S101 - the input of a normalization
        several = isinstance(node.meta.get("val"), (tuple, list))
        for result in [u for u in node.users if u.args[1] == 0] if several else [node]:
            for spec in self.signature.output_specs:
                if getattr(spec.arg, "name", None) == result.name:
                    spec.arg = type(spec.arg)(name=source.name)
            result.replace_all_uses_with(source)
        for user in list(node.users):
            self.graph.erase_node(user)
        self.graph.erase_node(node)

    def sweep(self) -> None:
        """Drop what nothing reads any more: calls on constants, parameters, buffers."""
        for node in reversed(list(self.graph.nodes)):
            if node.op == "call_function" and not node.users and self._is_pure(node):
                self.graph.erase_node(node)
        for spec in list(self.signature.input_specs):
            node = self.nodes.get(spec.arg.name)
            stored = spec.kind in (InputKind.PARAMETER, InputKind.BUFFER)
            if node is None or not stored or node.users or spec.target not in self.state:
                continue
            self.graph.erase_node(node)
            self.signature.input_specs.remove(spec)
            del self.state[spec.target]

    @staticmethod
    def _is_pure(node: torch.fx.Node) -> bool:
        """A call of which only the result counts, and that has only parameters to read."""
        schema = getattr(node.target, "_schema", None)
        if schema is None or schema.is_mutable:
            return False
        return all(source.op == "placeholder" for source in node.all_input_nodes)


def _unused(name: str, nodes: dict[str, Any]) -> str:
    base, number = name, 0
    while name in nodes:
        number += 1
        name = f"{base}_{number}"
    return name
