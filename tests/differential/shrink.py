"""Makes a failing model small: cuts pieces off for as long as it fails in the same way."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from tests.differential.opinions import Values, float64_values, reads
from tests.generate.builder import Case

__all__ = ["shrink", "symptom"]

Fails = Callable[[Case], str | None]


def symptom(error: BaseException) -> str:
    """What two failures of one cause have in common: the message without names and numbers."""
    text = str(error).split(":")[-1] if isinstance(error, AssertionError) else ""
    words = re.sub(r"[^a-z ]+", "", text.lower()).split()
    return " ".join([type(error).__name__, *words[:6]])


def shrink(case: Case, fails: Fails) -> Case:
    """The smallest model found that fails like ``case``.

    Args:
        case: A failing model with its feeds.
        fails: Returns the symptom of a model, or None where it does not fail.
    """
    wanted = fails(case)
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(case):
            if _is_legal(candidate.model) and fails(candidate) == wanted:
                case, smaller = candidate, True
                break
    return case


def _is_legal(model: ModelProto) -> bool:
    with contextlib.suppress(Exception):
        onnx.checker.check_model(model, full_check=True)
        return True
    return False


def _smaller(case: Case) -> Iterator[Case]:
    """Models with a piece less, those that lack most first."""
    values = _values(case)
    outputs = list(case.model.graph.output)
    if len(outputs) > 1:
        for output in outputs:
            yield _with_outputs(case, [output])
    for node in case.model.graph.node:
        infos = [_info(name, values) for name in node.output if name]
        known = [info for info in infos if info is not None]
        if known and len(outputs) == 1 and outputs[0].name not in node.output:
            yield _with_outputs(case, known[:1])
    for index in reversed(range(len(case.model.graph.node))):
        yield from _without_node(case, index, values)
    if len(case.feeds) > 1:
        for feeds in case.feeds:
            yield Case(case.model, [feeds])
    for index, node in enumerate(case.model.graph.node):
        for attribute in node.attribute:
            model = _copy(case.model)
            target = model.graph.node[index]
            target.attribute.remove(attribute)
            yield Case(model, case.feeds)
        if len(node.input) > 2 and not node.domain:
            model = _copy(case.model)
            del model.graph.node[index].input[-1]
            yield _pruned(Case(model, case.feeds))
    if case.model.graph.value_info:
        model = _copy(case.model)
        del model.graph.value_info[:]
        yield Case(model, case.feeds)


def _values(case: Case) -> list[Values]:
    """Every tensor of the main graph for each feed; nothing where it cannot be evaluated."""
    with contextlib.suppress(Exception):
        run = float64_values(case.model)
        return [run(feeds) for feeds in case.feeds]
    return []


def _info(name: str, values: Sequence[Mapping[str, np.ndarray]]) -> ValueInfoProto | None:
    """The description of a tensor, whose lengths are known where they are always the same."""
    if not values or any(name not in each for each in values):
        return None
    shapes = [each[name].shape for each in values]
    if len({len(shape) for shape in shapes}) > 1:
        return None
    dims = [lengths[0] if len(set(lengths)) == 1 else None for lengths in zip(*shapes, strict=True)]
    kind = helper.np_dtype_to_tensor_dtype(values[0][name].dtype)
    return helper.make_tensor_value_info(name, kind, dims)


def _with_outputs(case: Case, outputs: Sequence[ValueInfoProto]) -> Case:
    model = _copy(case.model)
    kinds = _kinds(case.model)
    del model.graph.output[:]
    for output in outputs:
        added = model.graph.output.add()
        added.CopyFrom(output)
        added.type.tensor_type.elem_type = kinds.get(output.name, _float(case.model))
    return _pruned(Case(model, case.feeds))


def _without_node(case: Case, index: int, values: list[Values]) -> Iterator[Case]:
    """The node bypassed, or its outputs as inputs of the model."""
    node = case.model.graph.node[index]
    kinds = _kinds(case.model)
    outputs = [name for name in node.output if name]
    for source in node.input:
        shapes = {tuple(each.get(source, np.zeros(0)).shape) for each in values}
        same = bool(values) and all(
            each.get(source, np.zeros(0)).shape == each[outputs[0]].shape for each in values
        )
        if len(outputs) == 1 and source and (same or not shapes):
            model = _copy(case.model)
            del model.graph.node[index]
            if all(output.name != outputs[0] for output in model.graph.output):
                _rename(model, outputs[0], source)
                yield _pruned(Case(model, case.feeds))
    if not values or any(info.name in outputs for info in case.model.graph.output):
        return
    infos = [_info(name, values) for name in outputs]
    model = _copy(case.model)
    del model.graph.node[index]
    feeds = [dict(each) for each in case.feeds]
    for info in infos:
        if info is None:
            return
        kind = kinds.get(info.name, _float(case.model))
        info.type.tensor_type.elem_type = kind
        model.graph.input.append(info)
        for feed, each in zip(feeds, values, strict=True):
            feed[info.name] = each[info.name].astype(helper.tensor_dtype_to_np_dtype(kind))
    yield _pruned(Case(model, feeds))


def _rename(model: ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def _pruned(case: Case) -> Case:
    """Without what no output depends on."""
    model = _copy(case.model)
    graph = model.graph
    needed = {output.name for output in graph.output}
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed |= reads(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    for field in (graph.initializer, graph.input):
        items = [item for item in field if item.name in needed]
        del field[:]
        field.extend(items)
    produced = {name for node in graph.node for name in node.output}
    infos = [info for info in graph.value_info if info.name in produced]
    del graph.value_info[:]
    graph.value_info.extend(infos)
    names = {info.name for info in graph.input}
    feeds = [{name: a for name, a in feed.items() if name in names} for feed in case.feeds]
    return Case(model, feeds)


def _kinds(model: ModelProto) -> dict[str, int]:
    """The element types of all tensors of the main graph that inference finds."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    infos = (*graph.input, *graph.value_info, *graph.output)
    return {info.name: info.type.tensor_type.elem_type for info in infos}


def _float(model: ModelProto) -> int:
    kind: int = model.graph.output[0].type.tensor_type.elem_type
    return kind


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy
