"""The public surface: what is in it, and that importing it costs nothing."""

from __future__ import annotations

import importlib
import importlib.resources
import inspect
import subprocess
import sys

import pytest

import bnfold
from bnfold import errors, report
from bnfold.cli import main

PUBLIC = [
    "BnfoldError",
    "CheckReport",
    "FoldBatchNormPass",
    "FoldReport",
    "InputError",
    "MissingPackageError",
    "ModelError",
    "NotEquivalentError",
    "OutputComparison",
    "ProviderError",
    "Reason",
    "RecalibrationReport",
    "Verdict",
    "__version__",
    "bench",
    "check",
    "export",
    "fold",
    "inspect",
    "optimize",
    "recalibrate",
    "torch",
]
VERBS = ["bench", "check", "inspect", "optimize", "recalibrate"]
DEPENDENCIES = {"click", "ml_dtypes", "numpy", "onnx", "onnx_ir", "onnxruntime", "rich", "torch"}


def test_the_public_names() -> None:
    assert bnfold.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(bnfold))
    for name in PUBLIC:
        assert getattr(bnfold, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'bnfold' has no attribute 'unfold'"):
        bnfold.unfold  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("module", [errors, report])
def test_names_come_from_where_they_are_defined(module: object) -> None:
    for name in set(module.__all__) & set(PUBLIC):  # type: ignore[attr-defined]
        assert getattr(bnfold, name) is getattr(module, name)


def test_typed() -> None:
    assert importlib.resources.files(bnfold).joinpath("py.typed").is_file()


@pytest.mark.parametrize("verb", VERBS)
def test_a_subpackage_does_not_hide_the_function_of_its_name(verb: str) -> None:
    if verb == "check":
        importlib.import_module("bnfold.check")
    assert inspect.isfunction(getattr(bnfold, verb))


@pytest.mark.parametrize("verb", VERBS)
def test_each_command_is_the_twin_of_a_function(verb: str) -> None:
    command = main.get_command(None, verb)
    assert command is not None
    options = {parameter.name for parameter in command.params}
    renamed = {"providers": "provider", "check": "prove", "dst": "output", "src": "models"}
    for parameter in inspect.signature(getattr(bnfold, verb)).parameters:
        if parameter not in {"progress", "failing_feed"}:
            assert renamed.get(parameter, parameter) in options


def test_importing_bnfold_imports_none_of_its_dependencies() -> None:
    code = f"import sys, bnfold; print(sorted({DEPENDENCIES} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_reports_and_errors_need_no_dependency_either() -> None:
    code = (
        "import sys, bnfold; bnfold.NotEquivalentError, bnfold.FoldReport\n"
        f"print(sorted({DEPENDENCIES} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"
