"""The backend test models that ship inside the onnx wheel keep their expected outputs."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
import pytest
from onnx import ModelProto, numpy_helper

from tests.support import evaluate, feeds_of, fold

DATA = Path(onnx.backend.test.__file__).parent / "data"


def _with_batchnorm() -> list[Path]:
    found = []
    for folder in ("pytorch-converted", "pytorch-operator", "simple"):
        for path in sorted((DATA / folder).glob("*/model.onnx")):
            model = onnx.load(path)
            if any(node.op_type == "BatchNormalization" for node in model.graph.node):
                found.append(path)
    return found


def _arrays(folder: Path, kind: str) -> list[np.ndarray]:
    files = sorted(folder.glob(f"{kind}_*.pb"), key=lambda file: int(file.stem.split("_")[1]))
    return [numpy_helper.to_array(onnx.load_tensor(file)) for file in files]


@pytest.mark.parametrize("path", _with_batchnorm(), ids=lambda path: path.parent.name)
def test_converted_models(path: Path) -> None:
    model = onnx.load(path)
    result, report = fold(model)
    onnx.checker.check_model(result, full_check=True)
    kept = sum(node.op_type == "BatchNormalization" for node in result.graph.node)
    assert kept == sum(v.kind == "BatchNormalization" for v in report.kept)
    initializers = {tensor.name for tensor in model.graph.initializer}
    names = [i.name for i in model.graph.input if i.name not in initializers]
    for folder in sorted(path.parent.glob("test_data_set_*")):
        feeds = dict(zip(names, _arrays(folder, "input"), strict=True))
        for expected, found in zip(_arrays(folder, "output"), evaluate(result, feeds), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def _node_cases() -> list[Any]:
    from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415 - takes a second

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(collect_testcases("BatchNormalization"))


@pytest.mark.parametrize("case", _node_cases(), ids=lambda case: case.name)
def test_node_cases(case: Any) -> None:
    result, _ = fold(case.model)
    for inputs, outputs in case.data_sets:
        feeds = dict(zip([i.name for i in case.model.graph.input], inputs, strict=True))
        for expected, found in zip(outputs, evaluate(result, feeds), strict=True):
            np.testing.assert_allclose(found, expected, rtol=case.rtol, atol=case.atol)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("resnet50", {"BatchNormalization": 53}, {}),
        ("shufflenet", {"BatchNormalization": 49}, {}),
        ("inception_v2", {"BatchNormalization": 69, "Mul": 69, "Add": 69}, {}),
        (
            "densenet121",
            {"BatchNormalization": 121, "Mul": 121, "Add": 121},
            {"BatchNormalization": 62},
        ),
    ],
)
def test_light_models(name: str, before: dict[str, int], after: dict[str, int]) -> None:
    model = onnx.load(DATA / "light" / f"light_{name}.onnx")
    assert _count(model) == before
    result, report = fold(model)
    assert _count(result) == after
    assert len(report.kept) == sum(after.values())
    onnx.checker.check_model(result)
    feeds = feeds_of(model, {})
    for one, other in zip(evaluate(model, feeds), evaluate(result, feeds), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-5 * np.abs(one).max())


def _count(model: ModelProto) -> dict[str, int]:
    counts = Counter(node.op_type for node in model.graph.node)
    return {op: counts[op] for op in ("BatchNormalization", "Mul", "Add") if counts[op]}
