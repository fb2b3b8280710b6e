"""What cannot be recalibrated: one line, a hint, exit code 2, and nothing written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper
from test_recalibrate_numbers import LINEAR, ON_THE_INPUT, TWO_IN_A_ROW, draw, model_of, stored

import bnfold
from bnfold.cli import main
from bnfold.errors import InputError

TRAINING = ON_THE_INPUT.replace("y = BatchN", "y, m, v = BatchN").replace(
    "ization (", "ization <training_mode = 1> ("
)
NONE = "g (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu (x) }"
ROWS = draw(8, 3, 4, 4)


def with_value(value: float, channel: int | None = None) -> np.ndarray:
    rows = ROWS.copy()
    if channel is None:
        rows[3, 1, 2, 2] = value
    else:
        rows[:, channel] = value
    return rows


CASES: Mapping[str, tuple[str, Any, list[str], str, str]] = {
    "too few": (LINEAR, draw(1, 5), [], "too few", "more samples"),
    "one value": (ON_THE_INPUT, ROWS[:1, :, :1, :1], [], "1 value for each channel", "more"),
    "constant": (ON_THE_INPUT, with_value(5, 1), [], "channel 1 is constant", "--keep-constant"),
    "constant and large": (
        ON_THE_INPUT, with_value(12345.678, 1), [], "channel 1 is constant", "--keep-constant",
    ),
    "NaN": (ON_THE_INPUT, with_value(np.nan), [], "NaN or infinity in input 'x'", "take"),
    "infinity": (ON_THE_INPUT, with_value(np.inf), [], "NaN or infinity in input 'x'", "take"),
    "overflow": (
        TWO_IN_A_ROW.replace("(x, g1", "(z, g1").replace("{\n", "{\n z = Exp (x)\n", 1),
        ROWS + 100, [], "NaN or infinity in front of 'a'", "overflow",
    ),
    "no BN": (NONE, ROWS, [], "there is no BatchNormalization in it", "export with"),
    "training mode": (TRAINING, ROWS, [], "is in training mode", "evaluation mode"),
    "shape": (ON_THE_INPUT, draw(8, 4, 4, 4), [], "has shape 8x4x4x4", "shape"),
    "rank": (ON_THE_INPUT, draw(3, 4, 4), [], "has shape 3x4x4", "axis of the batch"),
    "type": (ON_THE_INPUT, ROWS.astype(np.int64), [], "is int64, but the model", "scale"),
    "name": (TWO_IN_A_ROW.replace("N,3,H,W] x)", "N,3,H,W] x, float[M] t)"), ROWS, [],
             "an array without a name", "name the arrays"),
    "empty": (ON_THE_INPUT, ROWS[:0], [], "samples", ""),
    "only": (ON_THE_INPUT, ROWS, ["--only", "bn*"], "--only matches none", "such as --only 'y'"),
    "mode": (ON_THE_INPUT, ROWS, ["--mode", "fast"], "'fast' is not one of", ""),
    "momentum": (ON_THE_INPUT, ROWS, ["--momentum", "0"], "0", ""),
    "provider": (ON_THE_INPUT, ROWS, ["--provider", "tpu"], "unknown provider 'tpu'", "this"),
    "batches of one": (LINEAR, draw(9, 5), ["--pooling", "batches", "--batch-size", "2"],
                       "a batch with one value for each channel", "--pooling samples"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_says_what_is_wrong_and_writes_nothing(
    tmp_path: Path, case: tuple[str, Any, list[str], str, str]
) -> None:
    text, rows, options, message, hint = case
    onnx.save(model_of(text), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", rows)
    before = (tmp_path / "m.onnx").read_bytes()
    command = ["recalibrate", tmp_path / "m.onnx", "-o", tmp_path / "o.onnx"]
    command += ["--data", tmp_path / "x.npy", *options]
    result = CliRunner().invoke(main, list(map(str, command)))
    assert result.exit_code == 2, result.stderr
    error, *rest = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert options or str(tmp_path) in error
    assert message in error
    assert len(rest) <= 1
    assert hint in "".join(rest)
    assert not (tmp_path / "o.onnx").exists()
    assert (tmp_path / "m.onnx").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "x.npy"]


def test_folded_already(tmp_path: Path) -> None:
    digits = Path(__file__).parents[2] / "models" / "digits.onnx"
    bnfold.optimize(digits, tmp_path / "f.onnx", check=False)
    with pytest.raises(InputError, match="folded already, by bnfold 0") as caught:
        bnfold.recalibrate(tmp_path / "f.onnx", tmp_path / "o.onnx", data=[ROWS])
    assert "the model that it was made from" in str(caught.value.hint)


def test_no_data_no_output_and_the_input_itself(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model_of(ON_THE_INPUT), path)
    for arguments, message in (
        ([path, "-o", tmp_path / "o.onnx"], "there is no data"),
        ([path, "--data", "x.npy"], "Missing option '-o'"),
        ([path, "-o", path, "--data", "x.npy"], "the output is the input"),
        ([path, "-o", tmp_path / "none" / "o.onnx", "--data", "x.npy"], "does not exist"),
        ([path, "-o", tmp_path / "o.onnx", "--data", tmp_path / "x.npy"], "no such file"),
        ([tmp_path / "n.onnx", "-o", tmp_path / "o.onnx", "--data", "x.npy"], "no such file"),
    ):
        result = CliRunner().invoke(main, ["recalibrate", *map(str, arguments)])
        assert result.exit_code == 2
        assert message in result.stderr


def test_constant_channels_can_be_kept(tmp_path: Path) -> None:
    proto = model_of(ON_THE_INPUT)
    proto.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.float32([7, 8, 9]), "m1"))
    onnx.save(proto, tmp_path / "m.onnx")
    report = bnfold.recalibrate(
        tmp_path / "m.onnx", tmp_path / "o.onnx", data=[with_value(5, 1)], keep_constant=True
    )
    mean, var = stored(tmp_path / "o.onnx")["y"]
    assert (mean[1], var[1]) == (8, 1)
    assert abs(mean[0]) < 1
    assert report.norms[0].kept_channels == (1,)
    assert report.norms[0].dead_variance == (1,)


def test_statistics_that_are_not_finite_are_renewed(tmp_path: Path) -> None:
    proto = model_of(TWO_IN_A_ROW)
    names = [tensor.name for tensor in proto.graph.initializer]
    nan = numpy_helper.from_array(np.full(3, np.nan, np.float32), "v1")
    proto.graph.initializer[names.index("v1")].CopyFrom(nan)
    onnx.save(proto, tmp_path / "m.onnx")
    report = bnfold.recalibrate(tmp_path / "m.onnx", tmp_path / "o.onnx", data=[ROWS])
    assert np.isfinite(stored(tmp_path / "o.onnx")["a"][1]).all()
    assert report.norms[0].name == "a"
    assert report.to_dict()["norms"][0]["kl"] is None
    with pytest.raises(InputError, match="not finite"):
        bnfold.recalibrate(tmp_path / "m.onnx", tmp_path / "p.onnx", data=[ROWS], momentum=0.5)


def test_a_variance_that_float16_cannot_hold(tmp_path: Path) -> None:
    onnx.save(model_of(ON_THE_INPUT.replace("float", "float16")), tmp_path / "m.onnx")
    rows = (ROWS * 1000).astype(np.float16)
    with pytest.raises(InputError, match="outside the range of float16"):
        bnfold.recalibrate(tmp_path / "m.onnx", tmp_path / "o.onnx", data=[rows])


def test_batches_of_single_values_are_told(tmp_path: Path) -> None:
    onnx.save(model_of(LINEAR), tmp_path / "m.onnx")
    report = bnfold.recalibrate(
        tmp_path / "m.onnx", tmp_path / "o.onnx", data=np.split(draw(9, 5), [4, 8])
    )
    assert "1 of 3 batches had one value for each channel" in report.warnings[0]


def test_an_opset_without_kernels(tmp_path: Path) -> None:
    proto = model_of(ON_THE_INPUT, opset=6)
    proto.graph.node[0].attribute.append(helper.make_attribute("is_test", 1))
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(InputError, match="does not run"):
        bnfold.recalibrate(tmp_path / "m.onnx", tmp_path / "o.onnx", data=[ROWS])
