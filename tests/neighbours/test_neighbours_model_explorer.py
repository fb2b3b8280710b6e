"""Node data for Model Explorer: the error of every layer on the nodes of the candidate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper

from bnfold.cli import main
from bnfold.neighbours.model_explorer import LARGEST, node_data
from bnfold.report import CheckReport, OutputComparison

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits model with another weight in its second convolution, and two nodes unnamed."""
    model = onnx.load(DIGITS)
    weight = next(each for each in model.graph.initializer if each.name == "conv2.weight")
    values = numpy_helper.to_array(weight).copy()
    values[0] += 0.01
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    model.graph.node[0].name = model.graph.node[2].name = ""
    file = tmp_path_factory.mktemp("wrong") / "wrong.onnx"
    onnx.save(model, file)
    return file


@pytest.fixture(scope="module")
def overlay(wrong: Path) -> Path:
    file = wrong.parent / "overlay.json"
    result = run("check", DIGITS, wrong, "--overlay", file)
    assert result.exit_code == 1, result.stderr
    assert "/conv2/Conv" in result.stderr  # it localizes
    return file


def test_nodes_have_their_error(wrong: Path, overlay: Path) -> None:
    found = json.loads(overlay.read_text(encoding="utf-8"))
    graph = onnx.load(wrong).graph
    assert list(found) == [graph.name]
    data = found[graph.name]
    assert set(data["results"]) == {node.name for node in graph.node} - {""} | {"node", "node_1"}
    values = {name: result["value"] for name, result in data["results"].items()}
    assert values["node"] <= 1
    assert values["node_1"] <= 1
    assert 1 < values["/conv2/Conv"] <= LARGEST
    limits = [each["value"] for each in data["thresholds"]]
    assert limits == sorted(limits)
    assert limits[-1] == LARGEST


def test_model_explorer_reads_it(wrong: Path, overlay: Path) -> None:
    builder = pytest.importorskip(
        "model_explorer.node_data_builder", reason="ai-edge-model-explorer is not installed"
    )
    adapter = pytest.importorskip(
        "model_explorer_onnx.main", reason="model-explorer-onnx is not installed"
    )
    dacite = pytest.importorskip("dacite", reason="Model Explorer brings it")
    found = json.loads(overlay.read_text(encoding="utf-8"))
    graphs = adapter.ONNXAdapter().convert(str(wrong), {})["graphs"]
    shown = {graph.id: {node.id for node in graph.nodes} for graph in graphs}
    for graph, data in found.items():
        dacite.from_dict(builder.GraphNodeData, data, config=dacite.Config(strict=True))
        assert set(data["results"]) <= shown[graph]


def test_equal_models_have_the_nodes_of_their_outputs(tmp_path: Path) -> None:
    file = tmp_path / "overlay.json"
    assert run("check", DIGITS, DIGITS, "--overlay", file, "-q").exit_code == 0
    (data,) = json.loads(file.read_text(encoding="utf-8")).values()
    assert data["results"] == {"/fc2/Gemm": {"value": 0.0}}


@pytest.mark.parametrize(
    ("difference", "allowed", "value"),
    [(0.0, 0.0, 0.0), (1.0, 4.0, 0.25), (1.0, 0.0, LARGEST), (float("inf"), 1.0, LARGEST),
     (float("nan"), 1.0, LARGEST), (1.0, 1e-300, LARGEST)],
)  # fmt: skip
def test_every_value_is_a_number(difference: float, allowed: float, value: float) -> None:
    output = OutputComparison("logits", False, difference, 0.0, None, 0.0, allowed, None)
    report = CheckReport("CPUExecutionProvider", "default", False, (output,))
    (data,) = node_data(onnx.load(DIGITS), [report]).values()
    assert data["results"] == {"/fc2/Gemm": {"value": value}}
    json.dumps(data, allow_nan=False)


@pytest.mark.parametrize(
    "name",
    ["overlay.txt", "missing/overlay.json", "folder.json"],
    ids=["suffix", "place", "folder"],
)
def test_bad_files_are_found_before_the_work(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.json").mkdir()
    result = run("check", DIGITS, "missing.onnx", "--overlay", tmp_path / name)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: Invalid value for '--overlay'")
    assert not np.any([each.is_file() for each in tmp_path.iterdir()])
