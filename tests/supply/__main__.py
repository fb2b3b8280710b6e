"""``python -m tests.supply``: the tests, with the oldest or the newest versions that are allowed.

It makes a virtual environment, installs there the versions that ``pyproject.toml`` names as lower
bounds, or the newest ones, and runs the parts of the suite that need no PyTorch.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXTRAS = ("cpu", "images", "report")
TOOLS = ("pytest", "pytest-xdist", "hypothesis", "jsonschema", "markdown-it-py", "html5lib")
TESTS = (
    "tests/store",
    "tests/cli",
    "tests/graph/test_backward.py",
    "tests/graph/test_forward.py",
    "tests/graph/test_merge.py",
    "tests/graph/test_special.py",
    "tests/check/test_check_data.py",
    "tests/check/test_check_providers.py",
    "tests/check/test_check_verdicts.py",
    "tests/recalibrate/test_recalibrate_files.py",
    "tests/test_affine.py",
    "tests/test_wheel_models.py",
)
# Before onnx 1.23 its reference evaluator pads where auto_pad says VALID, and its checker lets an
# invalid model of that test pass.
NOT_WITH_OLD = (
    "tests/graph/test_merge.py::test_merged[valid]",
    "tests/check/test_check_verdicts.py::test_reference_evaluator_refuses_an_invalid_candidate",
)


def requirements() -> list[str]:
    """Return what the package and its light extras require."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *(each for name in EXTRAS for each in extras[name])]


def oldest(requirement: str) -> str:
    """Return a requirement for the lower bound of another one."""
    name, version = re.match(r"([\w-]+)>=([\w.]+)", requirement).groups()  # type: ignore[union-attr]
    return f"{name}=={version}"


def main() -> int:
    """Run what the arguments ask for; return the exit code of pytest."""
    parser = argparse.ArgumentParser(prog="python -m tests.supply", description=__doc__)
    parser.add_argument("versions", choices=["oldest", "newest"])
    parser.add_argument("--python", default=sys.executable, help="interpreter to use")
    parser.add_argument("tests", nargs="*", default=TESTS, help="default: what needs no PyTorch")
    arguments = parser.parse_args()
    wanted, left_out = requirements(), ()
    if arguments.versions == "oldest":
        wanted, left_out = [oldest(each) for each in wanted], NOT_WITH_OLD
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([arguments.python, "-m", "venv", place], check=True)
        python = Path(place, "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "-q", *wanted, *TOOLS], check=True)
        subprocess.run([python, "-m", "pip", "freeze"], check=True)
        return subprocess.run(
            [python, "-m", "pytest", "-p", "no:cacheprovider", *arguments.tests]
            + [part for each in left_out for part in ("--deselect", each)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
