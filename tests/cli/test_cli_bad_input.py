"""Bad input: exit code 2, one line of error, one hint, no traceback, nothing written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from click.testing import Result

Run = Callable[..., Result]


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def snapshot(directory: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


def assert_refused(result: Result, *, said: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 2, result.stderr
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert lines[1].startswith("hint: ")


def external(directory: Path, digits: Path) -> Path:
    path = directory / "external.onnx"
    onnx.save(
        onnx.load(digits), path, save_as_external_data=True, location="weights", size_threshold=0
    )
    return path


def empty_directory(directory: Path, _: Path) -> Path:
    path = directory / "empty"
    path.mkdir()
    return path


def missing_data(directory: Path, digits: Path) -> Path:
    path = external(directory, digits)
    (directory / "weights").unlink()
    return path


def outside_data(directory: Path, digits: Path) -> Path:
    path = external(directory, digits)
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../weights"
    onnx.save(proto, path)
    return path


def of_bytes(content: Callable[[bytes], bytes]) -> Callable[[Path, Path], Path]:
    def make(directory: Path, digits: Path) -> Path:
        path = directory / "bad.onnx"
        path.write_bytes(content(digits.read_bytes()))
        return path

    return make


MODELS: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "missing": (lambda directory, _: directory / "missing.onnx", "no such file"),
    "directory": (empty_directory, "directory"),
    "empty": (of_bytes(lambda _: b""), "empty"),
    "lfs pointer": (of_bytes(lambda _: LFS_POINTER), "Git LFS pointer"),
    "text": (of_bytes(lambda _: b"hello, world\n" * 9), "not an ONNX model"),
    "zeros": (of_bytes(lambda _: bytes(4096)), "not an ONNX model"),
    "truncated": (of_bytes(lambda whole: whole[: len(whole) // 2]), "bad.onnx"),
    "missing external data": (missing_data, "weights"),
    "external data outside": (outside_data, "../weights"),
}


@pytest.mark.parametrize("verb", ["optimize", "inspect"])
@pytest.mark.parametrize(("make", "said"), MODELS.values(), ids=MODELS)
def test_unreadable_model(
    run: Run,
    digits: Path,
    tmp_path: Path,
    verb: str,
    make: Callable[[Path, Path], Path],
    said: str,
) -> None:
    model = make(tmp_path, digits)
    before = snapshot(tmp_path)
    assert_refused(run(verb, model), said=said)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(("make", "said"), MODELS.values(), ids=MODELS)
def test_check_of_an_unreadable_reference(
    run: Run, digits: Path, tmp_path: Path, make: Callable[[Path, Path], Path], said: str
) -> None:
    assert_refused(run("check", make(tmp_path, digits), digits), said=said)


TARGETS: dict[str, tuple[list[str], str]] = {
    "output is the input": (["-o", "{model}"], "the output is the input"),
    "output is the input by another path": (
        ["-o", "{directory}/../{directory.name}/digits.onnx"],
        "the output is the input",
    ),
    "output dir of the input": (["--output-dir", "{directory}"], "the output is the input"),
    "output is a directory": (["-o", "{directory}"], "directory"),
    "output in a missing directory": (["-o", "{directory}/no/x.onnx"], "does not exist"),
    "output dir is a file": (["--output-dir", "{model}"], "cannot create"),
    "output and in place": (["-o", "x.onnx", "--in-place"], "exclude each other"),
    "output and output dir": (["-o", "x.onnx", "--output-dir", "x"], "exclude each other"),
    "output for several": (["{model}", "-o", "{directory}/x.onnx"], "-o names one file"),
    "one model twice": (["{model}"], "would be written here"),
    "report of another kind": (["--report", "{directory}/r.pdf"], ".json, .md, .xml, .html"),
    "report in a missing directory": (["--report", "{directory}/no/r.json"], "does not exist"),
    "unknown provider": (["--provider", "tpu"], "'tpu'"),
    "unknown option": (["--fold-harder"], "--fold-harder"),
    "no shape": (["--input", "images:1xq"], "'images:1xq' is not a shape"),
    "no sizes": (["--input", "images:1x"], "'images:1x' is not a shape"),
    "negative size": (["--input", "images:-1x1x8x8"], "is not a shape"),
    "shape given twice": (
        ["--input", "images:1x1x8x8", "--input", "images:2x1x8x8"],
        "--input is given twice",
    ),
    "unknown input": (["--input", "nobody:1x1x8x8"], "nobody"),
    "no dimension": (["--dim", "N"], "'N' is not a dimension"),
    "no size": (["--dim", "N=many"], "'N=many' is not a dimension"),
    "rtol alone": (["--rtol", "1e-3"], "--atol"),
    "rtol no number": (["--rtol", "x", "--atol", "1"], "'x'"),
    "seed no number": (["--seed", "x"], "'x'"),
    "missing data": (["--data", "{directory}/no.npz"], "no.npz"),
}


@pytest.mark.parametrize(("arguments", "said"), TARGETS.values(), ids=TARGETS)
def test_unusable_option(run: Run, digits: Path, arguments: list[str], said: str) -> None:
    before = snapshot(digits.parent)
    values = {"model": digits, "directory": digits.parent}
    result = run("optimize", digits, *(argument.format(**values) for argument in arguments))
    assert_refused(result, said=said)
    assert snapshot(digits.parent) == before


def test_output_that_is_external_data_of_the_input(run: Run, digits: Path, tmp_path: Path) -> None:
    model = external(tmp_path, digits)
    before = snapshot(tmp_path)
    assert_refused(run("optimize", model, "-o", tmp_path / "weights"), said="external data")
    assert snapshot(tmp_path) == before


def test_a_link_to_the_input_is_the_input(run: Run, digits: Path) -> None:
    link = digits.with_name("link.onnx")
    link.symlink_to(digits)
    assert_refused(run("optimize", digits, "-o", link), said="the output is the input")


def test_no_arguments(run: Run) -> None:
    result = run()
    assert result.exit_code == 2
    assert "Usage" in result.stderr
    assert_refused(run("optimize"), said="MODEL")


def test_unknown_command(run: Run) -> None:
    assert_refused(run("optimise"), said="optimise")


def test_control_characters_do_not_reach_the_terminal(run: Run, tmp_path: Path) -> None:
    shutil.copy(__file__, tmp_path / "x")
    assert_refused(run("inspect", tmp_path / "a\x1b[31m\nb.onnx"), said="a\\x1b[31m\\nb.onnx")
