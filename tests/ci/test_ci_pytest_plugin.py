"""The pytest plugin: its fixture, its items, and that it is harmless otherwise."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold

# What a run in this process imports first, pytester takes out of sys.modules after it.
import bnfold.check.request
import bnfold.cli.check_tables
import bnfold.pipeline

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[2]
STRICT = ("-W", "error", "--strict-config", "--strict-markers", "-p", "no:cacheprovider")


@pytest.fixture
def models(pytester: pytest.Pytester) -> Path:
    """A folder with one model, which is not folded."""
    folder = pytester.mkdir("models")
    shutil.copy(ROOT / "models" / "digits.onnx", folder / "digits.onnx")
    return folder


def spoil(file: Path) -> None:
    model = onnx.load(file)
    bias = next(each for each in model.graph.initializer if each.name == "fc2.bias")
    values = numpy_helper.to_array(bias) + np.float32(0.01)
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    onnx.save(model, file)


def test_it_is_an_entry_point() -> None:
    (found,) = entry_points(group="pytest11", name="bnfold")
    assert found.value == "bnfold.pytest_plugin"


def test_items_of_a_model_that_is_not_folded(pytester: pytest.Pytester, models: Path) -> None:
    result = pytester.runpytest(*STRICT, "--bnfold", models)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "digits.onnx: 3 site(s) would fold:",
            "  /bn1/BatchNormalization (BatchNormalization)",
            "hint: bnfold optimize '*models/digits.onnx' --in-place",
            "FAILED models/digits.onnx::folded*",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_node_ids_select(pytester: pytest.Pytester, models: Path) -> None:
    result = pytester.runpytest("--bnfold", "--collect-only", "-q", models)
    assert result.outlines[:2] == ["models/digits.onnx::folded", "models/digits.onnx::equivalent"]
    result = pytester.runpytest("--bnfold", "models/digits.onnx::folded")
    result.assert_outcomes(failed=1)
    result = pytester.runpytest("--bnfold", "-k", "folded and digits", models)
    result.assert_outcomes(failed=1, deselected=1)


def test_a_folded_model_passes(pytester: pytest.Pytester, models: Path) -> None:
    bnfold.optimize(models / "digits.onnx", in_place=True)
    pytester.runpytest(*STRICT, "--bnfold", models).assert_outcomes(passed=2)


def test_a_folded_model_beside_its_original(pytester: pytest.Pytester, models: Path) -> None:
    bnfold.optimize(models / "digits.onnx")
    spoil(models / "digits.folded.onnx")
    result = pytester.runpytest("--bnfold", models)
    result.assert_outcomes(passed=1, failed=1, skipped=2)
    result.stdout.fnmatch_lines(["*logits*DIFFERENT*"])


def test_sites_that_may_stay(pytester: pytest.Pytester, models: Path) -> None:
    pytester.makeini("[pytest]\nbnfold_keep =\n    /bn[12]/*\n    /bn3/*\n")
    result = pytester.runpytest(*STRICT, "--bnfold", "-k", "folded", models)
    result.assert_outcomes(passed=1, deselected=1)


def test_sizes_count_for_the_models_that_have_them(pytester: pytest.Pytester, models: Path) -> None:
    sizes = ("--bnfold-dim=N=3", "--bnfold-dim=other=7", "-k", "equivalent")
    pytester.runpytest("--bnfold", *sizes, models).assert_outcomes(passed=1, deselected=1)
    result = pytester.runpytest("--bnfold", "--bnfold-dim=N=many", models)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: bnfold: 'N=many' is not a dimension such as 'N=4'"])


def test_a_provider_that_is_missing_is_no_pass(pytester: pytest.Pytester, models: Path) -> None:
    result = pytester.runpytest("--bnfold", "--bnfold-provider=nothing", models)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["error: *nothing*", "hint: *"])


def test_a_file_that_is_no_model(pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("a b.onnx").write_bytes(b"nothing")
    result = pytester.runpytest("--bnfold")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["error: *a b.onnx: *"])


def test_without_the_option_models_are_no_tests(pytester: pytest.Pytester, models: Path) -> None:
    result = pytester.runpytest(*STRICT, models)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_the_fixture(pytester: pytest.Pytester, models: Path) -> None:
    shutil.copy(models / "digits.onnx", models / "wrong.onnx")
    spoil(models / "wrong.onnx")
    pytester.makepyfile(
        """
        import onnx
        import pytest

        def test_same(bnfold_check):
            model = onnx.load("models/digits.onnx")
            (as_written, deployed) = bnfold_check("models/digits.onnx", model, dims={"N": 2})
            assert as_written.equivalent

        def test_different(bnfold_check):
            bnfold_check("models/digits.onnx", "models/wrong.onnx")

        def test_assertion(bnfold_check):
            with pytest.raises(AssertionError, match="DIFFERENT"):
                bnfold_check("models/digits.onnx", "models/wrong.onnx", samples=1)

        def test_provider(bnfold_check):
            bnfold_check("models/digits.onnx", "models/digits.onnx", providers="nothing")
        """
    )
    result = pytester.runpytest(*STRICT)
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            ">*bnfold_check(*wrong.onnx*",
            "E*AssertionError: models/digits.onnx and models/wrong.onnx*",
            "E*logits*DIFFERENT*",
            ">*bnfold_check(*nothing*",
            "E*InputError: unknown provider 'nothing'",
            "E*hint: *",
        ]
    )
    result.stdout.no_fnmatch_line("*run_isolated*")


def test_workers_share_the_models(pytester: pytest.Pytester, models: Path) -> None:
    pytest.importorskip("xdist", reason="workers are pytest-xdist's")
    shutil.copy(models / "digits.onnx", models / "more.onnx")
    result = pytester.runpytest_subprocess("--bnfold", "-n2", "-k", "folded", models)
    result.assert_outcomes(failed=2)


def test_installed_it_costs_nothing_until_it_is_asked(tmp_path: Path) -> None:
    (tmp_path / "test_heavy.py").write_text(
        "import sys\n"
        "def test_heavy(request):\n"
        "    assert request.config.pluginmanager.hasplugin('bnfold')\n"
        "    assert not {'numpy', 'onnx', 'onnxruntime', 'rich', 'click'} & set(sys.modules)\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "pytest", "-q", *STRICT, "-p", "no:xdist"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout
