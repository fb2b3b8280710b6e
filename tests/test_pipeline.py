"""The functions behind the verbs, as a program uses them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold
from bnfold import pipeline
from bnfold.report import FoldReport
from bnfold.store import ArraySource, LoadedModel

DIGITS = Path(__file__).parents[1] / "models" / "digits.onnx"


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return Path(shutil.copy(DIGITS, tmp_path / "digits.onnx"))


def ops(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def weights(proto: onnx.ModelProto) -> dict[str, bytes]:
    return {t.name: numpy_helper.to_array(t).tobytes() for t in proto.graph.initializer}


def save_external(proto: onnx.ModelProto, path: Path) -> None:
    onnx.save(proto, path, save_as_external_data=True, location="weights", size_threshold=0)


def test_optimize_returns_the_report(digits: Path) -> None:
    seen: list[str] = []
    report = bnfold.optimize(str(digits), progress=seen.append)
    assert report.model == str(digits)
    assert report.output == str(digits.with_name("digits.folded.onnx"))
    assert len(report.folded) == 3
    assert report.kept == ()
    assert report.equivalent is True
    assert (report.nodes_before, report.nodes_after) == (13, 10)
    assert report.bytes_before == digits.stat().st_size
    assert report.bytes_after == digits.with_name("digits.folded.onnx").stat().st_size
    assert {"folding", "writing"} <= set(seen)


def test_optimize_of_a_path_object_in_place(digits: Path) -> None:
    report = bnfold.optimize(digits, in_place=True, check=False)
    assert report.output == report.model == str(digits)
    assert report.equivalent is None
    assert "BatchNormalization" not in ops(onnx.load(digits))


def test_the_same_model_gives_the_same_bytes(digits: Path) -> None:
    outputs = [digits.with_name(name) for name in ("a.onnx", "b.onnx")]
    for output in outputs:
        bnfold.optimize(digits, output, check=False)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_not_equivalent_carries_the_checks(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: LoadedModel, options: object) -> tuple[FoldReport, bool]:
        result = right(model, options)
        bias = next(t for t in model.proto.graph.initializer if t.name == "fc2.bias")
        model.tensors.attach(bias, ArraySource(model.tensors.array(bias) + np.float32(0.01)))
        return result

    right = pipeline.fold_model
    monkeypatch.setattr(pipeline, "fold_model", wrong)
    with pytest.raises(bnfold.NotEquivalentError, match="logits") as caught:
        bnfold.optimize(digits)
    assert not caught.value.checks[0].equivalent
    assert "digits.folded.failing.npz" in (caught.value.hint or "")
    with np.load(digits.with_name("digits.folded.failing.npz")) as feed:
        assert feed["images"].shape[1:] == (1, 8, 8)
    assert not digits.with_name("digits.folded.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dst": "digits.onnx"}, "the output is the input"),
        ({"dst": "x.onnx", "in_place": True}, "both asked for"),
        ({"dst": "nowhere/x.onnx"}, "does not exist"),
        ({"dst": "."}, "directory"),
        ({"providers": ("tpu",)}, "tpu"),
        ({"rtol": 0.1}, "together"),
    ],
)
def test_arguments_that_cannot_be_used(
    digits: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, object], said: str
) -> None:
    monkeypatch.chdir(digits.parent)
    with pytest.raises(bnfold.InputError, match=said):
        bnfold.optimize("digits.onnx", **arguments)  # type: ignore[arg-type]
    assert [path.name for path in digits.parent.iterdir()] == ["digits.onnx"]


def test_fold_gives_a_new_model_proto(digits: Path) -> None:
    proto = onnx.load(digits)
    before = proto.SerializeToString()
    folded = bnfold.fold(proto)
    assert isinstance(folded, onnx.ModelProto)
    assert "BatchNormalization" not in ops(folded)
    assert proto.SerializeToString() == before
    assert all(check.equivalent for check in bnfold.check(proto, folded))


def test_fold_with_nothing_to_fold_gives_an_equal_copy(digits: Path) -> None:
    once = bnfold.fold(onnx.load(digits))
    twice = bnfold.fold(once)
    assert twice is not once
    assert twice == once


def test_fold_of_a_path_brings_external_data_inside(digits: Path, tmp_path: Path) -> None:
    path = tmp_path / "external.onnx"
    save_external(onnx.load(digits), path)
    before = path.read_bytes()
    folded = bnfold.fold(path)
    assert weights(folded) == weights(bnfold.fold(str(digits)))
    assert {tensor.data_location for tensor in folded.graph.initializer} == {0}
    assert path.read_bytes() == before


def test_fold_keeps_what_it_is_told(digits: Path) -> None:
    assert ops(bnfold.fold(digits, keep=["*bn1*"])).count("BatchNormalization") == 1
    assert ops(bnfold.fold(digits, keep="*")).count("BatchNormalization") == 3


def test_fold_of_an_onnx_ir_model(digits: Path, tmp_path: Path) -> None:
    onnx_ir = pytest.importorskip("onnx_ir")
    path = tmp_path / "external.onnx"
    save_external(onnx.load(digits), path)
    for source in (digits, path):
        model = onnx_ir.load(source)
        before = [node.op_type for node in model.graph]
        values = [value.const_value for value in model.graph.initializers.values()]
        folded = bnfold.fold(model)
        assert isinstance(folded, onnx_ir.Model)
        assert "BatchNormalization" not in [node.op_type for node in folded.graph]
        assert [node.op_type for node in model.graph] == before
        assert [value.const_value for value in model.graph.initializers.values()] == values
        assert weights(onnx_ir.to_proto(folded)) == weights(bnfold.fold(digits))


def test_inspect_takes_every_kind_of_model(digits: Path) -> None:
    onnx_ir = pytest.importorskip("onnx_ir")
    of_path = bnfold.inspect(digits)
    assert of_path.model == str(digits)
    assert of_path.bytes_before == digits.stat().st_size
    assert (of_path.output, of_path.bytes_after, of_path.checks) == (None, None, ())
    for model in (onnx.load(digits), onnx_ir.load(digits)):
        report = bnfold.inspect(model)
        assert report.model is None
        assert report.sites == of_path.sites
        assert report.nodes_after == 10


@pytest.mark.parametrize("model", [None, 3, ["a.onnx"]], ids=repr)
def test_what_is_no_model(model: object) -> None:
    with pytest.raises(bnfold.InputError, match=type(model).__name__) as caught:
        bnfold.fold(model)  # type: ignore[call-overload]
    assert "onnx.ModelProto" in (caught.value.hint or "")


def test_a_proto_whose_data_is_elsewhere_says_so(digits: Path, tmp_path: Path) -> None:
    path = tmp_path / "external.onnx"
    save_external(onnx.load(digits), path)
    with pytest.raises(bnfold.ModelError, match="external data"):
        bnfold.fold(onnx.load(path, load_external_data=False))
