"""From a caller's data to batches.

A batch is what is normalized together, so how rows are put into batches is part of the result:

- With a batch size, all rows come one after the other, that many at a time; the last batch is
  smaller. Rows of different shapes do not go into one batch.
- Without one, every feed is a batch as it comes; only where the declared shapes prove that the
  first axis is that of the samples, a file of more than ``CHUNK`` rows is read in batches of
  ``CHUNK``. Single images are put into batches of ``CHUNK``.
- A model that fixes its number of rows gets that many.

Never more than a batch or two is in memory.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnfold.check.data.fit import feeds_from
from bnfold.check.data.loader import read_loader
from bnfold.check.data.raw import Raw
from bnfold.check.data.walk import read_path
from bnfold.check.feeds.draws import is_float
from bnfold.check.feeds.feed import Feed
from bnfold.check.models.model import ValueSpec
from bnfold.errors import InputError
from bnfold.recalibrate.images import Preprocess, find_images, image_feeds

__all__ = ["CHUNK", "Batch", "Data", "Feeding", "Rows", "rows_of"]

CHUNK = 64
"""Rows of a batch where nobody asks for another number."""

_FILES = {".npy", ".npz"}


@dataclass(frozen=True)
class Rows:
    """Where a model's inputs have their samples.

    Attributes:
        names: Inputs whose first axis counts the samples.
        fixed: Their number, where the model fixes it; else None.
        proved: True if the shapes of the model say so: rows may be split without being asked.
    """

    names: frozenset[str]
    fixed: int | None
    proved: bool


def rows_of(
    specs: Sequence[ValueSpec], inputs: Mapping[str, object], norms: Iterable[object]
) -> Rows:
    """Find the samples in the declarations.

    Args:
        specs: The inputs as declared.
        inputs: First dimension of each input, as inference names it; None where unknown.
        norms: The first dimensions of the normalized tensors, alike.
    """
    tensors = [spec for spec in specs if spec.kind == "tensor" and spec.shape != ()]
    free = [spec for spec in tensors if spec.shape is None or not isinstance(spec.shape[0], int)]
    if free:
        symbols = {spec.name: inputs.get(spec.name) for spec in free}
        behind = set(norms)
        proved = len(behind) == 1 and None not in behind and behind <= set(symbols.values())
        chosen = behind.pop() if proved else symbols[free[0].name]
        names = [name for name, symbol in symbols.items() if _may_be(symbol, chosen)]
        return Rows(frozenset(names), None, proved)
    sizes = [spec.shape[0] for spec in tensors if spec.shape and len(spec.shape) > 1]
    if not sizes or not isinstance(sizes[0], int):
        return Rows(frozenset(), None, proved=False)
    same = (spec.name for spec in tensors if spec.shape and spec.shape[0] == sizes[0])
    return Rows(frozenset(same), sizes[0], proved=True)


def _may_be(symbol: object, chosen: object) -> bool:
    """True if a dimension may be the number of samples: those without a name are not told apart."""
    unnamed = [one is None or str(one).startswith("?") for one in (symbol, chosen)]
    return symbol == chosen or all(unnamed)


@dataclass(frozen=True)
class Data:
    """Where samples come from.

    Attributes:
        paths: Files and folders.
        loader: ``file.py:function``, or None.
        preprocess: How images are read, or None.
        batch_size: Rows of a batch, or None.
        samples: At most this many rows, or None.
        seed: Draws the order of images.
    """

    paths: tuple[str, ...] = ()
    loader: str | None = None
    preprocess: str | None = None
    batch_size: int | None = None
    samples: int | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Batch:
    """What runs at once.

    Attributes:
        name: Where its last rows come from.
        arrays: A value for each input.
        rows: Number of samples.
    """

    name: str
    arrays: Mapping[str, Any]
    rows: int

    def checksum(self, start: int) -> int:
        """Return a checksum of everything before and this."""
        for name in sorted(self.arrays):
            value = self.arrays[name]
            if isinstance(value, np.ndarray) and value.dtype != object:
                start = zlib.crc32(np.ascontiguousarray(value).view(np.uint8).data, start)
        return start


class Feeding:
    """The batches of one recalibration, read anew by each iteration.

    Args:
        data: Where they come from.
        specs: The inputs as declared.
        rows: Where the samples are in them.
        feeds: Feeds in memory, in place of ``data.paths`` and ``data.loader``.

    Raises:
        InputError: The batch size is not one that the model takes; while iterating: data that
            cannot be read, does not fit, or is not finite.
    """

    def __init__(
        self,
        data: Data,
        specs: Sequence[ValueSpec],
        rows: Rows,
        feeds: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        self._data = data
        self._specs = tuple(specs)
        self._rows = rows
        self._feeds = feeds
        self._settings = Preprocess.parse(data.preprocess or "")
        size = data.batch_size
        if size is not None and rows.fixed is not None and size != rows.fixed:
            raise InputError(
                f"the model takes exactly {rows.fixed} samples at a time, not {size}",
                hint="leave --batch-size out, or export the model with an open batch; "
                "with --mode sequential the size of the batches does not matter",
            )
        if size is not None and not rows.names:
            raise InputError(
                "the inputs of the model have no axis of samples", hint="leave --batch-size out"
            )

    def total(self) -> int | None:
        """Return the number of rows, where the files tell without being read."""
        data = self._data
        count = 0 if data.loader is None and self._feeds is None else None
        for path in map(Path, data.paths):
            images = find_images(path, data.seed)
            if images and count is not None:
                count += len(images)
                continue
            plain = path.suffix in _FILES and path.is_file()
            if not plain or count is None:
                count = None
                break
            raws = read_path(path, self._specs, ())
            count += sum(_length(raw, self._specs, self._rows) for raw in raws)
        if count is None:
            return data.samples
        return count if data.samples is None else min(count, data.samples)

    def __iter__(self) -> Iterator[Batch]:
        left = self._data.samples
        for batch in self._batches():
            if left is not None and batch.rows > left:
                batch = self._cut(batch, 0, left)  # noqa: PLW2901 - the part that is wanted
            _require_finite(batch)
            yield batch
            if left is not None:
                left -= batch.rows
                if left <= 0:
                    return

    def _batches(self) -> Iterator[Batch]:
        size = self._data.batch_size
        if size is None or self._rows.fixed is not None:
            yield from self._all_batches(size)
        else:
            yield from self._regrouped(self._all_batches(size), size)

    def _all_batches(self, size: int | None) -> Iterator[Batch]:
        """Yield feeds as they come, but those of large files in parts."""
        data = self._data
        for path in map(Path, data.paths):
            images = find_images(path, data.seed)
            if images:
                yield from map(self._batch, self._image_feeds(images))
                continue
            for raw in read_path(path, self._specs, ()):
                part = self._part(raw)
                feeds = map(self._batch, feeds_from(raw, self._in_parts(part)))
                yield from self._regrouped(feeds, CHUNK) if part and size is None else feeds
        if data.loader is not None:
            for raw in read_loader(data.loader, self._specs):
                yield from map(self._batch, feeds_from(raw, self._specs))
        for index, arrays in enumerate(self._feeds or ()):
            values = dict(arrays) if isinstance(arrays, Mapping) else {"": arrays}
            raw = Raw(f"batch {index} of the data", values)
            yield from map(self._batch, feeds_from(raw, self._specs))

    def _image_feeds(self, images: list[Path]) -> Iterator[Feed]:
        if len(self._specs) != 1:
            raise InputError(
                f"{images[0].parent}: images, but the model has {len(self._specs)} inputs",
                hint="give arrays: .npz or --data-loader",
            )
        rows = self._rows.fixed or self._data.batch_size or CHUNK
        return image_feeds(images, self._specs[0], self._settings, rows)

    def _part(self, raw: Raw) -> int | None:
        """Return how many rows of a file to read at a time, or None for all of them."""
        rows, size = self._rows, self._data.batch_size
        if rows.fixed is not None or not raw.may_stack or (size is None and not rows.proved):
            return None
        count, most = _length(raw, self._specs, rows), size or CHUNK
        if count <= most:
            return None
        return next(part for part in range(most, 0, -1) if count % part == 0)

    def _in_parts(self, part: int | None) -> Sequence[ValueSpec]:
        """Return declarations under which an array holds several feeds of ``part`` rows."""
        if part is None:
            return self._specs
        return [
            dataclasses.replace(spec, shape=(part, *spec.shape[1:]))
            if spec.name in self._rows.names and spec.shape
            else spec
            for spec in self._specs
        ]

    def _regrouped(self, batches: Iterable[Batch], size: int) -> Iterator[Batch]:
        """Yield the same rows, ``size`` at a time."""
        waiting: list[Batch] = []
        for batch in batches:
            if waiting and not _alike(waiting[0], batch, self._rows.names):
                yield self._joined(waiting)
                waiting = []
            waiting.append(batch)
            count = sum(each.rows for each in waiting)
            if count < size:
                continue
            joined, whole = self._joined(waiting), count - count % size
            for start in range(0, whole, size):
                yield self._cut(joined, start, start + size)
            waiting = [self._cut(joined, whole, count)] if whole < count else []
        if waiting:
            yield self._joined(waiting)

    def _batch(self, feed: Feed) -> Batch:
        counts = {
            name: len(value)
            for name in sorted(self._rows.names)
            if isinstance(value := feed.arrays[name], np.ndarray) and value.ndim
        }
        if len(set(counts.values())) > 1 and self._data.batch_size is not None:
            told = ", ".join(f"'{name}' {count}" for name, count in counts.items())
            raise InputError(
                f"{feed.name}: the inputs differ in their number of samples: {told}",
                hint="give every input as many samples",
            )
        return Batch(feed.name, feed.arrays, next(iter(counts.values()), 1))

    def _joined(self, batches: Sequence[Batch]) -> Batch:
        if len(batches) == 1:
            return batches[0]
        arrays = dict(batches[0].arrays)
        for name in self._rows.names & arrays.keys():
            arrays[name] = np.concatenate([batch.arrays[name] for batch in batches])
        return Batch(batches[-1].name, arrays, sum(batch.rows for batch in batches))

    def _cut(self, batch: Batch, start: int, stop: int) -> Batch:
        arrays = dict(batch.arrays)
        for name in self._rows.names & arrays.keys():
            # A copy, so that the rest does not stay in memory with it.
            arrays[name] = np.array(arrays[name][start:stop])
        return Batch(batch.name, arrays, stop - start)


def _length(raw: Raw, specs: Sequence[ValueSpec], rows: Rows) -> int:
    """Return the number of rows in a file, or 1 where it is not known to be several."""
    for spec in specs:
        value = raw.values.get(spec.name, raw.values.get("") if len(specs) == 1 else None)
        shape = getattr(value, "shape", None)
        if spec.name not in rows.names or not shape:
            continue
        if spec.shape is None or len(shape) == len(spec.shape):
            return int(shape[0])
    return 1


def _alike(one: Batch, other: Batch, names: frozenset[str]) -> bool:
    """True if the rows of both can be in one batch."""
    for name, value in one.arrays.items():
        second = other.arrays[name]
        if not isinstance(value, np.ndarray) or not isinstance(second, np.ndarray):
            return False
        if name in names and value.shape[1:] != second.shape[1:]:
            return False
        if name not in names and not np.array_equal(value, second):
            return False
    return True


def _require_finite(batch: Batch) -> None:
    for name, value in batch.arrays.items():
        if not isinstance(value, np.ndarray) or not is_float(value.dtype):
            continue
        wide = value if value.dtype.kind == "f" else value.astype(np.float32)
        if not np.isfinite(wide).all():
            raise InputError(
                f"{batch.name}: NaN or infinity in input '{name}'",
                hint="statistics of such data mean nothing; take these samples out",
            )
