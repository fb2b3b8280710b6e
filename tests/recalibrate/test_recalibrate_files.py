"""Files in and out: data of every kind, what is written, interruption, memory."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner, Result
from onnx import helper, numpy_helper
from test_recalibrate_numbers import ON_THE_INPUT, TWO_IN_A_ROW, draw, model_of, stored

import bnfold
from bnfold.cli import main

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"
HELDOUT = DIGITS.with_name("digits_heldout.npz")

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, ["recalibrate", *map(str, arguments)])

    return invoke


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    onnx.save(model_of(TWO_IN_A_ROW), path)
    return path


def same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


# --- data


def test_however_the_samples_come_the_batches_are_the_same(model: Path, tmp_path: Path) -> None:
    rows = draw(11, 3, 5, 5, mean=2)
    np.save(tmp_path / "all.npy", rows)
    np.savez(tmp_path / "all.npz", rows)
    np.savez_compressed(tmp_path / "labelled.npz", x=rows, labels=np.arange(11))
    for folder in ("ones", "odd"):
        (tmp_path / folder).mkdir()
    for index, row in enumerate(rows):
        np.save(tmp_path / "ones" / f"{index}.npy", row[None])
    for index, part in enumerate(np.split(rows, [1, 6, 7])):
        np.savez(tmp_path / "odd" / f"{index}.npz", x=part)
    (tmp_path / "loader.py").write_text(
        "import numpy as np\n"
        f"def load():\n    yield from np.split(np.load({str(tmp_path / 'all.npy')!r}), [2, 9])\n"
    )
    expected = tmp_path / "expected.onnx"
    batches = np.split(rows, [4, 8])
    bnfold.recalibrate(model, expected, data=batches)
    output = tmp_path / "o.onnx"
    for data in ("all.npy", "all.npz", "labelled.npz", "ones", "odd"):
        report = bnfold.recalibrate(model, output, data=tmp_path / data, batch_size=4)
        assert (report.samples, report.batches) == (11, 3)
        assert same(output, expected), data
    loader = f"{tmp_path / 'loader.py'}:load"
    bnfold.recalibrate(model, output, data_loader=loader, batch_size=4)
    assert same(output, expected)
    bnfold.recalibrate(model, output, data_loader=loader)
    assert not same(output, expected)
    bnfold.recalibrate(model, output, data=[rows], samples=7)
    bnfold.recalibrate(model, expected, data=[rows[:7]])
    assert same(output, expected)


def test_large_files_are_read_in_batches(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", draw(150, 3, 4, 4))
    report = bnfold.recalibrate(model, tmp_path / "o.onnx", data=tmp_path / "x.npy")
    assert (report.samples, report.batches) == (150, 3)
    # Where nothing proves that the first axis counts samples, a feed is a batch.
    proto = onnx.load(model)
    proto.graph.node.insert(0, helper.make_node("Transpose", ["x"], ["t"], perm=[2, 1, 0, 3]))
    proto.graph.node[1].input[0] = "t"
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(proto, model)
    report = bnfold.recalibrate(model, tmp_path / "o.onnx", data=tmp_path / "x.npy")
    assert report.batches == 1


def test_a_fixed_number_of_rows(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model_of(ON_THE_INPUT.replace("N,", "2,")), path)
    np.save(tmp_path / "x.npy", draw(6, 3, 4, 4))
    result = run(path, "-o", tmp_path / "o.onnx", "--data", tmp_path / "x.npy", "--json")
    summary = json.loads(result.stdout)["summary"]
    assert (summary["samples"], summary["batches"]) == (6, 3)
    result = run(path, "-o", tmp_path / "o.onnx", "--data", tmp_path / "x.npy", "--batch-size", 6)
    assert result.exit_code == 2
    assert "takes exactly 2 samples at a time, not 6" in result.stderr


@pytest.fixture
def images(tmp_path: Path) -> Path:
    pillow = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for index in range(9):
        folder = tmp_path / "images" / f"class{index % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (20 + index, 24, 3), np.uint8)
        pillow.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "images"


def test_images(model: Path, tmp_path: Path, images: Path, run: Run) -> None:
    pillow = pytest.importorskip("PIL.Image")
    settings = "resize=16,crop=12,mean=0.5:0.4:0.3,std=0.2:0.3:0.4"
    output = tmp_path / "o.onnx"
    result = run(model, "-o", output, "--data", images, "--preprocess", settings, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["summary"]["samples"] == 9

    def read(path: Path) -> np.ndarray:
        image = pillow.open(path)
        width, height = image.size
        short = min(width, height)
        image = image.resize((round(width * 16 / short), round(height * 16 / short)), 2)
        left, top = (image.width - 12) // 2, (image.height - 12) // 2
        pixels = np.asarray(image)[top : top + 12, left : left + 12] / 255
        return ((pixels - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]).transpose(2, 0, 1)

    rows = np.stack([read(path) for path in images.rglob("*.png")])
    mean, var = stored(output)["a"]
    np.testing.assert_allclose(mean, rows.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(var, rows.var((0, 2, 3), ddof=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (None, "bring all images to one size"),
        ("resize=16,crop=90", "smaller than the crop"),
        ("resize=big", "'resize=big' is not understood"),
        ("crop=0", "'crop=0' is not understood"),
        ("imagnet", "'imagnet' is not understood"),
        ("std=0", "'std=0' is not understood"),
        ("color=gray", "takes 3 channels where gray images have 1"),
        ("resize=8,crop=8,mean=0:1", "one number, or one for each channel"),
    ],
)
def test_images_that_do_not_fit(
    model: Path, tmp_path: Path, images: Path, run: Run, settings: str | None, says: str
) -> None:
    options = [] if settings is None else ["--preprocess", settings]
    result = run(model, "-o", tmp_path / "o.onnx", "--data", images, *options)
    assert result.exit_code == 2
    assert says in result.stderr
    assert not (tmp_path / "o.onnx").exists()


# --- what is written


def test_only_statistics_and_a_line_of_provenance_change(tmp_path: Path) -> None:
    before = hashlib.sha256(DIGITS.read_bytes()).digest()
    bnfold.recalibrate(DIGITS, tmp_path / "o.onnx", data=HELDOUT)
    assert hashlib.sha256(DIGITS.read_bytes()).digest() == before
    old, new = onnx.load(DIGITS), onnx.load(tmp_path / "o.onnx")
    (entry,) = new.metadata_props
    assert entry.key == "pkg.bnfold.recalibrated"
    assert "precise, unbiased variance over samples, momentum 1, 450 samples" in entry.value
    del new.metadata_props[:]
    changed = []
    for mine, theirs in zip(old.graph.initializer, new.graph.initializer, strict=True):
        if mine != theirs:
            changed.append(mine.name)
            mine.CopyFrom(theirs)
    assert changed == [f"bn{i}.running_{kind}" for i in (1, 2, 3) for kind in ("mean", "var")]
    assert old == new
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.onnx"]


def test_external_data_and_constants_as_nodes(tmp_path: Path) -> None:
    rows = draw(11, 3, 5, 5, mean=2)
    proto = model_of(TWO_IN_A_ROW)
    onnx.save(proto, tmp_path / "m.onnx")
    bnfold.recalibrate(tmp_path / "m.onnx", tmp_path / "o.onnx", data=[rows])
    expected = stored(tmp_path / "o.onnx")
    onnx.save(
        proto, tmp_path / "e.onnx", save_as_external_data=True, location="e.bin", size_threshold=0
    )
    bnfold.recalibrate(tmp_path / "e.onnx", tmp_path / "o.onnx", data=[rows])
    for output, pair in stored(tmp_path / "o.onnx").items():
        np.testing.assert_array_equal(pair, expected[output])
    proto = model_of(TWO_IN_A_ROW)
    nodes = [
        helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in proto.graph.initializer
    ]
    del proto.graph.initializer[:]
    for node in reversed(nodes):
        proto.graph.node.insert(0, node)
    onnx.save(proto, tmp_path / "c.onnx")
    bnfold.recalibrate(tmp_path / "c.onnx", tmp_path / "o.onnx", data=[rows])
    graph = onnx.load(tmp_path / "o.onnx").graph
    onnx.checker.check_model(tmp_path / "o.onnx")
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            for name, right in zip(node.input[3:], expected[node.output[0]], strict=True):
                np.testing.assert_array_equal(values[name], right)


@pytest.mark.parametrize(("ir", "opset"), [(3, 8), (4, 9), (8, 17)])
@pytest.mark.parametrize("merged", [False, True])
def test_initializers_that_are_inputs_stay_inputs(
    tmp_path: Path, ir: int, opset: int, *, merged: bool
) -> None:
    proto = model_of(TWO_IN_A_ROW, ir=ir, opset=opset)
    if merged:
        proto.graph.node[3].input[3] = "m1"
    for tensor in proto.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        proto.graph.input.append(info)
    onnx.save(proto, tmp_path / "m.onnx")
    bnfold.recalibrate(tmp_path / "m.onnx", tmp_path / "o.onnx", data=[draw(11, 3, 5, 5)])
    new = onnx.load(tmp_path / "o.onnx")
    onnx.checker.check_model(new)
    assert new.ir_version == ir
    if not merged:
        assert new.graph.input == proto.graph.input
        assert not np.array_equal(stored(tmp_path / "o.onnx")["a"][0], np.zeros(3))
    feeds = {"x": draw(4, 3, 5, 5)}
    session = ort.InferenceSession(new.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.isfinite(session.run(None, feeds)[0]).all()


IN_A_BODY = """g (bool c, float[N,3,H,W] x) => (float[N,3,H,W] z)
<float[3] g1, float[3] b1, float[3] m1, float[3] v1,
 float[3] g2, float[3] b2, float[3] m2, float[3] v2>
{
    y = BatchNormalization (x, g1, b1, m1, v1)
    z = If (c) <then_branch = t () => (float[N,3,H,W] p) {
        p = BatchNormalization (y, g2, b2, m2, v2)
    }, else_branch = e () => (float[N,3,H,W] q) { q = Identity (y) }>
}"""


def test_bodies_keep_their_statistics_and_are_told(tmp_path: Path, run: Run) -> None:
    onnx.save(model_of(IN_A_BODY), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=draw(8, 3, 4, 4), c=np.array(1, bool))
    result = run(tmp_path / "m.onnx", "-o", tmp_path / "o.onnx", "--data", tmp_path / "x.npz")
    assert result.exit_code == 0, result.stderr
    assert "1 of 2 renewed" in result.stderr
    assert "subgraph" in result.stderr


IN_A_FUNCTION = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
g (float[N,3,H,W] x) => (float[N,3,H,W] z)
<float[3] g1 = {1, 2, 3}, float[3] b1 = {0, 0, 1}, float[3] m1 = {1, 0, 0}, float[3] v1 = {1, 2, 1}>
{
    y = BatchNormalization (x, g1, b1, m1, v1)
    i = Identity (m1)
    w = BatchNormalization (y, g1, b1, i, v1)
    z = local.norm (w, g1, b1, m1, v1)
}
<opset_import: ["" : 17], domain: "local">
norm (x, g, b, m, v) => (y) { y = BatchNormalization (x, g, b, m, v) }"""


def test_functions_keep_theirs_and_shared_constants_stay_for_others(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(IN_A_FUNCTION)
    onnx.save(proto, tmp_path / "m.onnx")
    report = bnfold.recalibrate(tmp_path / "m.onnx", tmp_path / "o.onnx", data=[draw(8, 3, 4, 4)])
    new = onnx.load(tmp_path / "o.onnx")
    onnx.checker.check_model(new, full_check=True)
    assert [norm.reason for norm in report.kept] == ["function"]
    assert sorted(norm.name for norm in report.norms) == ["w", "y"]
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in new.graph.initializer}
    np.testing.assert_array_equal(values["m1"], [1, 0, 0])
    np.testing.assert_array_equal(values["v1"], [1, 2, 1])
    assert list(new.graph.node[-1].input) == ["w", "g1", "b1", "m1", "v1"]
    means = [node.input[3] for node in new.graph.node if node.op_type == "BatchNormalization"]
    assert len(set(means)) == 2
    assert "m1" not in means


def test_report_progress_and_provider(model: Path, tmp_path: Path, run: Run) -> None:
    np.save(tmp_path / "x.npy", draw(150, 3, 4, 4))
    command = (model, "-o", tmp_path / "o.onnx", "--data", tmp_path / "x.npy")
    result = run(*command, "--report", tmp_path / "r.json", "--json", "-v", "--momentum", 0.5)
    assert result.exit_code == 0, result.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert report == json.loads(result.stdout)
    assert (report["schema_version"], report["momentum"]) == (1, 0.5)
    assert [norm["name"] for norm in report["norms"]] in (["a", "y"], ["y", "a"])
    assert run(*command, "--report", tmp_path / "r.txt").exit_code == 2
    steps: list[Any] = []
    bnfold.recalibrate(
        model, tmp_path / "o.onnx", data=tmp_path / "x.npy", mode="sequential",
        progress=steps.append,
    )  # fmt: skip
    counted = [(step.done, step.total) for step in steps if getattr(step, "total", None)]
    assert counted == [(done, 300) for done in (64, 128, 150, 214, 278, 300)]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        result = run(*command, "--provider", "cuda")
        assert result.exit_code == 4
        assert "CUDAExecutionProvider is not available" in result.stderr


# --- interruption

SLOW = """
import sys, time
import numpy as np
def load():
    rng = np.random.default_rng(3)
    for index in range(12):
        yield rng.normal(size=(5, 3, 6, 6)).astype(np.float32)
        time.sleep({delay})
"""


@pytest.mark.parametrize("mode", ["precise", "sequential"])
def test_an_interrupted_run_goes_on(model: Path, tmp_path: Path, mode: str) -> None:
    loader = tmp_path / "loader.py"
    loader.write_text(SLOW.format(delay=0))
    options = ["--mode", mode, "--data-loader", f"{loader}:load"]
    expected, output = tmp_path / "expected.onnx", tmp_path / "o.onnx"
    assert CliRunner().invoke(main, [
        "recalibrate", str(model), "-o", str(expected), *options]).exit_code == 0  # fmt: skip
    loader.write_text(SLOW.format(delay=0.2))
    command = [sys.executable, "-m", "bnfold", "recalibrate", str(model), "-o", str(output)]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    state = tmp_path / "o.onnx.statistics.npz"
    while not state.exists() or json.loads(str(np.load(state)["about"]))["batches"] < 3:
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume goes on from it" in said
    assert not output.exists()
    loader.write_text(SLOW.format(delay=0))
    seen: list[str] = []
    bnfold.recalibrate(
        model,
        output,
        data_loader=f"{loader}:load",
        mode=mode,
        resume=True,
        progress=seen.append,
    )
    assert same(output, expected)
    assert not state.exists()
    told = [step for step in seen if "samples" in step]
    assert len(told) < 12 * (2 if mode == "sequential" else 1)


class StoppedError(BaseException):
    pass


def test_a_state_that_does_not_belong_is_refused(model: Path, tmp_path: Path, run: Run) -> None:
    rows = draw(12, 3, 4, 4)
    output, data = tmp_path / "o.onnx", tmp_path / "x.npy"
    np.save(data, rows)
    command = (model, "-o", output, "--data", data, "--batch-size", 4)
    state = tmp_path / "o.onnx.statistics.npz"

    def stop(step: str) -> None:
        if "8 samples" in step:
            raise StoppedError

    with pytest.raises(StoppedError):
        bnfold.recalibrate(model, output, data=data, batch_size=4, progress=stop)
    kept = state.read_bytes()
    result = run(*command, "--resume", "--mode", "sequential")
    assert result.exit_code == 2
    assert "the state of another recalibration" in result.stderr
    np.save(data, rows + 1)
    result = run(*command, "--resume")
    assert result.exit_code == 2
    assert "the data is not what it was" in result.stderr
    assert state.read_bytes() == kept
    with np.load(state) as file:
        arrays = dict(file)
    for about in ("[]", "{}", '{"identity": 1, "level": "x"}'):
        np.savez(state, **(arrays | {"about": np.array(about)}))
        assert "not readable as the state" in run(*command, "--resume").stderr
    state.write_bytes(b"nonsense")
    assert "not readable as the state" in run(*command, "--resume").stderr
    assert run(*command).exit_code == 0
    assert not state.exists()


# --- memory

PEAK = """
import sys, bnfold
from pathlib import Path
bnfold.recalibrate(sys.argv[1], sys.argv[2], data=sys.argv[3], batch_size=32)
from bnfold.isolation import process
for pid in ("self", process._worker._process.pid):
    status = Path(f"/proc/{pid}/status").read_text()
    print(status.split("VmHWM:")[1].split()[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_memory_does_not_grow_with_the_samples(model: Path, tmp_path: Path, kind: str) -> None:
    """Six times the samples, 125 MB more of them: next to nothing of that in either process."""
    peaks = []
    for count in (256, 1536):
        rows = draw(count, 3, 90, 90)
        data = tmp_path / f"x.{kind}"
        if kind == "npy":
            np.save(data, rows)
        else:
            np.savez(data, x=rows)
        arguments = [str(model), str(tmp_path / "o.onnx"), str(data)]
        command = [sys.executable, "-c", PEAK, *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append([int(number) // 1024 for number in result.stdout.split()])
    growth = np.subtract(*peaks[::-1])
    assert growth.max() < 12, peaks


LAYOUTS = """g ({kind}[N,H,W,3] x) => (float[N,3,H,W] y)
<float[3] g1, float[3] b1, float[3] m1, float[3] v1>
{{
    f = Cast <to = 1> (x)
    t = Transpose <perm = [0, 3, 1, 2]> (f)
    y = BatchNormalization (t, g1, b1, m1, v1)
}}"""


@pytest.mark.parametrize(
    ("kind", "settings", "scale"),
    [
        ("uint8", "layout=nhwc,resize=8x6", 1),
        ("float", "layout=nhwc,resize=8x6,range=255", 1),
        ("float", "layout=nhwc,resize=8x6,color=bgr", 1 / 255),
    ],
)
def test_layout_color_and_range(
    tmp_path: Path, images: Path, kind: str, settings: str, scale: float
) -> None:
    pillow = pytest.importorskip("PIL.Image")
    onnx.save(model_of(LAYOUTS.format(kind=kind)), tmp_path / "m.onnx")
    bnfold.recalibrate(
        tmp_path / "m.onnx", tmp_path / "o.onnx", data=images, preprocess=settings, samples=9
    )
    rows = np.stack(
        [np.asarray(pillow.open(path).resize((8, 6), 2)) for path in images.rglob("*.png")]
    )
    mean = rows.mean((0, 1, 2)) * scale
    found = stored(tmp_path / "o.onnx")["y"][0]
    np.testing.assert_allclose(found, mean[::-1] if "bgr" in settings else mean, rtol=1e-5)
