"""What is said beside the verdict: oracle, classes, constant outputs, expected outputs, rules."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from check_pairs import layers, network, planted, text
from onnx import numpy_helper

from bnfold.check import check
from bnfold.check.exact.oracle import consult
from bnfold.check.feeds.feed import Feed
from bnfold.check.feeds.hints import find_hints
from bnfold.check.models.model import open_model
from bnfold.check.models.pairs import open_pair
from bnfold.check.verdict.compare import Tolerance
from bnfold.check.verdict.verify import verify
from bnfold.report import CheckReport

RNG = np.random.default_rng(0)


def reports_on(
    reference: onnx.ModelProto,
    candidate: onnx.ModelProto,
    *feeds: Feed,
    tolerance: Mapping[str, Tolerance] | Tolerance | None = None,
    oracle: bool = False,
) -> list[CheckReport]:
    ours = open_model(reference.SerializeToString(), "reference")
    theirs = open_model(candidate.SerializeToString(), "candidate")
    pair = open_pair(ours, theirs, "CPUExecutionProvider", "default")
    hints = find_hints(ours.skeleton.proto, [spec.name for spec in ours.inputs])
    reports, _ = verify(
        pair, feeds, hints, tolerance=tolerance, seed=0, progress=None, oracle=oracle
    )
    return reports


def normal(*shape: int, expected: Mapping[str, np.ndarray] | None = None) -> Feed:
    values = RNG.normal(size=shape).astype(np.float32)
    return Feed("normal", {"x": values}, given=True, expected=expected)


# --- the oracle ---


def test_oracle_calls_a_correct_fold_equal_and_a_fault_farther() -> None:
    stack = layers(5, seed=1)
    reference = network(stack, folded=False)
    (report, _) = check(reference, network(stack, folded=True), oracle=True)
    opinion = report.outputs[0].oracle
    assert opinion is not None
    assert opinion.nearer == "equal"
    assert opinion.detail is None
    assert 0 < opinion.reference < 1e-5
    assert 0 < opinion.exact < 1e-6
    wrong = network(planted(stack, "epsilon-dropped", 2), folded=True)
    for report in check(reference, wrong, oracle=True):
        opinion = report.outputs[0].oracle
        assert opinion.nearer == "reference"
        assert opinion.candidate > 10 * opinion.reference
        assert opinion.exact == pytest.approx(opinion.candidate, rel=0.2)
        assert report.to_dict()["outputs"][0]["oracle"]["nearer"] == "reference"


def test_oracle_says_where_the_reference_is_the_worse_one() -> None:
    # The same sum, once by way of a large number that takes the digits away.
    reference = text(
        "g (float[N] x) => (float[N] y) <float[1] k = {10000.0}> { a = Add(x, k)\n y = Sub(a, k) }"
    )
    candidate = text("g (float[N] x) => (float[N] y) { y = Identity(x) }")
    ours, theirs = (
        open_model(model.SerializeToString(), "model") for model in (reference, candidate)
    )
    x = RNG.normal(size=9).astype(np.float32)
    rounded = (x + np.float32(1e4)) - np.float32(1e4)
    (opinion,) = consult(ours, theirs, Feed("f", {"x": x}), [rounded], [x])
    assert opinion.nearer == "candidate"
    assert opinion.candidate == 0.0
    assert opinion.exact < 1e-11
    assert opinion.reference > 1e-5


@pytest.mark.parametrize("who", ["reference", "candidate"])
def test_oracle_without_an_operator_says_so(who: str) -> None:
    plain = text("g (float[N] x) => (float[N] y) { y = Neg(x) }")
    custom = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "my" : 1]>\n'
        "g (float[N] x) => (float[N] y) { y = my.Negative(x) }"
    )
    pair = (custom, plain) if who == "reference" else (plain, custom)
    ours, theirs = (open_model(model.SerializeToString(), "model") for model in pair)
    x = np.ones(3, np.float32)
    (opinion,) = consult(ours, theirs, Feed("f", {"x": x}), [-x], [-x])
    assert "cannot be computed in float64" in opinion.detail
    assert "Negative" in opinion.detail
    assert opinion.nearer == (None if who == "reference" else "equal")
    assert opinion.exact is None


def test_oracle_counts_other_types_and_infinities() -> None:
    model = text(
        "g (float[N] x) => (int64[K] i, float[N] y) { i = ArgMax<axis=0>(x)\n y = Log(x) }"
    )
    opened = open_model(model.SerializeToString(), "model")
    x = np.array([0.0, 1.0, 2.0], np.float32)
    right = [np.array([2]), np.log(np.maximum(x, 1e-45))]
    right[1][0] = -np.inf
    wrong = [np.array([1]), np.where(np.isinf(right[1]), 0, right[1])]
    numbers, logs = consult(opened, opened, Feed("f", {"x": x}), right, wrong)
    assert (numbers.reference, numbers.candidate, numbers.nearer) == (0.0, 1.0, "reference")
    assert logs.candidate == math.inf
    assert logs.to_dict()["candidate"] is None


# --- classes ---

SCORES = "g (float[N,4] x) => (float[N,4] y)"


def test_agreement_of_classes_is_shown_and_decides_nothing() -> None:
    reference = text(f"{SCORES} {{ y = Relu(x) }}")
    (same, _) = check(reference, reference)
    assert same.outputs[0].argmax_agreement == 1.0
    turned = text(f"{SCORES} {{ y = Neg(x) }}")
    (report, _) = check(text(f"{SCORES} {{ y = Identity(x) }}"), turned)
    assert not report.equivalent
    assert 0.0 <= report.outputs[0].argmax_agreement < 0.2
    louder = text(f"{SCORES} <float k = {{2.0}}> {{ a = Relu(x)\n y = Mul(a, k) }}")
    (report, _) = check(reference, louder)
    assert not report.equivalent
    assert report.outputs[0].argmax_agreement == 1.0
    assert report.to_dict()["outputs"][0]["argmax_agreement"] == 1.0


@pytest.mark.parametrize(
    ("declared", "body"),
    [
        ("float[N] y", "y = ReduceMax<axes=[1], keepdims=0>(x)"),
        ("int64[N,1] y", "y = ArgMax<axis=1>(x)"),
        ("float[N,1] y", "y = ReduceMax<axes=[1]>(x)"),
    ],
)
def test_no_agreement_where_there_are_no_scores(declared: str, body: str) -> None:
    model = text(f"g (float[N,4] x) => ({declared}) {{ {body} }}")
    assert check(model, model)[0].outputs[0].argmax_agreement is None


# --- outputs that say little ---


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("a = Abs(x)\n b = Neg(a)\n y = Relu(b)", "says little: it is 0.0 everywhere"),
        ("a = Sub(x, x)\n y = Div(a, a)", "says little: it has no finite element on any feed"),
        ("y = Relu(x)", None),
    ],
)
def test_an_output_that_no_feed_moves_is_told(body: str, sentence: str | None) -> None:
    model = text(f"g (float[N,3] x) => (float[N,3] y) {{ {body} }}")
    for report in check(model, model):
        assert report.equivalent
        detail = report.outputs[0].detail
        assert detail is None if sentence is None else sentence in detail


def test_an_output_that_is_always_the_same_is_told() -> None:
    model = text(
        "g (float[N,3] x) => (float[N,3] y, float[2] k) "
        "{ y = Relu(x)\n k = Constant<value = float[2] {1.0, 2.0}>() }"
    )
    (report, _) = check(model, model)
    assert [output.detail for output in report.outputs] == [
        None,
        "says little: it is the same on every feed",
    ]


# --- a third opinion ---


def test_expected_outputs_are_compared_with_both() -> None:
    reference = text("g (float[N,3] x) => (float[N,3] y) { y = Neg(x) }")
    feed = normal(2, 3)
    right = Feed("right", feed.arrays, given=True, expected={"y": -feed.arrays["x"]})
    for report in reports_on(reference, reference, right):
        (entry,) = report.expected
        assert (entry.output, entry.feeds) == ("y", 1)
        assert entry.reference_agrees
        assert entry.candidate_agrees
        assert report.warnings == ()
        assert report.to_dict()["expected"][0]["reference"] == 0.0


def test_a_reference_that_departs_from_what_was_expected_is_told() -> None:
    reference = text("g (float[N,3] x) => (float[N,3] y) { y = Neg(x) }")
    feed = normal(2, 3)
    other = Feed("other", feed.arrays, given=True, expected={"y": 1.01 * feed.arrays["x"]})
    for report in reports_on(reference, reference, other):
        assert report.equivalent
        assert not report.expected[0].reference_agrees
        assert report.expected[0].reference > 1.0
        (warning,) = report.warnings
        assert "departs from the expected outputs" in warning
        assert "'y'" in warning


def test_the_candidate_is_judged_by_the_reference_not_by_what_was_expected() -> None:
    reference = text("g (float[N,3] x) => (float[N,3] y) { y = Neg(x) }")
    candidate = text("g (float[N,3] x) => (float[N,3] y) { y = Identity(x) }")
    feed = normal(2, 3)
    told = Feed("told", feed.arrays, given=True, expected={"y": feed.arrays["x"]})
    for report in reports_on(reference, candidate, told):
        assert not report.equivalent
        assert report.expected[0].candidate_agrees


# --- rules by output name ---

TWO = "g (float[N,3] x) => (float[N,3] y, float[N,3] z)"


def test_a_rule_holds_for_its_output_only() -> None:
    reference = text(f"{TWO} {{ y = Relu(x)\n z = Neg(x) }}")
    near = "<float k = {1.001}>"
    one = text(f"{TWO} {near} {{ a = Relu(x)\n y = Mul(a, k)\n z = Neg(x) }}")
    both = text(f"{TWO} {near} {{ a = Relu(x)\n y = Mul(a, k)\n b = Neg(x)\n z = Mul(b, k) }}")
    rule = {"y": Tolerance(rtol=1e-2, atol=0.0)}
    feed = normal(4, 3)
    assert [r.equivalent for r in reports_on(reference, one, feed)] == [False, False]
    assert [r.equivalent for r in reports_on(reference, one, feed, tolerance=rule)] == [True, True]
    for report in reports_on(reference, both, feed, tolerance=rule):
        assert [output.equivalent for output in report.outputs] == [True, False]


# --- jumps ---


def close_scores(*, folded: bool, swapped: bool = False) -> onnx.ModelProto:
    """Scores of many pixels for two classes that are nearly equal, and the winner of each."""
    rng = np.random.default_rng(3)
    w = rng.normal(size=(1, 24, 3, 3)).astype(np.float32)
    scale = np.array([1.7, 1.7 * (1 + 1e-5)]) / math.sqrt(0.37 + 1e-5)
    pair = np.concatenate([w, w])
    model = text(
        "g (float[1,24,40,40] x) => (int64[1,40,40] y) {\n"
        + (
            "c = Conv<pads = [1,1,1,1]>(x, w)\n"
            if folded
            else "a = Conv<pads = [1,1,1,1]>(x, w)\n c = Mul(a, s)\n"
        )
        + f"y = Arg{'Min' if swapped else 'Max'}<axis = 1, keepdims = 0>(c)\n}}"
    )
    factors = scale.reshape(2, 1, 1, 1)
    weights = {"w": pair * factors if folded else pair}
    if not folded:
        weights["s"] = factors.reshape(1, 2, 1, 1)
    model.graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()
    )
    return model


def test_choices_between_equal_scores_pass_and_are_told() -> None:
    reports = check(close_scores(folded=False), close_scores(folded=True))
    for report in reports:
        assert report.equivalent
        assert "unstable" in report.outputs[0].detail
    wrong = check(close_scores(folded=False), close_scores(folded=True, swapped=True))
    assert [report.equivalent for report in wrong] == [False, False]
