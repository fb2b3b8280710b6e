"""What has been gathered so far, in a file, so that an interrupted run can go on.

The file is an ``.npz``: one array of moments for each normalization, and what they were gathered
from: model, options, and a checksum of all rows that went in. It is replaced as a whole.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnfold.errors import InputError
from bnfold.recalibrate.moments import Moments
from bnfold.store import LoadedModel
from bnfold.store.files import BLOCK, DataFile
from bnfold.store.temporaries import replacing

__all__ = ["Checkpoint", "Progressed", "fingerprint"]

_SHARE = 50
"""Saving may take this fraction of the time: one part in so many."""

_PROGRESS = ("level", "batches", "rows", "checksum")
_RESTART = "delete it, or start anew without --resume"


@dataclass(frozen=True)
class Progressed:
    """How far a run has come.

    Attributes:
        moments: What is known of each normalization.
        level: Levels that are complete (``sequential``), else 0.
        batches: Batches of the current level that are in ``moments``.
        rows: Samples in them.
        checksum: Of all arrays in them.
    """

    moments: tuple[Moments, ...]
    level: int = 0
    batches: int = 0
    rows: int = 0
    checksum: int = 0


def fingerprint(model: LoadedModel, options: Mapping[str, object]) -> str:
    """Return a hash of a model's files and of everything that the statistics depend on."""
    digest = hashlib.blake2b(digest_size=16)
    for file in (model.file, *(model.external[name] for name in sorted(model.external))):
        _update(digest, file)
    digest.update(json.dumps(dict(options), sort_keys=True).encode())
    return digest.hexdigest()


def _update(digest: hashlib.blake2b, file: DataFile) -> None:
    view = file.view()
    for start in range(0, file.size, BLOCK):
        digest.update(view[start : start + BLOCK])
        file.release()


class Checkpoint:
    """The file of one run; without a path nothing is kept.

    Args:
        path: The file, or None.
        identity: From `fingerprint`.
    """

    def __init__(self, path: Path | None, identity: str) -> None:
        self._path = path
        self._identity = identity
        self._next = time.monotonic()

    def load(self, channels: Sequence[int]) -> Progressed | None:
        """Return what an earlier run has left, or None if there is nothing.

        Args:
            channels: Number of channels of each normalization.

        Raises:
            InputError: The file is of another run, or damaged.
        """
        if self._path is None or not self._path.exists():
            return None
        try:
            with np.load(self._path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                identity, progress = about["identity"], [int(about[key]) for key in _PROGRESS]
                packed = [file[f"norm{index}"] for index in range(len(channels))]
        except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{self._path}: not readable as the state of a recalibration", hint=_RESTART
            ) from error
        shapes = [array.shape for array in packed]
        if identity != self._identity or shapes != [(5, c + 1) for c in channels]:
            raise InputError(
                f"{self._path}: the state of another recalibration: "
                "the model or the options differ",
                hint=_RESTART,
            )
        moments = tuple(Moments.unpacked(array) for array in packed)
        return Progressed(moments, *progress)

    def save(self, progressed: Progressed) -> None:
        """Keep a state, unless saving would take more time than it is worth.

        Raises:
            InputError: The file cannot be written.
        """
        started = time.monotonic()
        if self._path is None or started < self._next:
            return
        about = {"identity": self._identity}
        about |= {key: getattr(progressed, key) for key in _PROGRESS}
        arrays: dict[str, Any] = {
            f"norm{at}": each.packed() for at, each in enumerate(progressed.moments)
        }
        arrays["about"] = np.array(json.dumps(about))
        try:
            with replacing(self._path) as staged, staged.open("xb") as file:
                np.savez(file, **arrays)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise InputError(f"{self._path}: cannot be written: {why}") from error
        ended = time.monotonic()
        self._next = ended + _SHARE * (ended - started)
