"""What is wrong with the packages that are installed."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

from bnfold.doctor.diagnosis import Package, Problem, Severity
from bnfold.doctor.installed import Installed
from bnfold.doctor.machine import Machine
from bnfold.doctor.needs import CORE, fits, python_range, unmet
from bnfold.doctor.repairs import install, uninstall
from bnfold.doctor.trials import Imported

__all__ = [
    "builds_problems",
    "machine_problems",
    "package_problems",
    "place_problems",
    "program_problems",
    "python_problems",
]

_LITTLE = 1_000_000_000
"""Bytes of memory, or of disk for temporary files, below which large models do not fit."""

_MAIN_JOB = frozenset({CORE, "cpu", "gpu"})


def python_problems() -> Iterator[Problem]:
    """Yield what is wrong with the interpreter."""
    wanted, version = python_range(), platform.python_version()
    if fits(wanted, version) is False:
        yield Problem(
            Severity.ERROR,
            f"Python {version} is too old or too new: bnfold needs {wanted}",
            "make a virtual environment with such a Python, and install bnfold there",
        )
    if fits("", "1") is None:
        yield Problem(
            Severity.WARNING,
            "whether the versions of packages fit cannot be told without the package 'packaging'",
            install("packaging"),
        )


def machine_problems(machine: Machine) -> Iterator[Problem]:
    """Yield what is wrong with the computer."""
    if machine.temporary is None:
        yield Problem(
            Severity.ERROR,
            "there is no folder for temporary files that can be written",
            "set TMPDIR to a folder that can be written",
        )
    elif machine.free is not None and machine.free < _LITTLE:
        yield Problem(
            Severity.WARNING,
            f"{machine.temporary} has {machine.free // 1_000_000} MB left for temporary files",
            "free some of it, or set TMPDIR to a larger disk",
        )
    if machine.available is not None and machine.available < _LITTLE:
        yield Problem(
            Severity.WARNING,
            f"{machine.available // 1_000_000} MB of memory are left",
            "close other programs before large models",
        )


def package_problems(package: Package, imported: Imported | None) -> Iterator[Problem]:
    """Yield what is wrong with one package that bnfold can use."""
    matters = bool(_MAIN_JOB.intersection(package.by))
    severity = Severity.ERROR if matters else Severity.WARNING
    wanted = f"{package.name}{package.needed}"
    if package.installed is None:
        if CORE in package.by:
            yield Problem(severity, f"{package.name} is not installed", install(wanted))
        return
    label = f"{package.name} {package.installed}"
    if package.fits is False:
        yield Problem(severity, f"{label} is not {package.needed}", install(wanted))
    if imported is not None and imported.error is not None:
        again = install(f"{package.name}=={package.installed}", afresh=True)
        yield Problem(severity, f"{label} cannot be imported: {imported.error}", again)
    for requirement, version in unmet(package.name):
        there = f"and {version} is installed" if version else "which is not installed"
        yield Problem(
            Severity.WARNING, f"{label} needs {requirement}, {there}", install(requirement)
        )


def place_problems(
    name: str, installations: Sequence[Installed], imported: Imported | None
) -> Iterator[Problem]:
    """Yield what is wrong with where a package is found.

    Args:
        name: Normalized name.
        installations: All that there are of it, the one that is imported first.
        imported: What came of importing it.
    """
    first = installations[0]
    if len(installations) > 1:
        places = ", ".join(f"{each.version} in {each.folder}" for each in installations)
        yield Problem(
            Severity.WARNING,
            f"{name} is installed {len(installations)} times: {places}",
            _without(name, installations),
        )
    if imported is None or imported.file is None or first.is_editable:
        return
    if not any(_is_beneath(imported.file, each.folder) for each in installations):
        yield Problem(
            Severity.ERROR,
            f"'import {imported.module}' finds {imported.file}, not {name} in {first.folder}",
            f"rename {imported.file}, or take its folder off PYTHONPATH",
        )
    elif imported.version and fits(f"=={_release(first.version)}", imported.version) is False:
        yield Problem(
            Severity.WARNING,
            f"{name} says that it is {imported.version}, and its metadata {first.version}: "
            "two versions are mixed",
            install(f"{name}=={first.version}", afresh=True),
        )


def builds_problems(builds: Sequence[str]) -> Iterator[Problem]:
    """Yield what is wrong if several builds of ONNX Runtime share its directory."""
    if len(builds) > 1:
        extra = "gpu" if "onnxruntime-gpu" in builds else "cpu"
        yield Problem(
            Severity.ERROR,
            f"{' and '.join(builds)} are both installed and overwrite each other",
            f"{uninstall(*builds)} && {install(f'bnfold[{extra}]')}",
        )


def program_problems(own: str, found: Sequence[str]) -> Iterator[Problem]:
    """Yield what is wrong with the programs ``bnfold`` that a shell finds.

    Args:
        own: The one of this environment.
        found: Those on the path, the one that a shell takes first.
    """
    others = [path for path in found if os.path.realpath(path) != os.path.realpath(own)]
    if others and Path(own).is_file() and found[0] == others[0]:
        yield Problem(
            Severity.WARNING,
            f"a shell takes {found[0]} for bnfold, not {own}",
            f"put {Path(own).parent} first on PATH, or call {own}",
        )


def _without(name: str, installations: Sequence[Installed]) -> str:
    """Return how to get rid of all installations of a package but one."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    folders = {each.folder for each in installations}
    strangers = [path for path in paths if path and str(Path(path)) in map(str, map(Path, folders))]
    if strangers and len(folders) > 1:
        return f"take {', '.join(strangers)} off PYTHONPATH"
    again = install(f"{name}=={installations[0].version}")
    return " && ".join([uninstall(name)] * len(installations) + [again])


def _is_beneath(file: str, folder: str) -> bool:
    return Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder))


def _release(version: str) -> str:
    """Return a version without the name of its build."""
    return version.partition("+")[0]
