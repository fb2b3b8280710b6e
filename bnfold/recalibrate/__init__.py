"""Statistics of batch normalizations, gathered again from data.

``recalibrate`` runs the model on a caller's samples, gathers mean and variance of what every
BatchNormalization normalizes (:mod:`bnfold.recalibrate.gather`), pools them in float64
(:mod:`bnfold.recalibrate.moments`), says how far the stored ones were from them
(:mod:`bnfold.recalibrate.drift`), and writes the model with the new ones. ONNX Runtime alone does
it, in a child process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.errors import InputError
from bnfold.progress import Progress
from bnfold.recalibrate.report import NormDrift, NormKept, NormStatistics, RecalibrationReport

if TYPE_CHECKING:
    from bnfold.targets import StrPath

__all__ = [
    "NormDrift",
    "NormKept",
    "NormStatistics",
    "RecalibrationReport",
    "recalibrate",
    "state_path",
]


def recalibrate(  # noqa: PLR0913 - one keyword for each option of the command line
    model: StrPath,
    output: StrPath,
    *,
    data: StrPath | Sequence[StrPath] | Iterable[Mapping[str, Any] | Any] = (),
    data_loader: str | None = None,
    preprocess: str | None = None,
    mode: str = "precise",
    variance: str = "unbiased",
    pooling: str = "samples",
    momentum: float = 1.0,
    only: Sequence[str] = (),
    keep_constant: bool = False,
    batch_size: int | None = None,
    samples: int | None = None,
    provider: str = "cpu",
    seed: int = 0,
    resume: bool = False,
    timeout: float | None = None,
    progress: Progress | None = None,
) -> RecalibrationReport:
    """Gather the statistics of a model's batch normalizations again, and write the model with them.

    The output appears whole or not at all; nothing but means, variances and a line of provenance
    differs from the input.

    Args:
        model: The model file to read, which is not changed.
        output: The file to write.
        data: Files and folders with samples: ``.npz``, ``.npy``, ``test_data_set_*``, Polygraphy's
            ``.json``, folders of them, and folders of images. Or samples in memory: an iterable of
            batches, each a dict of arrays by input name or the array of the only input; one that
            can be iterated again where ``mode`` is ``sequential``.
        data_loader: ``file.py:function`` that returns or yields batches.
        preprocess: How images are read, such as ``resize=256,crop=224``; see
            :mod:`bnfold.recalibrate.images`.
        mode: ``precise``: one pass, each batch normalized by its own statistics while they are
            gathered. ``sequential``: layer by layer, with the new statistics of those before.
        variance: ``unbiased`` (divided by n - 1, PyTorch's ``running_var``) or ``population``.
        pooling: ``samples``: every value counts the same, exactly as in one pass over all.
            ``batches``: every batch counts the same, as in PyTorch with ``momentum=None``.
        momentum: How far to move from the stored statistics to those of the data: 1 all the way.
        only: Globs; normalizations whose name matches none keep their statistics, and work with
            them while others are gathered.
        keep_constant: Leave the statistics of channels alone that are constant in the data, which
            are otherwise an error.
        batch_size: Samples that are normalized together. By default feeds as they come, large
            files and images 64 at a time.
        samples: Use at most this many samples.
        provider: Where to run the model: ``cpu``, ``cuda``, or another one by its name.
        seed: Draws the order of images.
        resume: Go on where an interrupted run of the same options stopped.
        timeout: Give up after this many seconds.
        progress: Called with what is being done, a :class:`bnfold.progress.Step` where steps can be
            counted.

    Returns:
        How far the stored statistics were from the data, the worst first.

    Raises:
        InputError: An option or the data cannot be used; there are too few samples, or channels
            that are constant.
        ModelError: The model cannot be read or run, or has no normalization to renew.
        ProviderError: A provider is missing or did not run, the runtime crashed, time is up.
        MissingPackageError: The runtime, or Pillow for images, is not installed.
    """
    from bnfold.recalibrate.feeding import Data  # noqa: PLC0415
    from bnfold.recalibrate.gather import GatherJob  # noqa: PLC0415 - heavy
    from bnfold.recalibrate.pipeline import renew  # noqa: PLC0415
    from bnfold.recalibrate.renewal import (  # noqa: PLC0415
        MODES,
        SEQUENTIAL,
        Rule,
        require_choice,
    )

    require_choice("mode", mode, MODES)
    rule = Rule(variance, pooling, momentum, keep_constant)
    for option, number in (("batch_size", batch_size), ("samples", samples)):
        if number is not None and number < 1:
            raise InputError(f"{option} {number} is not positive", hint="give 1 or more")
    paths, feeds = _paths_or_feeds(data)
    if mode == SEQUENTIAL and isinstance(feeds, Iterator):
        raise InputError(
            "layer by layer needs the data several times, and an iterator gives it once",
            hint="give a list, or an object that can be iterated again",
        )
    if not paths and feeds is None and data_loader is None:
        raise InputError("there is no data", hint="give samples with --data or --data-loader")
    job = GatherJob(
        model=os.fspath(model),
        provider=provider,
        mode=mode,
        only=(only,) if isinstance(only, str) else tuple(only),
        data=Data(paths, data_loader, preprocess, batch_size, samples, seed),
        rule=rule,
        resume=resume,
        feeds=feeds,
    )
    return renew(job, Path(output), state_path(Path(output)), timeout, progress)


def state_path(output: Path) -> Path:
    """Return where a run keeps what it has gathered until ``output`` is written."""
    return output.with_name(f"{output.name}.statistics.npz")


def _paths_or_feeds(data: Any) -> tuple[tuple[str, ...], Iterable[Any] | None]:
    """Tell files from samples in memory."""
    if isinstance(data, str | os.PathLike):
        return (os.fspath(data),), None
    if isinstance(data, Sequence) and all(isinstance(each, str | os.PathLike) for each in data):
        return tuple(os.fspath(each) for each in data), None
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise InputError(
            f"a {type(data).__name__} is no data that bnfold knows",
            hint="give paths, or an iterable of batches",
        )
    return (), data
