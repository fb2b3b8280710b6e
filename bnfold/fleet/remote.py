"""Models at URLs: fetched with their data before they are read, sent with it when they are made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from bnfold.errors import BnfoldError, ModelError
from bnfold.fleet import places
from bnfold.store import load, save
from bnfold.store.load import external_locations

__all__ = ["as_named", "fetch_model", "send_model"]


def fetch_model(url: str, path: Path) -> None:
    """Copy a model and its external data, which lies beside it, to this machine.

    Raises:
        ModelError: There is no such file.
        InputError: It cannot be read.
    """
    if not places.fetch(url, path):
        raise ModelError(f"{url}: no such file", hint="give the URL of an ONNX file")
    for location in sorted(external_locations(path) or ()):
        data = Path(location)
        # What is outside or missing is told by whoever reads the model.
        if not data.is_absolute() and ".." not in data.parts:
            places.fetch(places.join(places.parent_of(url), location), path.parent / location)


def send_model(path: Path, url: str) -> Path:
    """Copy a model to a URL, its external data first; what the data of other models is stays.

    Args:
        path: The model, alone with its data in its directory.
        url: Where it goes.

    Returns:
        The model as it was sent: its data has another name where that name was taken.

    Raises:
        InputError: It cannot be written.
    """
    folder = places.parent_of(url)

    def content(location: str) -> tuple[str | None, str | None]:
        there = places.digest(places.join(folder, location))
        return there, places.digest(str(path.parent / location))

    found = {location: content(location) for location in sorted(external_locations(path) or ())}
    if any(there not in (None, here) for there, here in found.values()):
        path = _with_other_data(path, found)
        found = dict.fromkeys(sorted(external_locations(path) or ()), (None, None))
    for location, (there, _) in found.items():
        if there is None:
            places.send(path.parent / location, places.join(folder, location))
    places.send(path, url)
    return path


def _with_other_data(path: Path, taken: Iterable[str]) -> Path:
    """Return a copy of a model whose data has none of the names that are taken."""
    folder = path.parent / "other"
    for location in taken:
        (folder / location).parent.mkdir(parents=True, exist_ok=True)
        (folder / location).touch()
    save(load(path), folder / path.name)
    return folder / path.name


@contextlib.contextmanager
def as_named(names: dict[str, str]) -> Iterator[None]:
    """Let errors name files as the user does, not as the copies of them are called.

    Args:
        names: The name to give, by path of the copy.
    """
    try:
        yield
    except BnfoldError as error:
        for copy, name in names.items():
            error.message = error.message.replace(copy, name)
            error.hint = error.hint and error.hint.replace(copy, name)
        error.args = (error.message,)
        raise
