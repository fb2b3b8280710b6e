"""The numbers: against NumPy in float64, over models and data of every kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from oracle import statistics

import bnfold

Array = np.ndarray[Any, np.dtype[Any]]
Batch = Mapping[str, Array]
Stored = dict[str, tuple[Array, Array]]

CHAIN = """g (float[N,4{dims}] x) => (float[N,6{dims}] y)
<float[6,{width}{kernel}] w, float[6] b, float[6] g1, float[6] b1, float[6] m1, float[6] v1,
 float[6,6{ones}] w2, float[6] g2, float[6] b2, float[6] m2, float[6] v2>
{{
    c = Conv <pads = [{pads}], group = {group}> (x, w, b)
    n = BatchNormalization <epsilon = 0.001> (c, g1, b1, m1, v1)
    r = Relu (n)
    d = Conv (r, w2)
    y = BatchNormalization (d, g2, b2, m2, v2)
}}"""


def model_of(text: str, *, opset: int = 17, seed: int = 1, ir: int = 8) -> onnx.ModelProto:
    """Parse a graph; its weights are drawn, variances 1 and means 0: never updated."""
    header = f'<ir_version: {ir}, opset_import: ["" : {opset}]>\n'
    model = onnx.parser.parse_model(header + text)
    rng = np.random.default_rng(seed)
    for info in list(model.graph.value_info):
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        array = rng.normal(size=shape)
        if info.name[0] in "mv" and len(shape) == 1:
            array = np.full(shape, float(info.name[0] == "v"))
        model.graph.initializer.append(numpy_helper.from_array(array.astype(dtype), info.name))
    del model.graph.value_info[:]
    return model


def chain(rank: int, *, group: int = 1) -> str:
    return CHAIN.format(
        dims="".join(f",D{axis}" for axis in range(rank)),
        width=4 // group,
        kernel=",3" * rank,
        ones=",1" * rank,
        pads=", ".join("1" * 2 * rank),
        group=group,
    )


def stored(path: Path) -> Stored:
    """The statistics in a file, by the name of the mean in the original: the node's output."""
    graph = onnx.load(path).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return {
        node.output[0]: (values[node.input[3]], values[node.input[4]])
        for node in graph.node
        if node.op_type == "BatchNormalization"
    }


def assert_close(found: Stored, model: onnx.ModelProto, batches: Iterable[Batch]) -> None:
    """Means and variances within 1e-6 of the truth, in the scale of each channel."""
    truth = statistics(model, batches)
    names = {n.output[0]: n.input[3] for n in model.graph.node if len(n.input) == 5}
    assert found.keys() == names.keys()
    for output, (mean, var) in found.items():
        right_mean, right_var = truth[names[output]]
        scale = np.maximum(np.abs(right_mean), np.sqrt(right_var))
        assert np.all(np.abs(mean - right_mean) <= 1e-6 * scale), output
        np.testing.assert_allclose(var, right_var, rtol=1e-6, err_msg=output)


def recalibrated(
    folder: Path, model: onnx.ModelProto, batches: Iterable[Batch], **options: Any
) -> Stored:
    onnx.save(model, folder / "m.onnx")
    options = {"variance": "population"} | options
    bnfold.recalibrate(folder / "m.onnx", folder / "new.onnx", data=batches, **options)
    onnx.checker.check_model(folder / "new.onnx")
    return stored(folder / "new.onnx")


def draw(*shape: int, mean: float = 0.0, seed: int = 5, dtype: Any = np.float32) -> Array:
    return (np.random.default_rng(seed).normal(size=shape) + mean).astype(dtype)


def cut(rows: Array, *sizes: int) -> list[Batch]:
    ends = np.cumsum(sizes)
    assert ends[-1] == len(rows)
    return [{"x": part} for part in np.split(rows, ends[:-1])]


@pytest.mark.parametrize("sizes", [(8, 8, 3), (1,) * 19, (19,), (18, 1)], ids=str)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_uneven_and_single_batches(tmp_path: Path, rank: int, sizes: tuple[int, ...]) -> None:
    model = model_of(chain(rank))
    batches = cut(draw(19, 4, *(5, 6, 4)[:rank], mean=0.3), *sizes)
    assert_close(recalibrated(tmp_path, model, batches), model, batches)


@pytest.mark.parametrize("opset", [7, 8, 9, 12, 13, 14, 15, 17, 18, 21])
def test_every_opset(tmp_path: Path, opset: int) -> None:
    model = model_of(chain(2), opset=opset)
    batches = cut(draw(11, 4, 5, 6), 4, 4, 3)
    assert_close(recalibrated(tmp_path, model, batches), model, batches)


@pytest.mark.parametrize("group", [2, 4])
def test_grouped_convolutions(tmp_path: Path, group: int) -> None:
    # Four groups need a multiple of four filters.
    text = chain(2, group=group).replace("6", "8" if group == 4 else "6")
    model = model_of(text)
    batches = cut(draw(9, 4, 5, 6), 4, 5)
    assert_close(recalibrated(tmp_path, model, batches), model, batches)


ON_THE_INPUT = """g (float[N,3,H,W] x) => (float[N,3,H,W] y)
<float[3] g1, float[3] b1, float[3] m1, float[3] v1>
{ y = BatchNormalization (x, g1, b1, m1, v1) }"""


@pytest.mark.parametrize("mean", [1e4, -1e4, 1e6])
def test_large_means(tmp_path: Path, mean: float) -> None:
    model = model_of(ON_THE_INPUT)
    rows = draw(50, 3, 30, 30, mean=mean) if mean < 1e6 else 30 * draw(50, 3, 30, 30) + 1e6
    batches = cut(rows.astype(np.float32), 20, 20, 10)
    assert_close(recalibrated(tmp_path, model, batches), model, batches)


TWO_IN_A_ROW = """g (float[N,3,H,W] x) => (float[N,3,H,W] y)
<float[3] g1, float[3] b1, float[3] m1, float[3] v1, float[3,3,1,1] w,
 float[3] g2, float[3] b2, float[3] m2, float[3] v2>
{
    a = BatchNormalization (x, g1, b1, m1, v1)
    r = Relu (a)
    c = Conv (r, w)
    y = BatchNormalization (c, g2, b2, m2, v2)
}"""


def test_what_follows_a_large_mean_is_exact_too(tmp_path: Path) -> None:
    model = model_of(TWO_IN_A_ROW)
    batches = cut(draw(48, 3, 16, 16, mean=1e4), 20, 20, 8)
    assert_close(recalibrated(tmp_path, model, batches), model, batches)


SHARED = """g (float[N,3,H,W] x) => (float[N,3,H,W] y)
<float[3] g1, float[3] b1, float[3] m1, float[3] v1, float[3,3,1,1] w>
{
    a = BatchNormalization (x, g1, b1, m1, v1)
    r = Relu (a)
    c = Conv (r, w)
    y = BatchNormalization (c, g1, b1, m1, v1)
}"""


def test_a_shared_normalization_pools_all_its_uses(tmp_path: Path) -> None:
    model = model_of(SHARED)
    batches = cut(draw(11, 3, 5, 5, mean=2), 4, 4, 3)
    assert_close(recalibrated(tmp_path, model, batches), model, batches)
    graph = onnx.load(tmp_path / "new.onnx").graph
    assert [tensor.name for tensor in graph.initializer] == ["g1", "b1", "m1", "v1", "w"]


def test_statistics_that_an_exporter_has_merged_become_their_own(tmp_path: Path) -> None:
    model = model_of(TWO_IN_A_ROW)
    batches = cut(draw(11, 3, 5, 5, mean=2), 4, 4, 3)
    expected = recalibrated(tmp_path, model, batches)
    model.graph.node[3].input[3:] = ["m1", "v1"]
    found = recalibrated(tmp_path, model, batches)
    for output, (mean, var) in expected.items():
        np.testing.assert_array_equal(found[output][0], mean)
        np.testing.assert_array_equal(found[output][1], var)


SEVERAL_INPUTS = """g (float[N,3,H,W] left, float[N,3,H,W] right, float[M] t) => (float[N,3,H,W] y)
<float[3] g1, float[3] b1, float[3] m1, float[3] v1, float[3,3,1,1] w,
 float[3] g2, float[3] b2, float[3] m2, float[3] v2>
{
    a = BatchNormalization (left, g1, b1, m1, v1)
    c = Conv (right, w)
    s = Add (a, c)
    y = BatchNormalization (s, g2, b2, m2, v2)
}"""


def test_several_inputs(tmp_path: Path) -> None:
    model = model_of(SEVERAL_INPUTS)
    left, right = draw(11, 3, 5, 5, seed=2), draw(11, 3, 5, 5, seed=3, mean=4)
    t = np.zeros(7, np.float32)
    batches = [{"left": left[:8], "right": right[:8], "t": t}]
    batches += [{"left": left[8:], "right": right[8:], "t": t}]
    assert_close(recalibrated(tmp_path, model, batches), model, batches)


LINEAR = """g (float[N,5] x) => (float[N,3] y)
<float[4,5] w, float[4] b, float[4] g1, float[4] b1, float[4] m1, float[4] v1,
 float[3,4] w2, float[3] c2, float[3] g2, float[3] b2, float[3] m2, float[3] v2>
{
    a = Gemm <transB = 1> (x, w, b)
    n = BatchNormalization (a, g1, b1, m1, v1)
    r = Relu (n)
    d = Gemm <transB = 1> (r, w2, c2)
    y = BatchNormalization (d, g2, b2, m2, v2)
}"""


def test_linear_layers(tmp_path: Path) -> None:
    model = model_of(LINEAR)
    batches = cut(draw(101, 5, mean=1), 50, 50, 1)
    assert_close(recalibrated(tmp_path, model, batches), model, batches)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_floats(tmp_path: Path, kind: int) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    name = {TensorProto.FLOAT16: "float16", TensorProto.DOUBLE: "double"}[kind]
    model = model_of(ON_THE_INPUT.replace("float", name))
    batches = cut(draw(40, 3, 6, 6, mean=3, dtype=dtype), 30, 10)
    found = recalibrated(tmp_path, model, batches)["y"]
    right = statistics(model, batches)["m1"]
    for mine, truth in zip(found, right, strict=True):
        assert mine.dtype == dtype
        if kind == TensorProto.DOUBLE:
            np.testing.assert_allclose(mine, truth, rtol=1e-13)
        else:
            np.testing.assert_array_equal(mine, truth.astype(dtype))


def test_float16_data_with_float32_statistics(tmp_path: Path) -> None:
    text = ON_THE_INPUT.replace("float[N", "float16[N").replace("float[3]", "float16[3]")
    text = text.replace("float16[3] m1, float16[3] v1", "float[3] m1, float[3] v1")
    model = model_of(text)
    batches = cut(draw(40, 3, 6, 6, mean=300, dtype=np.float16), 30, 10)
    assert_close(recalibrated(tmp_path, model, batches), model, batches)


def test_unbiased_variance_is_that_of_all_values(tmp_path: Path) -> None:
    model = model_of(ON_THE_INPUT)
    rows = draw(3, 3, 2, 2)
    _, var = recalibrated(tmp_path, model, cut(rows, 2, 1), variance="unbiased")["y"]
    expected = rows.astype(np.float64).var(axis=(0, 2, 3), ddof=1)
    np.testing.assert_allclose(var, expected, rtol=1e-7)


def test_momentum_moves_part_of_the_way(tmp_path: Path) -> None:
    model = model_of(ON_THE_INPUT)
    batches = cut(draw(9, 3, 4, 4, mean=5), 9)
    whole_mean, whole_var = recalibrated(tmp_path, model, batches)["y"]
    mean, var = recalibrated(tmp_path, model, batches, momentum=0.25)["y"]
    np.testing.assert_allclose(mean, 0.25 * whole_mean, rtol=2e-7)
    np.testing.assert_allclose(var, 0.75 + 0.25 * whole_var, rtol=2e-7)


def test_only_renews_what_it_names(tmp_path: Path) -> None:
    model = model_of(TWO_IN_A_ROW)
    batches = cut(draw(11, 3, 5, 5, mean=2), 4, 4, 3)
    found = recalibrated(tmp_path, model, batches, only=["y"])
    np.testing.assert_array_equal(found["a"][0], 0)
    # The first works with the statistics of the file: mean 0 and variance 1.
    values = {t.name: numpy_helper.to_array(t).astype(float) for t in model.graph.initializer}
    x = np.concatenate([batch["x"] for batch in batches]).astype(np.float64)
    scale = values["g1"] / np.sqrt(1 + 1e-5)
    a = np.maximum(x * scale[:, None, None] + values["b1"][:, None, None], 0)
    c = np.einsum("mc,nchw->nmhw", values["w"][..., 0, 0], a)
    np.testing.assert_allclose(found["y"][0], c.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(found["y"][1], c.var(axis=(0, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("split", [(19,), (1,) * 19, (8, 8, 3)], ids=str)
def test_sequential_works_with_the_new_statistics(tmp_path: Path, split: tuple[int, ...]) -> None:
    """However the data is split: one batch of all of it, normalized by its own, is the truth."""
    model = model_of(chain(2))
    rows = draw(19, 4, 5, 6, mean=0.3)
    found = recalibrated(tmp_path, model, cut(rows, *split), mode="sequential")
    assert_close(found, model, [{"x": rows}])


def test_sequential_goes_through_branches_level_by_level(tmp_path: Path) -> None:
    model = model_of(SEVERAL_INPUTS)
    left, right = draw(11, 3, 5, 5, seed=2), draw(11, 3, 5, 5, seed=3, mean=4)
    batch = {"left": left, "right": right, "t": np.zeros(7, np.float32)}
    assert_close(recalibrated(tmp_path, model, [batch], mode="sequential"), model, [batch])


@pytest.mark.parametrize("make", [chain, lambda _: SHARED, lambda _: TWO_IN_A_ROW])
def test_a_second_run_changes_nothing(tmp_path: Path, make: Callable[[int], str]) -> None:
    model = model_of(make(2))
    channels = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    data = cut(draw(7, channels, 5, 5), 4, 3)
    recalibrated(tmp_path, model, data)
    bnfold.recalibrate(
        tmp_path / "new.onnx", tmp_path / "again.onnx", data=data, variance="population"
    )
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "new.onnx").read_bytes()
