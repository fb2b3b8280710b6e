"""What was done before and is up to date: told by content, never by time.

Each result has a record in the output directory: the hashes of the files that were read and
written, and everything else that the result depends on. It is up to date only if all of that is
as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnfold._version import __version__
from bnfold.errors import BnfoldError
from bnfold.fleet import places

__all__ = ["digests", "find_result", "keep_result", "place_of_record", "recipe"]

log = logging.getLogger(__name__)

_FOLDER = ".bnfold"
_PACKAGES = ("numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "onnxsim", "torch")
_WITHOUT_EFFECT = {"statistics", "timeout"}


def place_of_record(output_dir: str, relative: str) -> str:
    """Return where the record of a result is kept.

    Args:
        output_dir: Path or URL of the output directory.
        relative: The result, beneath it.
    """
    name = hashlib.sha256(relative.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return places.join(output_dir, f"{_FOLDER}/{name}.json")


def recipe(options: Mapping[str, Any]) -> str:
    """Return a hash of all that a result depends on beside the model.

    Args:
        options: Keyword arguments of :func:`bnfold.optimize`. The files that they name count with
            their content.
    """
    import importlib.metadata  # noqa: PLC0415 - slow, and --help has no use for it

    versions = {"bnfold": __version__}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    loader = (options.get("data_loader") or "").rpartition(":")[0]
    files = [*options.get("data", ()), options.get("tolerances"), loader]
    named = [file for file in files if file and not isinstance(file, Mapping)]
    content = {str(file): _content(Path(file)) for file in named}
    effective = {name: value for name, value in options.items() if name not in _WITHOUT_EFFECT}
    text = json.dumps([versions, effective, content], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _content(path: Path) -> dict[str, str | None]:
    files = sorted(each for each in path.rglob("*") if each.is_file()) or [path]
    return {str(each): places.digest(str(each)) for each in files}


def digests(model: Path) -> dict[str, str | None]:
    """Return the hashes of a model file and its external data, by name in its directory."""
    from bnfold.store.load import external_locations  # noqa: PLC0415 - heavy

    names = [model.name, *sorted(external_locations(model) or ())]
    return {name: places.digest(str(model.parent / name)) for name in names}


def find_result(
    record: str, made_by: str, model: str, target: str, *, with_statistics: bool
) -> dict[str, Any] | None:
    """Return the JSON object of the run whose result is up to date, or None.

    Args:
        record: Path or URL of the record.
        made_by: The `recipe` of now.
        model: Path or URL of the model.
        target: Path or URL of the result.
        with_statistics: True if the object has to have the statistics.
    """
    try:
        text = places.read_bytes(record)
        known = json.loads(text) if text else {}
        report: dict[str, Any] = known["report"]
        is_same = (
            known["recipe"] == made_by
            and (not with_statistics or "statistics" in report)
            and _is_unchanged(model, known["inputs"])
            and _is_unchanged(target, known["outputs"])
        )
    except (BnfoldError, ValueError, KeyError, TypeError, AttributeError):
        return None  # whatever is wrong, the work is done again
    return {**report, "model": model, "output": target} if is_same else None


def _is_unchanged(place: str, known: Mapping[str, str | None]) -> bool:
    folder = places.parent_of(place)
    return places.name_of(place) in known and all(
        value is not None and places.digest(places.join(folder, name)) == value
        for name, value in known.items()
    )


def keep_result(
    record: str,
    made_by: str,
    inputs: Mapping[str, str | None],
    outputs: Mapping[str, str | None],
    report: Mapping[str, Any],
) -> None:
    """Write the record of a result; one that cannot be recorded is made again the next time.

    Args:
        record: Path or URL of the record.
        made_by: The `recipe` of the result.
        inputs: The `digests` of what was read.
        outputs: The `digests` of what was written.
        report: The JSON object of the run.
    """
    known = {"recipe": made_by, "inputs": inputs, "outputs": outputs, "report": report}
    try:
        places.write_bytes(record, json.dumps(known).encode())
    except BnfoldError as error:
        log.warning("no record for --resume: %s", error.message)
