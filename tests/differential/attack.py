"""Folds one model and tests every promise; AssertionError where one is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from bnfold.report import FoldReport
from tests.differential.opinions import (
    FLOATS,
    Values,
    float64_values,
    nodes,
    reads,
    runtime_outputs,
)
from tests.generate.builder import Case
from tests.support import Feeds, fold, interface

__all__ = ["Different", "Outcome", "attack"]

# wide of what rounding the constants does, and narrow of any error in the algebra
TOLERANCE = {
    TensorProto.DOUBLE: 1e-6,
    TensorProto.FLOAT: 2e-3,
    TensorProto.FLOAT16: 5e-2,
    TensorProto.BFLOAT16: 4e-1,
}
RANGE = {TensorProto.FLOAT16: 65504.0}
NOISE = 1e-6
"""Of a float32 sum, relative to the largest number in it."""
PROVENANCE = "pkg.bnfold.version"


class Different(AssertionError):  # noqa: N818 - a verdict on a fold, told apart from other failures
    """The folded model computes something else."""


@dataclass(frozen=True)
class Outcome:
    """What a model that keeps every promise has shown.

    Attributes:
        report: Of the fold.
        changed: True if the model is another one.
        opinions: Who has compared the two: ``float64``, ``runtime``.
    """

    report: FoldReport
    changed: bool
    opinions: tuple[str, ...] = ()


def attack(case: Case, **options: object) -> Outcome:
    """Fold a model and test every promise."""
    model = case.model
    before = _bytes(model)
    result, report = fold(model, **options)
    assert _bytes(model) == before, "the input has changed"
    onnx.checker.check_model(result, full_check=True)
    assert interface(result) == interface(model), "the interface has changed"
    assert _frame(result) == _frame(model), "opsets, version or metadata have changed"
    _consistent(model, result, report)
    if not options.get("keep"):  # a node without a name is called after its output, which moves
        again, _ = fold(result, **options)
        assert _bytes(again) == _bytes(result), "a second run changes something"
    if result is model:
        return Outcome(report, changed=False)
    return Outcome(report, changed=True, opinions=_compare(case, result))


def _bytes(model: ModelProto) -> bytes:
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _frame(model: ModelProto) -> list[object]:
    """What stands around the graph, apart from the entry that says who has changed it."""
    metadata = [(p.key, p.value) for p in model.metadata_props if p.key != PROVENANCE]
    opsets = sorted((each.domain, each.version) for each in model.opset_import)
    return [model.ir_version, model.producer_name, model.graph.name, opsets, metadata]


def _consistent(model: ModelProto, result: ModelProto, report: FoldReport) -> None:
    """Each verdict agrees with what is left in the graph."""
    norms = [verdict for verdict in report.sites if verdict.kind == "BatchNormalization"]
    kept = [verdict for verdict in norms if not verdict.folded]
    if not model.functions:  # those of a body that is inlined are counted for each call
        assert len(norms) == _count(model), "not every batch normalization has a verdict"
    assert len(kept) == _count(result), f"{len(kept)} are kept, {_count(result)} are left"
    for verdict in report.sites:
        if verdict.folded:
            assert verdict.direction is not None, f"{verdict.name}: folded without a way"
        else:
            assert verdict.reason is not None, f"{verdict.name}: kept without a reason"
            assert verdict.detail, f"{verdict.name}: kept without a sentence"


def _count(model: ModelProto) -> int:
    return sum(node.op_type == "BatchNormalization" for node in nodes(model))


def _compare(case: Case, result: ModelProto) -> tuple[str, ...]:
    """All outputs of both models for every feed; in float64 all tensors that both have."""
    outputs = [info.name for info in case.model.graph.output]
    tolerance = max(TOLERANCE[kind] for kind in _kinds(case.model))
    opinions: list[str] = []
    tame = [True] * len(case.feeds)  # everything that the original computes is finite
    largest = [0.0] * len(case.feeds)
    limit = min(RANGE.get(kind, np.inf) for kind in _kinds(case.model))
    for name, evaluator in (("float64", float64_values), ("runtime", runtime_outputs)):
        reference = _attempt(evaluator, case)
        if reference is None:
            continue
        run = evaluator(result)
        allowed = max(tolerance, TOLERANCE[TensorProto.FLOAT]) if name == "runtime" else tolerance
        tame = [
            known and all(np.isfinite(value).all() for value in each.values())
            for known, each in zip(tame, reference, strict=True)
        ]
        largest = [
            max(known, *map(_magnitude, each.values()))
            for known, each in zip(largest, reference, strict=True)
        ]
        every = zip(case.feeds, reference, tame, largest, strict=True)
        for feeds, expected, finite, peak in every:
            if name == "runtime" and not (finite and all(array.size for array in feeds.values())):
                continue  # of NaN or of nothing, ONNX Runtime makes numbers that mean nothing
            least = allowed * max(_magnitude(expected[tensor]) for tensor in outputs)
            if peak > limit or (name == "runtime" and peak * NOISE > least):
                continue  # beyond the range of its type, or what is left where such numbers cancel
            found = run(feeds)
            for tensor in (*outputs, *_shared(case.model, result, expected, found)):
                _close(f"{name} {tensor}", expected[tensor], found[tensor], allowed, finite=finite)
        opinions.append(name)
    return tuple(opinions)


def _magnitude(array: np.ndarray) -> float:
    numbers = np.abs(array.astype(np.float64)) if array.dtype.kind in "fiu" else np.zeros(0)
    return float(numbers[np.isfinite(numbers)].max(initial=0.0))


def _attempt(
    evaluator: Callable[[ModelProto], Callable[[Feeds], Values]], case: Case
) -> list[Values] | None:
    """What the original computes, or None where the evaluator does not know an operator of it."""
    try:
        run = evaluator(case.model)
        return [run(feeds) for feeds in case.feeds]
    except Exception:  # noqa: BLE001 - neither evaluator knows everything, nor says so in one way
        return None


def _shared(model: ModelProto, result: ModelProto, expected: Values, found: Values) -> list[str]:
    """Tensors inside both models that have one name: it must have kept its meaning."""
    if not _kinds(model).isdisjoint((TensorProto.FLOAT16, TensorProto.BFLOAT16)):
        return []  # sums of rounded terms, before anything is added to them that is not small
    return sorted(_of_data(model) & _of_data(result) & expected.keys() & found.keys())


def _of_data(model: ModelProto) -> set[str]:
    """Tensors that depend on the inputs: weights keep their names when they change."""
    constants = {tensor.name for tensor in model.graph.initializer}
    known = {info.name for info in model.graph.input} - constants
    computed: set[str] = set()
    for node in model.graph.node:
        if not known.isdisjoint(reads(node)):
            known |= set(node.output)
            computed |= set(node.output)
    return computed - {""}


def _kinds(model: ModelProto) -> set[int]:
    """The float types of the model."""
    stored = {tensor.data_type for tensor in model.graph.initializer}
    shown = {i.type.tensor_type.elem_type for i in (*model.graph.input, *model.graph.output)}
    return (stored | shown) & set(FLOATS) or {TensorProto.FLOAT}


def _close(
    name: str, one: np.ndarray, other: np.ndarray, tolerance: float, *, finite: bool
) -> None:
    same = one.shape == other.shape and one.dtype == other.dtype
    assert same, f"{name}: {one.shape} {one.dtype}, {other.shape} {other.dtype}"
    a, b = one.astype(np.float64), other.astype(np.float64)
    comparable = np.isfinite(a) & np.isfinite(b)
    # what becomes of infinities inside, infinity, NaN or 0, depends on the order of the terms
    if finite and not comparable.all():
        raise Different(f"{name}: is not finite where it was")
    a, b = np.where(comparable, a, 0), np.where(comparable, b, 0)
    # where terms of about 1 cancel, what is left of them in few bits is no measure
    floor = 1.0 if tolerance > 1e-2 else 1e-3
    scale = max(float(np.abs(a).max(initial=0.0)), floor)
    apart = float(np.abs(a - b).max(initial=0.0)) / scale
    if apart > tolerance:
        raise Different(f"{name}: {apart:.3g} apart")
