"""What bnfold needs, from the metadata of its own package."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["CORE", "Need", "fits", "needs", "normalized", "python_range", "unmet"]

CORE = "bnfold"
"""What needs the packages without which nothing works; the others are needed by extras."""

_FOR_DEVELOPERS = frozenset({"benchmarks", "dev", "docs"})
# In no extra: whoever gives bnfold such a model has it.
_ACCEPTED = {"onnx-ir": "models of onnx_ir"}


@dataclass(frozen=True)
class Need:
    """A package that bnfold can use.

    Attributes:
        name: Name of the distribution, normalized.
        specifier: The versions that fit, such as ``>=1.17``.
        by: `CORE`, or the extras and purposes that need it.
    """

    name: str
    specifier: str
    by: tuple[str, ...]


def needs(distribution: str = "bnfold") -> list[Need]:
    """Return what a package needs: first always, then for its extras.

    Raises:
        importlib.metadata.PackageNotFoundError: The package runs from a folder of sources.
    """
    found: dict[str, Need] = {}
    for text in importlib.metadata.requires(distribution) or []:
        requirement, _, marker = text.partition(";")
        parts = re.fullmatch(r"([\w.-]+)(?:\[.*\])?\s*\(?([^()]*)\)?", requirement.strip())
        if parts is None:
            continue
        name = normalized(parts[1])
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)", marker)
        by = CORE if extra is None else extra[1]
        if by in _FOR_DEVELOPERS:
            if name not in _ACCEPTED:
                continue
            by = _ACCEPTED[name]
        known = found.get(name)
        found[name] = Need(name, parts[2].strip(), (*(known.by if known else ()), by))
    return sorted(found.values(), key=lambda need: CORE not in need.by)


def python_range(distribution: str = "bnfold") -> str:
    """Return the versions of Python that fit, such as ``>=3.11``."""
    metadata = importlib.metadata.metadata(distribution)
    return next(iter(metadata.get_all("Requires-Python", [])), "")


def fits(specifier: str, version: str) -> bool | None:
    """Return whether a version is within a range, or None where that cannot be told."""
    versions, specifiers = _packaging("version"), _packaging("specifiers")
    if versions is None or specifiers is None:
        return None
    try:
        known = versions.Version(version)
        return bool(specifiers.SpecifierSet(specifier).contains(known, prereleases=True))
    except ValueError:  # one of them is none
        return None


def unmet(distribution: str) -> Iterator[tuple[str, str | None]]:
    """Yield what an installed package requires and does not have.

    Yields:
        The requirement, such as ``protobuf>=6.31``, and the version that is there in its place.
    """
    packaging = _packaging("requirements")
    if packaging is None:
        return
    for text in importlib.metadata.requires(distribution) or []:
        requirement = packaging.Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        wanted = f"{requirement.name}{requirement.specifier}"
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield wanted, None
        else:
            if not requirement.specifier.contains(version, prereleases=True):
                yield wanted, version


def normalized(name: str) -> str:
    """Return the name of a distribution as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _packaging(module: str) -> Any:
    """Return a module of the library ``packaging``, which every runtime and every pip brings."""
    for package in ("packaging", "pip._vendor.packaging"):
        try:
            return importlib.import_module(f"{package}.{module}")
        except ImportError:
            continue
    return None
