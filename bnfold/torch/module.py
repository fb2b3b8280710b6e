"""Folds an ``nn.Module``: the same class, without the batch normalizations that can go.

1. Trace: who feeds whom, from ``torch.export``, or from one recorded eager run.
2. Plan on all traces at once (``planning.py``).
3. Prove: a copy in float64 with unrounded weights must agree with the original, on other shapes,
   batch sizes, values and flags too. Where it does not, the arguments that show it are traced as
   well, and 2 is repeated.
4. Build the result from a copy, and compare it in its own type by the noise rule.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from bnfold.errors import InputError, NotEquivalentError
from bnfold.graph.plan import Refusal
from bnfold.report import FoldReport, Reason
from bnfold.torch.exported import Raw, events_of, trace_of
from bnfold.torch.inputs import Example, as_example, guess, variants
from bnfold.torch.norms import find_norms
from bnfold.torch.operators import OPERATORS
from bnfold.torch.planning import Outcome, Setup, solve
from bnfold.torch.reasons import reason_of
from bnfold.torch.record import record
from bnfold.torch.surgery import LINEAR, clone, install, plain, take_out
from bnfold.torch.surrogate import Surrogate
from bnfold.torch.trace import Call, Datum, Trace
from bnfold.torch.verify import agree, compare, outputs_of, report_of

__all__ = ["fold"]

log = logging.getLogger(__name__)
MAX_TRACES = 6
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def fold(
    module: ModuleT, example_inputs: Any = None, *, keep: Sequence[str] = ()
) -> tuple[ModuleT, FoldReport]:
    """Fold the batch normalizations of a module into the weights before and after them.

    Args:
        module: In eval mode. It is not changed.
        example_inputs: What the module can be called with: a tensor, a tuple of positional
            arguments, or a dict of keyword arguments. If None, an input is guessed from the
            module's first layer.
        keep: Globs of module names to leave alone, such as ``"stem.*"``.

    Returns:
        A new module of the same class that shares nothing with ``module``, and the report: a
        verdict for each batch normalization, and the comparison of both modules.

    Raises:
        InputError: The module is in training mode, cannot be copied, or does not run on the inputs.
        NotEquivalentError: The result does not compute the same: a bug in bnfold.
    """
    _check(module)
    keep = (keep,) if isinstance(keep, str) else tuple(keep)
    device = next((t.device for t in (*module.parameters(), *module.buffers())), None)
    source = plain(clone(module).cpu())
    example = _example(source, example_inputs)
    folding = _Folding(source, example, keep)
    outcome = folding.run()
    result = clone(module).cpu()
    _edit(result, outcome, folding.names, exact=False)
    examples = [example, *folding.passed[:1]]
    outputs = compare(source, result, examples)
    check = report_of(outputs, len(examples))
    report = FoldReport(
        None, None, tuple(outcome.verdicts), folding.calls,
        folding.calls - sum(v.folded for v in outcome.verdicts), checks=(check,),
    )  # fmt: skip
    if not check.equivalent:
        bad = next(output for output in outputs if not output.equivalent)
        raise NotEquivalentError(
            f"{type(module).__name__}: the folded module does not compute the same "
            f"(output '{bad.name}': {bad.difference:.2g} apart, {bad.allowed:.2g} allowed)",
            hint="this is a bug in bnfold, please report it; keep leaves a module alone meanwhile",
            checks=(check,),
        )
    return (result if device is None else result.to(device)), report


def _check(module: object) -> None:
    if not isinstance(module, nn.Module):
        raise InputError(
            f"a {type(module).__name__} is no torch.nn.Module",
            hint="bnfold.fold folds ONNX models, bnfold.torch.fold_program exported programs",
        )
    name = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            "a TorchScript module cannot be folded as a module",
            hint="bnfold.export turns it into a folded ONNX file",
        )
    if module.training:
        raise InputError(
            f"this {name} is in training mode, where batch normalization uses the batch",
            hint="call module.eval() first",
        )
    tensors = (*module.parameters(), *module.buffers())
    if any(is_lazy(tensor) for tensor in tensors):
        raise InputError(
            f"this {name} has lazy layers that have no weights yet",
            hint="run it once on an input first",
        )
    if any(tensor.is_meta for tensor in tensors):
        raise InputError(
            f"this {name} has weights on the meta device, without values",
            hint="load its weights first",
        )


def _example(module: nn.Module, given: Any) -> Example:
    if given is None:
        return guess(module, lambda example: _failure(module, example) is None)
    example = as_example(given).map(lambda t: t.detach().cpu())
    failure = _failure(module, example)
    if failure is not None:
        raise InputError(
            f"this {type(module).__name__} does not run on the example inputs: {failure}",
            hint="example_inputs is a tensor, a tuple of arguments, or a dict of keyword arguments",
        )
    return example


def _failure(module: nn.Module, example: Example) -> str | None:
    try:
        outputs_of(module, example)
    except Exception as error:  # noqa: BLE001 - the module is the caller's: anything may happen
        return reason_of(error)
    return None


def _edit(module: nn.Module, outcome: Outcome, names: dict[Hashable, str], *, exact: bool) -> None:
    install(module, outcome.changes, exact=exact)
    take_out(module, [names[key] for key in names if key in outcome.folded])


@dataclass(eq=False)
class _Traced:
    """One way through the module."""

    raw: Raw
    reads_values: bool = False


@dataclass(eq=False)
class _Folding:
    source: nn.Module
    example: Example
    keep: Sequence[str]
    traced: list[_Traced] = field(default_factory=list)
    refused: dict[Hashable, Refusal] = field(default_factory=dict)
    passed: list[Example] = field(default_factory=list)
    calls: int = 0
    double: bool = True

    def __post_init__(self) -> None:
        self.modules = dict(self.source.named_modules(remove_duplicate=False))
        self.names: dict[Hashable, str] = {}
        for name, part in self.modules.items():
            self.names.setdefault(id(part), name)
        self.tensors: dict[str, torch.Tensor] = {}
        for source in (self.source.named_parameters, self.source.named_buffers):
            self.tensors.update(source(remove_duplicate=False))

    def run(self) -> Outcome:
        """Plan and prove until both agree."""
        self.traced.append(self._trace(self.example))
        self.calls = len(self.traced[0].raw[1])
        others = variants(self.source, self.example)
        while True:
            outcome = self._solve()
            if not outcome.folded:
                return outcome
            failed = self._disproved(outcome, [self.example, *others])
            if failed is None:
                return outcome
            example, why = failed
            log.info("%s: %s", example.label, why)
            if example is not self.example and len(self.traced) < MAX_TRACES:
                before = len(self.traced)
                self._trace_too(example)
                if len(self.traced) > before:
                    others.remove(example)
                    others.insert(0, example)
                    if self._solve().folded != outcome.folded:
                        continue
            self._single_out(outcome, example, why)

    # --- tracing

    def _trace(self, example: Example) -> _Traced:
        module = clone(self.source)
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fresh = example.fresh()
                program = torch.export.export(
                    module, fresh.args, fresh.kwargs or None, strict=False
                )
            return _Traced(self._own(events_of(program)))
        except Exception as error:  # noqa: BLE001 - whatever export dislikes, an eager run may do
            log.info("torch.export: %s", error)
        raw, reads_values = record(clone(self.source), example)
        return _Traced(self._own(raw), reads_values)

    def _own(self, raw: Raw) -> Raw:
        """The copy that was traced may go: its tensors are those of the source."""
        for datum in raw[0].values():
            datum.tensor = self.tensors.get(datum.owner or "", datum.tensor)
        return raw

    def _trace_too(self, example: Example) -> None:
        try:
            self.traced.append(self._trace(example))
        except Exception as error:  # noqa: BLE001 - it ran a moment ago; then it cannot be traced
            log.info("%s cannot be traced: %s", example.label, error)

    # --- planning

    def _solve(self) -> Outcome:
        while True:
            outcome = solve(self._prepare, self.keep, self.refused)
            conflicts = self._write_conflicts(outcome)
            if not conflicts:
                return outcome
            self.refused.update(conflicts)

    def _prepare(self) -> Setup:
        graph = Surrogate(self._key, self._new_bias)
        graph.label = _label
        traces = [trace_of(traced.raw) for traced in self.traced]
        for trace in traces:
            graph.add(trace, OPERATORS)
        self._block_overlaps(graph)
        setup = find_norms(self.source, graph, traces)
        for traced, trace in zip(self.traced, traces, strict=True):
            if traced.reads_values:
                self._confine(setup, trace)
        return setup

    def _key(self, name: str) -> Hashable:
        tensor = self.tensors.get(name)
        return name if tensor is None else id(tensor)

    def _new_bias(self, call: Call, weight: Datum) -> tuple[Hashable, str] | None:
        """The bias of a layer whose code is known to use one if it is there."""
        scope = call.scopes[-1].name if call.scopes else ""
        part = self.modules.get(scope)
        if not isinstance(part, LINEAR) or part.bias is not None:
            return None
        if not any(type(part).forward is kind.forward for kind in LINEAR):
            return None
        own = getattr(type(part), "_conv_forward", None)
        known = [getattr(kind, "_conv_forward", None) for kind in LINEAR]
        if own not in known or self.tensors.get(weight.owner or "") is not part.weight:
            return None
        return ("bias", id(part)), f"{scope}.bias" if scope else "bias"

    def _block_overlaps(self, graph: Surrogate) -> None:
        """Different tensors in the same memory must not change one by one."""
        owners: dict[int, set[int]] = {}
        for tensor in self.tensors.values():
            if tensor.numel():
                owners.setdefault(tensor.untyped_storage().data_ptr(), set()).add(id(tensor))
        for ids in owners.values():
            for key in ids if len(ids) > 1 else ():
                if key in graph.slots:
                    graph.slots[key].blocked = "shares its memory with another parameter"

    def _confine(self, setup: Setup, trace: Trace) -> None:
        """Where the code looks at values, keep what is not inside a Sequential of its own."""
        home = {
            node: call.scopes for call in trace.calls for node in setup.graph.nodes_of.get(call, [])
        }
        for value in {v for node in home for v in node.outputs if v is not None}:
            nodes = [value.producer, *(use.node for use in value.uses)]
            scopes = [home.get(node, ()) if node is not None else () for node in nodes]
            shared = _common(scopes)
            inner = self.modules.get(shared[-1].name) if shared else None
            if type(inner) is not nn.Sequential:
                setup.watched.append(value)

    def _write_conflicts(self, outcome: Outcome) -> dict[Hashable, Refusal]:
        """Normalizations whose absence would let a write in place reach what they have copied."""
        conflicts: dict[Hashable, Refusal] = {}
        owners = {self.names[key]: key for key in outcome.folded if key in self.names}
        for traced in self.traced:
            gone: dict[str, Hashable] = {}
            for event in traced.raw[1]:
                for scope in event.scopes:
                    if scope.name in owners:
                        gone[event.name] = owners[scope.name]
            for name, through in trace_of(traced.raw, frozenset(gone)).spills:
                for call in through:
                    conflicts[gone[call]] = Refusal(
                        Reason.FAN_OUT,
                        f'without it, "{name}" would write into a tensor that is used elsewhere',
                    )
        return conflicts

    # --- proving

    def _disproved(
        self, outcome: Outcome, examples: Sequence[Example]
    ) -> tuple[Example, str] | None:
        """The first arguments on which a float64 copy of the result differs, and how."""
        reference, candidate = self._pair(outcome)
        self.passed = []
        for example in examples:
            wide = example.to(torch.float64) if self.double else example
            try:
                expected = outputs_of(reference, wide)
            except Exception as error:  # noqa: BLE001 - arguments of our own making
                if example is self.example and self.double:
                    log.info("float64: %s", error)
                    self.double = False  # it mixes types: compare in its own type instead
                    return self._disproved(outcome, examples)
                continue
            try:
                found = outputs_of(candidate, wide)
            except Exception as error:  # noqa: BLE001 - the original ran, so this is ours
                return example, reason_of(error)
            why = agree(expected, found) if self.double else self._by_noise(example, outcome)
            if why is not None:
                return example, why
            if example is not self.example:
                self.passed.append(example)
        return None

    def _pair(self, outcome: Outcome) -> tuple[nn.Module, nn.Module]:
        reference, candidate = clone(self.source), clone(self.source)
        if self.double:
            reference, candidate = reference.double(), candidate.double()
        _edit(candidate, outcome, self.names, exact=self.double)
        return reference, candidate

    def _by_noise(self, example: Example, outcome: Outcome) -> str | None:
        candidate = clone(self.source)
        _edit(candidate, outcome, self.names, exact=False)
        bad = [o for o in compare(self.source, candidate, [example]) if not o.equivalent]
        return f"output '{bad[0].name}' is {bad[0].difference:.2g} apart" if bad else None

    def _single_out(self, outcome: Outcome, example: Example, why: str) -> None:
        """Refuse the normalizations that cannot even go one at a time."""
        found = False
        for key in sorted(outcome.folded, key=lambda k: self.names.get(k, "")):
            rest = {other: _DISPROVED for other in outcome.folded if other != key}
            alone = solve(self._prepare, self.keep, {**self.refused, **rest})
            if alone.folded and self._disproved(alone, [self.example, example]) is not None:
                self.refused[key] = Refusal(
                    Reason.DYNAMIC_WEIGHT,
                    f"with {example.label}, the code does what its trace does not show ({why})",
                )
                found = True
        if not found:
            reason = Refusal(Reason.DYNAMIC_WEIGHT, f"not proved with {example.label}: {why}")
            self.refused.update(dict.fromkeys(outcome.folded, reason))


_DISPROVED = Refusal(Reason.EXCLUDED, "tried one at a time")


def _label(call: Call) -> str:
    """A module that is one operator goes by its name; other operators by both."""
    scope = call.scopes[-1].name if call.scopes else ""
    return scope if call.op in _LAYERS and scope else ".".join(filter(None, (scope, call.name)))


_LAYERS = {
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "convolution", "linear", "addmm", "batch_norm", "native_batch_norm", "layer_norm", "group_norm",
    "instance_norm",
}  # fmt: skip


def _common(scopes: Sequence[Sequence[Any]]) -> list[Any]:
    shared: list[Any] = []
    for parts in zip(*scopes, strict=False):
        if len(set(parts)) != 1:
            break
        shared.append(parts[0])
    return shared
