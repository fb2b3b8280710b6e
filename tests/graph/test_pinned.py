"""Graphs that tell a fault of one function from the function, with their verdicts."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto, TensorProto, helper

from tests.support import assert_fold, build

CASES = [
    case
    for path in sorted(Path(__file__).with_name("pinned").glob("*.toml"))
    for case in tomllib.loads(path.read_text(encoding="utf-8"))["case"]
]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_verdicts_are_what_they_were(case: dict[str, Any]) -> None:
    result = assert_fold(
        build(case["graph"], opset=case["opset"]),
        folded=case["folded"],
        kept=case["kept"],
        nowhere=case.get("nowhere", ()),
        merged=case.get("merged"),
        apart=case.get("apart"),
        **case.get("options", {}),
    )
    assert written(result) == case.get("result", written(result))


def written(model: ModelProto) -> list[str]:
    """The initializers, without their values, and the nodes of the main graph."""
    initializers = [
        f"{TensorProto.DataType.Name(t.data_type).lower()}[{','.join(map(str, t.dims))}] {t.name}"
        for t in model.graph.initializer
    ]
    nodes = []
    for node in model.graph.node:
        pairs = ((a.name, helper.get_attribute_value(a)) for a in node.attribute)
        attributes = ", ".join(f"{name}={value}" for name, value in pairs)
        operator = f"{node.op_type}<{attributes}>" if attributes else node.op_type
        nodes.append(f"{', '.join(node.output)} = {operator}({', '.join(node.input)})")
    return initializers + nodes
