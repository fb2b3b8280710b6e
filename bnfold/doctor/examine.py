"""The examination: everything is looked at, and what follows from it."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import bnfold
from bnfold.doctor.diagnosis import Diagnosis, Package, Problem, Provider, Severity
from bnfold.doctor.installed import (
    BUILDS,
    Installed,
    installed,
    modules_of,
    programs,
    runtime_builds,
)
from bnfold.doctor.machine import machine
from bnfold.doctor.needs import CORE, Need, fits, needs
from bnfold.doctor.problems import (
    builds_problems,
    machine_problems,
    package_problems,
    place_problems,
    program_problems,
    python_problems,
)
from bnfold.doctor.repairs import install, uninstall
from bnfold.doctor.trials import Imported, find_runtime, try_imports, try_provider
from bnfold.errors import ProviderError
from bnfold.progress import Progress

__all__ = ["examine"]

_SUFFIX = "executionprovider"


def examine(providers: Sequence[str] = ("cpu",), progress: Progress = lambda _: None) -> Diagnosis:
    """Look at the installation and the machine.

    Packages are imported and providers run a model, in child processes.

    Args:
        providers: Those without which the main job does not work, as a user names them.
        progress: Called with what is being done.

    Raises:
        InputError: No runtime has such a provider.
    """
    computer = machine()
    can_try = computer.temporary is not None  # child processes need such a folder
    problems = [*machine_problems(computer)]
    progress("reading the metadata of packages")
    owners = importlib.metadata.packages_distributions()
    builds = runtime_builds(owners)
    wanted = _needs(builds, problems)
    there = installed([CORE, *(need.name for need in wanted)])
    imported = _imported(there, owners, progress) if can_try else {}
    packages = [_package(need, there, imported, builds) for need in wanted]
    for package in packages:
        problems += package_problems(package, imported.get(package.name))
    for name, installations in there.items():
        problems += place_problems(name, installations, imported.get(name))
    problems += builds_problems(builds)
    problems += program_problems(*programs(CORE))
    found: tuple[Provider, ...] = ()
    if can_try and len(builds) < 2:
        found = _providers(providers, builds, problems, progress)
    return Diagnosis(
        platform.python_version(),
        sys.executable,
        tuple(packages),
        found,
        tuple(sorted(dict.fromkeys(problems), key=_gravity)),
        computer,
    )


def _needs(builds: Sequence[str], problems: list[Problem]) -> list[Need]:
    """Return what bnfold needs; note what is wrong if that is not known."""
    try:
        found = needs()
        problems += python_problems()
    except importlib.metadata.PackageNotFoundError:
        sources = Path(bnfold.__file__).parents[1]
        problems.append(
            Problem(
                Severity.WARNING,
                f"bnfold runs from {sources} and is not installed: what it needs is not known",
                install("-e", f"{sources}[{'gpu' if 'onnxruntime-gpu' in builds else 'cpu'}]"),
            )
        )
        return []
    return found


def _imported(
    there: Mapping[str, Sequence[Installed]],
    owners: Mapping[str, list[str]],
    progress: Progress,
) -> dict[str, Imported]:
    """Import the packages that are there; return what came of it, by the name of the package."""
    modules = {name: modules_of(name, owners) for name in there}
    tried = try_imports(tuple(dict.fromkeys(modules.values())), progress)
    by_module = {each.module: each for each in tried}
    return {name: by_module[module] for name, module in modules.items()}


def _package(
    need: Need,
    there: Mapping[str, Sequence[Installed]],
    imported: Mapping[str, Imported],
    builds: Sequence[str],
) -> Package:
    if need.name not in there:
        is_extra = need.by[0] in importlib.metadata.metadata(CORE).get_all("Provides-Extra", [])
        repair = install(f"bnfold[{need.by[0]}]" if is_extra else f"{need.name}{need.specifier}")
        if builds and need.name in BUILDS:
            repair = f"{uninstall(*builds)} && {repair}"
        return Package(need.name, need.specifier, need.by, None, None, None, repair)
    version = there[need.name][0].version
    trial = imported.get(need.name)
    works = None if trial is None else trial.error is None
    return Package(
        need.name, need.specifier, need.by, version, fits(need.specifier, version), works, None
    )


def _providers(
    asked: Sequence[str], builds: Sequence[str], problems: list[Problem], progress: Progress
) -> tuple[Provider, ...]:
    """Try the providers that are asked for and those that the runtime has; note what fails."""
    progress("loading ONNX Runtime")
    try:
        runtime = find_runtime()
    except ProviderError as error:
        repair = install(*builds, afresh=True) if builds else install("bnfold[cpu]")
        problems.append(Problem(Severity.ERROR, error.message, repair))
        return ()
    covered = {_short(name) for name in asked}
    others = [name for name in runtime.providers if _short(name) not in covered]
    found = []
    for name in (*dict.fromkeys(asked), *others):
        progress(f"starting {name}")
        tried = try_provider(name)
        is_needed = name in asked
        if is_needed and tried.problem is not None:
            message = f"the provider '{name}' cannot be used: {tried.problem}"
            problems.append(Problem(Severity.ERROR, message, tried.hint or install("bnfold[cpu]")))
        usable = tried.problem is None
        found.append(Provider(tried.provider, is_needed, usable, tried.problem, tried.hint))
    return tuple(found)


def _short(provider: str) -> str:
    return provider.partition(":")[0].lower().removesuffix(_SUFFIX)


def _gravity(problem: Problem) -> bool:
    return problem.severity is not Severity.ERROR
