"""Models as text, and the one assertion that tests every promise of a fold."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

from bnfold.graph.fold import FoldOptions, fold_model
from bnfold.report import FoldReport
from bnfold.store import from_bytes, to_bytes


class BatchNormalization(OpRun):
    """Inference; before opset 14 that of the reference evaluator takes batch statistics."""

    op_domain = ""

    def _run(  # type: ignore[no-untyped-def]
        self, x, scale, bias, mean, var, epsilon=None, momentum=None, **_
    ) -> tuple[np.ndarray]:
        shape = (-1, *(1,) * (x.ndim - 2))
        scale, bias, mean, var = (vector.reshape(shape) for vector in (scale, bias, mean, var))
        epsilon = 1e-5 if epsilon is None else epsilon
        return (((x - mean) / np.sqrt(var + epsilon) * scale + bias).astype(x.dtype),)


class GlobalMaxPool(OpRun):
    """That of the reference evaluator forgets an axis of length 1."""

    op_domain = ""

    def _run(self, x) -> tuple[np.ndarray]:  # type: ignore[no-untyped-def]
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


REFERENCE_OPS = [BatchNormalization, GlobalMaxPool]
Feeds = dict[str, np.ndarray]

TOLERANCE = {
    TensorProto.DOUBLE: 1e-11,
    TensorProto.FLOAT: 2e-5,
    TensorProto.FLOAT16: 2e-2,
    TensorProto.BFLOAT16: 1e-1,
}


def build(
    text: str, values: Mapping[str, Any] | None = None, *, ir: int = 8, opset: int = 17
) -> ModelProto:
    """Parse the text of a graph; names in ``<...>`` that nothing computes become initializers.

    Their values come from ``values``, or are drawn from their name: variances (``var...``)
    positive, others normal.
    """
    header = (
        ""
        if text.lstrip().startswith("<")
        else f'<ir_version: {ir}, opset_import: ["" : {opset}]>\n'
    )
    model = onnx.parser.parse_model(header + text)
    _fill(model.graph, values or {})
    return model


def _fill(graph: onnx.GraphProto, values: Mapping[str, Any]) -> None:
    made = {name for node in graph.node for name in node.output} | {i.name for i in graph.input}
    rest = []
    for info in graph.value_info:
        if info.name in made:
            rest.append(info)
            continue
        kind = info.type.tensor_type.elem_type
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        array = np.asarray(values.get(info.name, draw(info.name, shape)))
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        graph.initializer.append(
            numpy_helper.from_array(array.astype(dtype).reshape(shape), info.name)
        )
    del graph.value_info[:]
    graph.value_info.extend(rest)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _fill(attribute.g, values)


def draw(name: str, shape: Sequence[int]) -> np.ndarray:
    """Numbers that depend on the name alone."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    array = rng.normal(size=shape)
    return np.abs(array) + 0.3 if name.startswith("var") else array


def fold(model: ModelProto, **options: Any) -> tuple[ModelProto, FoldReport]:
    """Fold a copy of ``model``."""
    loaded = from_bytes(model.SerializeToString())
    report, changed = fold_model(loaded, FoldOptions(**options))
    return (ModelProto.FromString(to_bytes(loaded)) if changed else model), report


def feeds_of(model: ModelProto, sizes: Mapping[str, int], seed: int = 0) -> Feeds:
    """Normal draws for every input that has no initializer."""
    rng = np.random.default_rng(seed)
    initializers = {tensor.name for tensor in model.graph.initializer}
    feeds: Feeds = {}
    for info in model.graph.input:
        if info.name in initializers:
            continue
        kind = info.type.tensor_type.elem_type
        shape = [d.dim_value or sizes.get(d.dim_param, 3) for d in info.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        draws = (
            rng.integers(0, 2, shape)
            if kind in (TensorProto.BOOL, TensorProto.INT64)
            else rng.normal(size=shape)
        )
        feeds[info.name] = draws.astype(dtype)
    return feeds


def evaluate(model: ModelProto, feeds: Feeds) -> list[np.ndarray]:
    """ONNX Runtime without optimization, or the reference evaluator where it has no kernel.

    Both share no code with bnfold.
    """
    if model.graph.output[0].type.tensor_type.elem_type in (TensorProto.FLOAT, TensorProto.FLOAT16):
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        with contextlib.suppress(NoKernel):
            session = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            return [np.asarray(value) for value in session.run(None, feeds)]
    with np.errstate(all="ignore"):
        return [
            np.asarray(value)
            for value in ReferenceEvaluator(model, new_ops=REFERENCE_OPS).run(None, feeds)
        ]


def assert_same(
    reference: Sequence[np.ndarray], candidate: Sequence[np.ndarray], tolerance: float
) -> None:
    for one, other in zip(reference, candidate, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        a, b = one.astype(np.float64), other.astype(np.float64)
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        np.testing.assert_array_equal(a[np.isinf(a)], b[np.isinf(a)])
        a, b = np.where(np.isinf(a), 0, a), np.where(np.isinf(a), 0, b)
        scale = np.nanmax(np.abs(a), initial=1e-30)
        assert np.nanmax(np.abs(a - b), initial=0.0) <= tolerance * max(scale, 1e-30)


def assert_fold(
    model: ModelProto,
    *,
    folded: Sequence[str] = (),
    kept: Mapping[str, str] | None = None,
    merged: Sequence[str] | None = None,
    apart: Mapping[str, str] | None = None,
    ops: Sequence[str] | None = None,
    nowhere: Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
    run: bool = True,
    **options: Any,
) -> ModelProto:
    """Every promise of one fold: verdicts, validity, equality, interface, idempotence.

    Args:
        model: The model; it is not changed.
        folded: Names of the sites that go.
        kept: Names of the sites that stay, with their reason codes.
        merged: Names of the branches that go; None where they do not matter.
        apart: Where branches stay, with the reason codes; looked at if ``merged`` is given.
        ops: Operator types of the main graph afterwards, in order.
        nowhere: Names of what goes and leaves no trace: it changed nothing, or nothing read it.
        sizes: Lengths of symbolic dimensions; two other lengths are tried as well.
        run: Evaluate both models.
        options: Passed on to the fold.
    """
    before = model.SerializeToString(deterministic=True)
    result, report = fold(model, **options)
    assert model.SerializeToString(deterministic=True) == before
    sites = [verdict for verdict in report.sites if verdict.kind != "branch"]
    branches = [verdict for verdict in report.sites if verdict.kind == "branch"]
    everything = report.to_dict()["sites"]
    assert [verdict.name for verdict in sites if verdict.folded] == list(folded), everything
    found = {verdict.name: str(verdict.reason) for verdict in sites if not verdict.folded}
    assert found == dict(kept or {}), everything
    if merged is not None:
        assert [each.name for each in branches if each.folded] == list(merged), everything
        found = {each.name: str(each.reason) for each in branches if not each.folded}
        assert found == dict(apart or {}), everything
    assert all(verdict.detail for verdict in report.kept + report.apart)
    assert [v.name for v in sites if v.folded and not v.into] == list(nowhere), everything
    into = {name for verdict in report.sites for name in verdict.into}
    known = _names(model) | _names(result)
    assert model.functions or into <= known, everything  # bodies are inlined under other names
    onnx.checker.check_model(result, full_check=True)
    assert interface(result) == interface(model)
    if ops is not None:
        assert [node.op_type for node in result.graph.node if node.op_type != "Constant"] == list(
            ops
        )
    again, _ = fold(result, **options)
    assert again.SerializeToString(deterministic=True) == result.SerializeToString(
        deterministic=True
    )
    if run:
        tolerance = TOLERANCE[model.graph.output[0].type.tensor_type.elem_type]
        for lengths in (sizes or {}, dict.fromkeys(sizes or {"N": 1}, 1)):
            feeds = feeds_of(model, lengths)
            assert_same(evaluate(model, feeds), evaluate(result, feeds), tolerance)
    return result


def _names(model: ModelProto) -> set[str]:
    """The names of all nodes and initializers; of nodes without one, that of the first output."""
    names: set[str] = set()
    graphs: list[Any] = [model.graph, *model.functions]
    while graphs:
        graph = graphs.pop()
        names.update(node.name or node.output[0] for node in graph.node)
        names.update(tensor.name for tensor in getattr(graph, "initializer", ()))
        graphs += [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return names


def interface(model: ModelProto) -> tuple[list[bytes], list[bytes]]:
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [i.SerializeToString() for i in model.graph.input if i.name not in initializers]
    return inputs, [o.SerializeToString() for o in model.graph.output]
