"""Real inputs: files, folders and functions that give feeds, and the file that a feed is saved to.

One feed is in memory at a time: files are opened when their turn comes, and arrays that hold many
samples are read sample by sample where their format allows it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from bnfold.check.data.fit import feeds_from
from bnfold.check.data.loader import read_loader
from bnfold.check.data.replay import replay_command, save_feed
from bnfold.check.data.walk import read_path
from bnfold.check.feeds.feed import Feed
from bnfold.check.models.model import ValueSpec

__all__ = ["load_feeds", "replay_command", "save_feed"]


def load_feeds(
    data: Sequence[str | os.PathLike[str]],
    specs: Sequence[ValueSpec],
    output_specs: Sequence[ValueSpec] = (),
    *,
    loader: str | None = None,
    samples: int | None = None,
) -> Iterator[Feed]:
    """Read feeds, one after the other.

    ============================  ==================================================================
    ``.npz``                      arrays named like the inputs (others are left alone), or one array
                                  for the only input; also what :func:`save_feed` wrote
    ``.npy``                      the only input
    ``.json``                     what Polygraphy saves: a dict of inputs, or a list of such
    ``test_data_set_*`` folder    ``input_*.pb`` and, as a third opinion, ``output_*.pb``
    other folder                  all of the above in it, in natural order of their names; ``.npy``
                                  files that are named like all of the inputs are one feed
    ``file.py:function``          returns or yields dicts by input name, tuples in the order of the
                                  inputs, or arrays for the only input
    ============================  ==================================================================

    How many feeds an array makes hangs on the declaration. An array of the declared rank is one
    feed, unless the declaration fixes N rows and the array has a multiple of N: then N rows at a
    time. An array with one axis more is a stack of feeds. Values keep their type or are converted
    without loss; floats may be rounded to a shorter float.

    Args:
        data: Files and folders.
        specs: The inputs as declared.
        output_specs: The outputs as declared, which names expected outputs without a name.
        loader: ``file.py:function``, after the files.
        samples: At most this many feeds.

    Raises:
        InputError: While reading: a path that cannot be read, a missing input, values that do not
            fit the declaration, or an error in the function.
    """
    return islice(_all_feeds(data, specs, output_specs, loader), samples)


def _all_feeds(
    data: Sequence[str | os.PathLike[str]],
    specs: Sequence[ValueSpec],
    output_specs: Sequence[ValueSpec],
    loader: str | None,
) -> Iterator[Feed]:
    for path in data:
        for raw in read_path(Path(path), specs, output_specs):
            yield from feeds_from(raw, specs)
    if loader is not None:
        for raw in read_loader(loader, specs):
            yield from feeds_from(raw, specs)
