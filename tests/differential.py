"""Attacks the folds with random legal models, for minutes or for days.

Every model is folded and compared with itself by an evaluation that shares no code with bnfold. Run
``python -m tests.differential --minutes 10``; what fails is saved, with the seed that makes it.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from bnfold.report import FoldReport
from tests.generate.builder import Case
from tests.generate.model import Wishes, random_model
from tests.support import REFERENCE_OPS, Feeds, fold, interface

# wide of rounding, and narrow of any error in the algebra
TOLERANCE = {
    TensorProto.DOUBLE: 1e-6,
    TensorProto.FLOAT: 2e-3,
    TensorProto.FLOAT16: 5e-2,
    TensorProto.BFLOAT16: 4e-1,
}
NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


class Different(AssertionError):  # noqa: N818 - a verdict on a fold, told apart from other failures
    """The folded model computes something else."""


def attack(case: Case, **options: bool) -> FoldReport:
    """Fold a model and test every promise; AssertionError where one is broken."""
    model = case.model
    before = model.SerializeToString(deterministic=True)
    result, report = fold(model, **options)
    assert model.SerializeToString(deterministic=True) == before, "the input has changed"
    onnx.checker.check_model(result, full_check=True)
    assert interface(result) == interface(model), "the interface has changed"
    _consistent(model, result, report)
    again, _ = fold(result, **options)
    twice = again.SerializeToString(deterministic=True)
    assert twice == result.SerializeToString(deterministic=True), "a second run changes something"
    if result is not model:
        compare(case, result)
    return report


def compare(case: Case, result: ModelProto) -> None:
    """All outputs of both models, for every feed."""
    models = case.model, result
    narrow = any(info.type.tensor_type.elem_type in NARROW for info in case.model.graph.output)
    if narrow:
        models = widened(case.model), widened(result)
    reference, candidate = evaluator(models[0]), evaluator(models[1])
    for feeds in case.feeds:
        if narrow:
            feeds = {  # noqa: PLW2901 - the same numbers in double
                name: array if array.dtype.kind in "bi" else array.astype(np.float64)
                for name, array in feeds.items()
            }
        expected: list[np.ndarray] = []
        with contextlib.suppress(Exception):  # the reference evaluator does not know everything
            expected = reference(feeds)
        if not expected:
            continue
        pairs = zip(expected, candidate(feeds), strict=True)
        for info, (one, other) in zip(case.model.graph.output, pairs, strict=True):
            same = one.shape == other.shape and one.dtype == other.dtype
            assert same, f"{info.name}: {one.shape} {one.dtype}, {other.shape} {other.dtype}"
            _close(info.name, one, other, info.type.tensor_type.elem_type)


def widened(model: ModelProto) -> ModelProto:
    """The model with double for each float: no runtime computes float16 in float16 throughout.

    What the constants lost when they were rounded stays lost.
    """
    wide = ModelProto()
    wide.CopyFrom(model)
    _widen(wide.graph)
    return wide


def _widen(graph: onnx.GraphProto) -> None:
    for info in (*graph.input, *graph.output, *graph.value_info):
        if info.type.tensor_type.elem_type in TOLERANCE:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _widen(attribute.g)
            elif attribute.HasField("t") and node.op_type in ("Constant", "ConstantOfShape"):
                _widen_tensor(attribute.t)
            elif node.op_type == "Cast" and attribute.i in TOLERANCE:
                attribute.i = TensorProto.DOUBLE


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type in NARROW:
        values = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def evaluator(model: ModelProto) -> Callable[[Feeds], list[np.ndarray]]:
    """ONNX Runtime without optimization for float, the reference evaluator for what it lacks."""
    if model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return lambda feeds: [np.asarray(value) for value in session.run(None, feeds)]
    reference = ReferenceEvaluator(model, new_ops=REFERENCE_OPS)

    def run(feeds: Feeds) -> list[np.ndarray]:
        with np.errstate(all="ignore"):
            return [np.asarray(value) for value in reference.run(None, feeds)]

    return run


def _close(name: str, one: np.ndarray, other: np.ndarray, kind: int) -> None:
    a, b = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(a)
    if not (np.array_equal(finite, np.isfinite(b)) and np.array_equal(np.isnan(a), np.isnan(b))):
        raise Different(f"{name}: other values are finite")
    a, b = np.where(finite, a, 0), np.where(finite, b, 0)
    # where terms of about 1 cancel, what is left of them in 11 bits or 8 is no measure
    floor = 1.0 if kind in NARROW else 1e-3
    scale = max(float(np.abs(a).max(initial=0.0)), floor)
    apart = float(np.abs(a - b).max(initial=0.0)) / scale
    if apart > TOLERANCE[kind]:
        raise Different(f"{name}: {apart:.3g} apart")


def _consistent(model: ModelProto, result: ModelProto, report: FoldReport) -> None:
    """Each verdict agrees with what is left in the graph."""
    norms = [verdict for verdict in report.sites if verdict.kind == "BatchNormalization"]
    kept = [verdict for verdict in norms if not verdict.folded]
    assert len(norms) == _count(model), "not every batch normalization has a verdict"
    assert len(kept) == _count(result), f"{len(kept)} are kept, {_count(result)} are left"
    for verdict in report.sites:
        if verdict.folded:
            assert verdict.direction is not None, f"{verdict.name}: folded without a way"
        else:
            assert verdict.reason is not None, f"{verdict.name}: kept without a reason"
            assert verdict.detail, f"{verdict.name}: kept without a sentence"


def _count(model: ModelProto) -> int:
    return sum(node.op_type == "BatchNormalization" for node in nodes(model.graph))


def nodes(graph: onnx.GraphProto) -> Iterator[NodeProto]:
    """Every node, those of subgraphs among them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes(attribute.g)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first model")
    parser.add_argument("--only", type=int, help="one seed, with its traceback")
    parser.add_argument("--save", type=Path, default=Path("failing"), help="folder for failures")
    return parser.parse_args()


def _options(seed: int) -> dict[str, bool]:
    """Mostly the defaults; sometimes a channel of ones, or no merges."""
    return {"ones_channel": seed % 4 == 1, "merge": seed % 8 != 2}


def _save(folder: Path, seed: int, case: Case, message: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{seed}.onnx").write_bytes(case.model.SerializeToString())
    (folder / f"{seed}.txt").write_text(f"{message}\n\n{onnx.printer.to_text(case.model)}\n")


def main() -> int:
    """Run; 1 if anything failed."""
    arguments = _arguments()
    if arguments.only is not None:
        case = random_model(random.Random(arguments.only))  # noqa: S311 - not for secrets
        print(onnx.printer.to_text(case.model))
        attack(case, **_options(arguments.only))
        return 0
    end = time.monotonic() + 60 * arguments.minutes
    seed, failed = arguments.seed, 0
    sites: collections.Counter[str] = collections.Counter()
    while time.monotonic() < end:
        case = random_model(random.Random(seed), Wishes())  # noqa: S311 - not for secrets
        try:
            for verdict in attack(case, **_options(seed)).sites:
                branch = "branch " if verdict.kind == "branch" else ""
                sites[branch + ("gone" if verdict.folded else f"kept: {verdict.reason}")] += 1
        except Exception:  # noqa: BLE001 - whatever it is, it is a finding
            failed += 1
            message = traceback.format_exc()
            print(f"seed {seed}: {message.strip().splitlines()[-1]}", flush=True)
            _save(arguments.save, seed, case, message)
        seed += 1
    print(f"{seed - arguments.seed} models, {failed} failed")
    for name, count in sites.most_common():
        print(f"{count:8d} {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
