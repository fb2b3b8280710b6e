"""The proof of a folded program: both programs on random inputs of their signature."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from bnfold.report import CheckReport
from bnfold.torch.inputs import Example
from bnfold.torch.surgery import clone
from bnfold.torch.verify import agree, compare, outputs_of, report_of

__all__ = ["examples_of", "prove"]

log = logging.getLogger(__name__)


def prove(program: ExportedProgram, folded: ExportedProgram, exact: ExportedProgram) -> CheckReport:
    """Compare a program with its folded form.

    Args:
        program: The original.
        folded: With weights rounded to their type: compared by the noise rule.
        exact: With float64 weights: must agree in float64, where the program can run in it.
    """
    examples = examples_of(program)
    reference, candidate = _module(program), _module(folded)
    outputs = compare(reference, candidate, examples)
    report = report_of(outputs, len(examples))
    # a program and its modules share their tensors: convert copies
    wide = clone(reference).double(), clone(_module(exact)).double()
    for example in examples:
        try:
            expected = outputs_of(wide[0], example.to(torch.float64))
        except Exception as error:  # noqa: BLE001 - it mixes types: its own type must do
            log.info("float64: %s", error)
            break
        why = agree(expected, outputs_of(wide[1], example.to(torch.float64)))
        if why is not None:
            return CheckReport("PyTorch", "eager", False, outputs, len(examples), detail=why)
    return report


def _module(program: ExportedProgram) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: torch.nn.Module = program.module(check_guards=False)
        return module


def examples_of(program: ExportedProgram) -> list[Example]:
    """Random inputs at the sizes of the export, and at others where dimensions are open."""
    given = program.example_inputs
    base = Example(*given) if given is not None else _drawn(program, 0)
    return [base, *([_drawn(program, 1)] if program.range_constraints else [])]


def _drawn(program: ExportedProgram, more: int) -> Example:
    """Random inputs; open dimensions are ``more`` longer than at export, where that is allowed."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    drawn: list[Any] = []
    generator = torch.Generator().manual_seed(more)
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            continue
        value = values.get(getattr(spec.arg, "name", ""), getattr(spec.arg, "value", None))
        if not isinstance(value, torch.Tensor):
            drawn.append(value)
            continue
        shape = [_length(dim, program, more) for dim in value.shape]
        if value.is_floating_point():
            drawn.append(torch.randn(shape, generator=generator).to(value.dtype))
        else:
            drawn.append(torch.zeros(shape, dtype=value.dtype))
    args, kwargs = torch.utils._pytree.tree_unflatten(drawn, program.call_spec.in_spec)  # noqa: SLF001 - no public name
    return Example(tuple(args), dict(kwargs))


def _length(dim: Any, program: ExportedProgram, more: int) -> int:
    if isinstance(dim, int):
        return dim
    expression = dim.node.expr
    values = {}
    for symbol in expression.free_symbols:
        known = program.range_constraints.get(symbol)
        hint = dim.node.hint if expression == symbol else None
        size = int(hint) if isinstance(hint, int) else 2
        if known is not None:
            low, high = _bound(known.lower, 1), _bound(known.upper, size + more)
            size = min(max(size + more, low), max(high, low))
        values[symbol] = size
    return int(expression.subs(values))


def _bound(value: Any, infinite: int) -> int:
    """A bound of a dimension; ``infinite`` where there is none."""
    return int(value) if getattr(value, "is_Integer", isinstance(value, int)) else infinite
