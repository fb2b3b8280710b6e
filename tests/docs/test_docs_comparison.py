"""The page on other tools: what it says of bnfold is so, and its patterns are what they claim."""

from __future__ import annotations

import re

import onnx
import pytest

import bnfold
from benchmarks.comparison import CASES, PAGE, Case, remaining

TEXT = PAGE.read_text(encoding="utf-8")


def column(title: str) -> dict[str, str]:
    """A column of the table of patterns, by pattern."""
    table = TEXT.split("<!-- patterns -->")[1].split("<!-- end of patterns -->")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.strip().splitlines()]
    index = rows[0].index(title)
    return {row[0].removesuffix(" (has to stay)"): row[index] for row in rows[2:]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_pattern(case: Case) -> None:
    model = case.model()
    onnx.checker.check_model(model, full_check=True)
    left = remaining(case, bnfold.fold(model))
    assert column("before")[case.what] == str(remaining(case, model))
    assert column("bnfold")[case.what] == str(left)
    assert (left > 0) == case.must_stay


@pytest.mark.parametrize(
    "what", ["sum of two Conv2d, BatchNorm2d", "a Conv2d that is used twice, BatchNorm2d"]
)
def test_module(what: str) -> None:
    torch = pytest.importorskip("torch", reason="modules are PyTorch's")
    from benchmarks.comparison_modules import MODULES, norms  # noqa: PLC0415

    make, must_stay = MODULES[what]
    folded, _ = bnfold.torch.fold(make().eval(), torch.randn(2, 8, 9, 9))
    (said,) = re.findall(rf"^\| {what}[^|]*\| (\d)", TEXT, re.MULTILINE)
    assert norms(folded) == int(said) == must_stay


def test_what_is_said_of_others_is_in_the_benchmarks() -> None:
    benchmarks = (PAGE.parent / "benchmarks.md").read_text(encoding="utf-8")
    for network, tool, nodes, left in (
        ("RepVGG-A0", "onnxsim", None, 17),
        ("MobileOne-S0", "OnnxSlim", None, 35),
        ("MobileNetV2", "ONNX Runtime, offline", 65, 0),
        ("MobileNetV2", "bnfold", 100, 0),
        ("ResNet-50", "ONNX Runtime, offline", 89, 0),
        ("ResNet-50", "bnfold", 122, 0),
        ("detector", "OnnxSlim", 33, 1),
        ("detector", "bnfold", 36, 1),
        ("PointNet", "onnxscript", 14, 0),
        ("PointNet", "bnfold", 15, 0),
        ("DenseNet-121", "bnfold", None, 62),
        ("pre-activation ResNet-18", "bnfold", None, 9),
    ):
        (found,) = re.findall(
            rf"^\| {re.escape(network)} \| {re.escape(tool)} \| (\d+) \| (\d+) \|",
            benchmarks,
            re.MULTILINE,
        )
        assert nodes in {None, int(found[0])}
        assert left == int(found[1])
