"""What is installed, as the metadata of the packages say."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bnfold.doctor.needs import normalized

__all__ = ["BUILDS", "Installed", "installed", "modules_of", "programs", "runtime_builds"]

BUILDS = ("onnxruntime", "onnxruntime-gpu")
"""Packages that own the directory of ONNX Runtime, and that bnfold has an extra for."""


@dataclass(frozen=True)
class Installed:
    """One installation of a package.

    Attributes:
        name: Normalized name.
        version: As its metadata says.
        folder: Where its modules lie.
        is_editable: True if the folder has no more than a link to them.
    """

    name: str
    version: str
    folder: str
    is_editable: bool = False


def installed(names: Iterable[str]) -> dict[str, list[Installed]]:
    """Return the installations of packages by normalized name, the one that is imported first."""
    wanted = set(names)
    found: dict[str, list[Installed]] = defaultdict(list)
    seen = set()
    for distribution in importlib.metadata.distributions():
        name = normalized(_name(distribution))
        place = str(distribution.locate_file(""))
        record = os.path.realpath(getattr(distribution, "_path", place))
        if name in wanted and record not in seen:
            seen.add(record)
            found[name].append(
                Installed(name, distribution.version or "", place, _is_editable(distribution))
            )
    return dict(found)


def modules_of(name: str, packages: Mapping[str, list[str]] | None = None) -> str:
    """Return the module to import for a package.

    Args:
        name: Normalized name of the package.
        packages: From `importlib.metadata.packages_distributions`.
    """
    packages = importlib.metadata.packages_distributions() if packages is None else packages
    own = sorted(
        module
        for module, owners in packages.items()
        if name in map(normalized, owners) and module.isidentifier() and not module.startswith("_")
    )
    plain = name.replace("-", "_")
    return plain if plain in own or not own else own[0]


def runtime_builds(packages: Mapping[str, list[str]]) -> list[str]:
    """Return the packages that own the directory of ONNX Runtime: there should be one."""
    builds = {normalized(owner) for owner in packages.get("onnxruntime", ())}
    return sorted(builds | set(installed(BUILDS)))


def programs(name: str) -> tuple[str, list[str]]:
    """Return where this environment has a program, and every place where a shell finds one."""
    own = str(Path(sysconfig.get_path("scripts")) / name)
    found: dict[str, str] = {}
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        path = Path(folder, name)
        if folder and path.is_file() and os.access(path, os.X_OK):
            found.setdefault(os.path.realpath(path), str(path))
    return own, list(found.values())


def _name(distribution: importlib.metadata.Distribution) -> str:
    try:
        return distribution.metadata["Name"] or ""
    except (KeyError, TypeError, AttributeError, FileNotFoundError):  # half removed: no metadata
        return ""


def _is_editable(distribution: importlib.metadata.Distribution) -> bool:
    with contextlib.suppress(ValueError):
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        return bool(origin.get("dir_info", {}).get("editable"))
    return False
