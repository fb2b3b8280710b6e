"""Drawn feeds: what errors they reach, that they run, how many there are."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from check_pairs import model, text
from onnx import TensorProto, helper

from bnfold.check import check
from bnfold.check.feeds.drawing import RandomFeeds, random_feeds
from bnfold.check.feeds.draws import KINDS
from bnfold.check.feeds.expressions import evaluate, symbols_of
from bnfold.check.feeds.feed import Feed, apply_shapes
from bnfold.check.feeds.hints import find_hints
from bnfold.check.models.model import open_model
from bnfold.check.runtimes.sessions import OrtRunner, ReferenceRunner, RunError, Runner

INFO = helper.make_tensor_value_info
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(50, 8)).astype(np.float32)
KERNEL = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)


def drawn(
    proto: onnx.ModelProto, *, samples: int | None = None, seed: int = 0, **asked: Any
) -> tuple[list[Feed], list[str]]:
    """The feeds for a model, and what went wrong when it ran on them."""
    opened = open_model(proto, "reference")
    runner: Runner
    try:
        runner = OrtRunner(opened, "CPUExecutionProvider", "disable_all")
    except RunError:
        runner = ReferenceRunner(opened)

    def attempt(feed: Feed) -> str | None:
        try:
            runner.run(feed.arrays)
        except RunError as error:
            return str(error)
        return None

    specs = apply_shapes(opened.inputs, asked.get("inputs", {}), asked.get("dims", {}))
    hints = find_hints(opened.skeleton.proto, [spec.name for spec in specs])
    feeds = random_feeds(specs, hints, seed, attempt, samples=samples)
    return list(feeds), [error for feed in feeds if (error := attempt(feed)) is not None]


# --- errors that have to be reached ---

# (reference, candidate) as the nodes between x and y, NCHW with open sizes.
REACHED = {
    "second-row": (
        "y = Identity(x)",
        "a = Constant<value_ints=[0]>()\n b = Constant<value_ints=[1]>()\n f = Slice(x, a, b, a)\n "
        "z = Mul(x, zero)\n y = Add(f, z)",
    ),
    "rows-counted": (
        "y = Identity(x)",
        "s = Shape<start=0, end=1>(x)\n f = Cast<to=1>(s)\n r = Pow(f, small)\n y = Mul(x, r)",
    ),
    "negative": ("y = Relu(x)", "y = LeakyRelu<alpha=0.001>(x)"),
    "all-negative": (
        "y = Identity(x)",
        "m = ReduceMax<keepdims=0>(x)\n c = Less(m, zero)\n w = Mul(x, small)\n y = Where(c, w, x)",
    ),
    "all-positive": (
        "y = Identity(x)",
        "m = ReduceMin<keepdims=0>(x)\n c = GreaterOrEqual(m, zero)\n w = Mul(x, small)\n "
        "y = Where(c, w, x)",
    ),
    "large": ("y = Identity(x)", "y = Clip(x, low, high)"),
    "tiny": ("y = Identity(x)", "y = Shrink<lambd=0.001>(x)"),
    "zero": ("c = Equal(x, zero)\n y = Where(c, one, x)", "y = Identity(x)"),
    "nan-in-a-branch": (
        "y = Identity(x)",
        "a = Add(x, hundred)\n b = Sqrt(a)\n c = Mul(b, zero)\n y = Add(x, c)",
    ),
    "border": (
        'p = Constant<value_ints=[0,0,1,1,0,0,1,1]>()\n y = Pad<mode="edge">(x, p)',
        'p = Constant<value_ints=[0,0,1,1,0,0,1,1]>()\n y = Pad<mode="reflect">(x, p)',
    ),
    "height-and-width": (
        "s = Shape(x)\n y = Expand(x, s)",
        "t = Transpose<perm=[0,1,3,2]>(x)\n s = Shape(x)\n y = Reshape(t, s)",
    ),
    "channels": (
        "y = GlobalAveragePool(x)",
        "i = Constant<value_ints=[1, 0, 2]>()\n g = Gather<axis=1>(x, i)\n "
        "y = GlobalAveragePool(g)",
    ),
}
WEIGHTS = (
    "<float zero = {0.0}, float one = {1.0}, float small = {0.001}, float hundred = {100.0}, "
    "float low = {-500.0}, float high = {500.0}>"
)


@pytest.mark.parametrize("name", REACHED)
def test_error_is_reached(name: str) -> None:
    reference, candidate = (
        text(f"g (float[N,3,H,W] x) => (float[A,B,C,D] y) {WEIGHTS} {{ {nodes} }}")
        for nodes in REACHED[name]
    )
    assert all(report.equivalent for report in check(reference, reference))
    assert not any(report.equivalent for report in check(reference, candidate))


@pytest.mark.parametrize("kind", ["int64", "int8"])
def test_errors_of_integers_are_reached(kind: str) -> None:
    graph = f"g ({kind}[N,4] x) => ({kind}[N,4] y) {{{{ y = {{}}(x) }}}}"
    assert not any(
        r.equivalent for r in check(text(graph.format("Identity")), text(graph.format("Abs")))
    )


# --- models of every kind ---


def graph_of(
    nodes: list[Any], inputs: list[Any], outputs: list[str], **weights: np.ndarray
) -> onnx.ModelProto:
    infos = [INFO(name, elem_type, shape) for name, elem_type, shape in inputs]
    return model(
        [helper.make_node(op, i, o, **attributes) for op, i, o, attributes in nodes],
        infos,
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        weights,
    )


F, I64, I32, S = (getattr(TensorProto, name) for name in ("FLOAT", "INT64", "INT32", "STRING"))
MODELS = {
    "ids-with-offset": graph_of(
        [("Add", ["p", "two"], ["q"], {}), ("Gather", ["w", "q"], ["y"], {})],
        [("p", I64, ["N", "L"])],
        ["y"],
        w=TABLE,
        two=np.array(2),
    ),
    "past-and-mask": graph_of(
        [
            ("Gather", ["w", "ids"], ["e"], {}),
            ("Concat", ["past", "e"], ["k"], {"axis": 1}),
            ("Cast", ["mask"], ["f"], {"to": 1}),
            ("Unsqueeze", ["f", "ax"], ["m"], {}),
            ("Mul", ["k", "m"], ["y"], {}),
        ],
        [("ids", I64, ["N", "s"]), ("mask", I64, ["N", "p + s"]), ("past", F, ["N", "p", 8])],
        ["y"],
        w=TABLE,
        ax=np.array([2]),
    ),
    "detection": graph_of(
        [
            ("NonMaxSuppression", ["b", "s", "n", "iou", "t"], ["i"], {}),
            ("TopK", ["s", "k"], ["v", "j"], {}),
        ],
        [
            *(("b", F, ["N", "M", 4]), ("s", F, ["N", "C", "M"]), ("n", I64, [1])),
            *(("iou", F, [1]), ("t", F, [1]), ("k", I64, [1])),
        ],
        ["i", "v"],
    ),
    "lengths": graph_of(
        [("GRU", ["x", "w", "r", "", "len"], ["y"], {"hidden_size": 4})],
        [("x", F, ["T", "N", 6]), ("len", I32, ["N"])],
        ["y"],
        w=RNG.normal(size=(1, 12, 6)).astype(np.float32),
        r=RNG.normal(size=(1, 12, 4)).astype(np.float32),
    ),
    "sizes": graph_of(
        [
            ("Conv", ["x", "w"], ["c"], {"pads": [1] * 4}),
            ("Resize", ["c", "", "", "s"], ["y"], {"mode": "linear"}),
        ],
        [("x", F, ["N", 3, "H", "W"]), ("s", I64, [4])],
        ["y"],
        w=KERNEL,
    ),
    "channels-last": graph_of(
        [("Transpose", ["x"], ["t"], {"perm": [0, 3, 1, 2]}), ("Conv", ["t", "w"], ["y"], {})],
        [("x", F, ["N", "H", "W", 3])],
        ["y"],
        w=KERNEL,
    ),
    "slices": graph_of(
        [("Slice", ["x", "a", "b", "c", "d"], ["y"], {}), ("Squeeze", ["z", "e"], ["u"], {})],
        [
            *(
                ("x", F, [5, 6, 7]),
                ("a", I64, [2]),
                ("b", I64, [2]),
                ("c", I64, [2]),
                ("d", I64, [2]),
            ),
            *(("z", F, [1, 3, 1, 4]), ("e", I64, [2])),
        ],
        ["y", "u"],
    ),
    "parts": graph_of(
        [("Split", ["x", "p"], ["a", "b"], {"axis": 1}), ("Pad", ["a", "q"], ["y"], {})],
        [("x", F, ["N", 9]), ("p", I64, [2]), ("q", I64, [4])],
        ["y", "b"],
    ),
    "scatter": graph_of(
        [("ScatterND", ["x", "i", "u"], ["y"], {}), ("GatherElements", ["x", "j"], ["z"], {})],
        [
            *(("x", F, ["N", 5, "L"]), ("i", I64, ["K", 2]), ("u", F, ["K", "L"])),
            ("j", I64, ["N", 5, "L"]),
        ],
        ["y", "z"],
    ),
    "one-hot-and-range": graph_of(
        [("OneHot", ["i", "d", "v"], ["y"], {}), ("Range", ["a", "b", "c"], ["z"], {})],
        [
            *(("i", I64, ["N"]), ("d", I64, []), ("v", F, [2])),
            *(("a", I64, []), ("b", I64, []), ("c", I64, [])),
        ],
        ["y", "z"],
    ),
    "ids-as-floats": graph_of(
        [("Cast", ["x"], ["i"], {"to": I64}), ("Gather", ["w", "i"], ["y"], {})],
        [("x", F, ["N", "L"])],
        ["y"],
        w=TABLE,
    ),
    "condition": text(
        "g (bool c, int64[N,L] i) => (float[N,L,2] y) <float[3,2] w = {1, 2, 3, 4, 5, 6}> { "
        "y = If(c) <then_branch = t () => (float[N,L,2] a) { a = Gather(w, i) }, "
        "else_branch = e () => (float[N,L,2] b) { d = Gather(w, i)\n b = Neg(d) }> }"
    ),
    "function": onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "f" : 1]>\n'
        "g (int64[N] i) => (float[N,2] y) <float[3,2] w = {1, 2, 3, 4, 5, 6}> { y = f.look(w, i) }"
        '\n<domain: "f", opset_import: ["" : 17]>\nlook (t, k) => (r) { r = Gather(t, k) }'
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_feed_runs(name: str) -> None:
    feeds, errors = drawn(MODELS[name])
    assert not errors
    assert len(feeds) >= 7


def test_indices_use_their_whole_range() -> None:
    for name, key, low, high in (
        ("ids-with-offset", "p", 0, 47),
        ("past-and-mask", "ids", 0, 49),
        ("past-and-mask", "mask", 0, 1),
        ("ids-as-floats", "x", 0, 49),
        ("function", "i", 0, 2),
    ):
        feeds, _ = drawn(MODELS[name])
        values = np.concatenate([feed.arrays[key].ravel() for feed in feeds])
        assert (values.min(), values.max()) == (low, high)
        assert np.array_equal(values, np.round(values))


def test_words_are_those_that_the_model_knows() -> None:
    proto = text(
        "g (string[N] s) => (string[M] n, float[8] y) { "
        'n = StringNormalizer<case_change_action="LOWER", stopwords=["the"]>(s)\n'
        'y = TfIdfVectorizer<mode="TF", min_gram_length=1, max_gram_length=1, max_skip_count=0, '
        'ngram_counts=[0], ngram_indexes=[0,1], pool_strings=["cat","dog"]>(n) }'
    )
    feeds, _ = drawn(proto)
    words = {word for feed in feeds for word in feed.arrays["s"]}
    assert {"the", "cat", "dog", ""} < words


def test_sequences_maps_and_optionals_are_drawn() -> None:
    feeds, errors = drawn(
        text("g (seq(float[N,3]) s) => (float[M,3] y) { y = ConcatFromSequence<axis=0>(s) }")
    )
    assert not errors
    assert {len(feed.arrays["s"]) for feed in feeds} == {1, 2, 3, 4}
    feeds, errors = drawn(
        text("g (optional(seq(float[N])) o) => (bool y) { y = OptionalHasElement(o) }", opset=18)
    )
    assert not errors
    assert [feed.arrays["o"] is None for feed in feeds].count(True) == 1
    node = helper.make_node(
        "DictVectorizer", ["d"], ["y"], domain="ai.onnx.ml", string_vocabulary=["b", "a", "c"]
    )
    keys = helper.make_map_type_proto(S, helper.make_tensor_type_proto(F, []))
    graph = helper.make_graph(
        [node], "g", [helper.make_value_info("d", keys)], [INFO("y", F, [1, 3])]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    feeds, errors = drawn(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    assert not errors
    assert all(set(feed.arrays["d"]) <= {"a", "b", "c"} for feed in feeds)


@pytest.mark.parametrize("name", ["bfloat16", "float8e4m3fn", "float8e5m2", "int4", "uint4"])
def test_types_that_numpy_does_not_have(name: str) -> None:
    proto = text(
        f"g ({name}[N,5] x, float[N,5] a) => ({name}[N,5] y) {{ y = CastLike(a, x) }}",
        opset=21,
        ir=10,
    )
    feeds, errors = drawn(proto)
    assert not errors
    assert np.unique(feeds[0].arrays["x"].astype(np.float32)).size > 3
    (first, second) = check(proto, proto)
    assert first.equivalent
    assert second.equivalent


def test_only_inputs_that_have_to_be_tame_are() -> None:
    proto = text(
        "g (float[N,4] x, float[1,3] p) => (float[N,4] y, float[1,3] z) { "
        "y = Relu(x)\n z = Relu(p) }"
    )
    opened = open_model(proto, "reference")
    hints = find_hints(opened.skeleton.proto, ["x", "p"])

    def attempt(feed: Feed) -> str | None:
        values = feed.arrays["p"]
        return None if values.min() >= 0 and values.max() <= 1 else "p is no probability"

    feeds = random_feeds(opened.inputs, hints, 0, attempt)
    assert all(0 <= feed.arrays["p"].min() <= feed.arrays["p"].max() <= 1 for feed in feeds)
    assert min(feed.arrays["x"].min() for feed in feeds) < -100
    assert {feed.name.split()[0] for feed in feeds} == set(KINDS)


# --- how many, and which ---

IMAGE = text("g (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu(x) }")


def test_samples() -> None:
    plan, _ = drawn(IMAGE)
    names = [feed.name for feed in plan]
    assert [feed.name for feed in drawn(IMAGE, samples=3)[0]] == names[:3]
    first, second = drawn(IMAGE, samples=2)[0]
    assert (len(first.arrays["x"]), len(second.arrays["x"])) == (3, 1)
    more, errors = drawn(IMAGE, samples=40)
    assert not errors
    assert [feed.name for feed in more[: len(plan)]] == names
    by_kind = {kind: [f for f in more if f.name.startswith(kind)] for kind in KINDS}
    assert all(len({f.arrays["x"].shape for f in feeds}) == 3 for feeds in by_kind.values())
    for one, other in itertools.combinations(by_kind["normal"], 2):
        same = min(one.arrays["x"].size, other.arrays["x"].size)
        assert not np.array_equal(one.arrays["x"].flat[:same], other.arrays["x"].flat[:same])


def test_feeds_are_drawn_when_they_are_read() -> None:
    opened = open_model(IMAGE, "reference")
    hints = find_hints(opened.skeleton.proto, ["x"])
    feeds = random_feeds(opened.inputs, hints, 0, lambda _: None, samples=10**9)
    assert isinstance(feeds, RandomFeeds)
    assert len(feeds) == 10**9
    np.testing.assert_array_equal(feeds[10**8].arrays["x"], feeds[10**8].arrays["x"])
    assert feeds[-1].name == feeds[10**9 - 1].name
    assert [feed.name for feed in feeds[1:3]] == [feeds[1].name, feeds[2].name]
    with pytest.raises(IndexError):
        feeds[10**9]


def test_samples_of_a_check() -> None:
    assert [report.feeds for report in check(IMAGE, IMAGE, samples=2)] == [2, 2]
    assert [report.feeds for report in check(IMAGE, IMAGE, samples=11)] == [11, 11]


def test_sizes_that_hang_on_others() -> None:
    assert symbols_of("p + 2*s") == {"p", "s"}
    assert symbols_of("batch.size") == {"batch.size"}
    assert symbols_of("a b") == {"a b"}
    assert symbols_of("2") == {"2"}
    assert symbols_of("0.5*n") == {"0.5*n"}
    assert evaluate("p + 2*s", {"p": 3, "s": 4}) == 11
    assert evaluate("s//2 - 9", {"s": 4}) == 0
    assert evaluate("batch.size", {"batch.size": 5}) == 5
    feeds, _ = drawn(MODELS["past-and-mask"], dims={"p": 2, "s": 3})
    assert {feed.arrays["mask"].shape[1] for feed in feeds} == {5}
