"""Equivalence: does the candidate compute what the reference computes?

``check`` runs both models on the same feeds and compares every output, on each execution provider
at two optimization levels of the runtime (:mod:`bnfold.check.inprocess`). How far apart two outputs
may be is measured on the reference itself (:mod:`bnfold.check.verdict`).
The models run in a child process (:mod:`bnfold.isolation`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bnfold.check.request import Request
from bnfold.errors import InputError
from bnfold.isolation import run_isolated
from bnfold.levels import LEVELS
from bnfold.progress import Progress
from bnfold.report import CheckReport

if TYPE_CHECKING:
    from bnfold.check.models.model import ModelLike

__all__ = ["check"]


def check(  # noqa: PLR0913 - the command has these options
    reference: ModelLike,
    candidate: ModelLike,
    *,
    providers: str | Sequence[str] = ("cpu",),
    level: str = "default",
    inputs: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
    data: Sequence[str | os.PathLike[str]] = (),
    data_loader: str | None = None,
    samples: int | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    tolerances: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    seed: int = 0,
    oracle: bool = False,
    localize: bool = False,
    tf32: bool = False,
    timeout: float | None = None,
    progress: Progress | None = None,
    failing_feed: str | os.PathLike[str] | None = None,
) -> tuple[CheckReport, ...]:
    """Compare two models.

    Args:
        reference: The original: a path, serialized bytes or a ``ModelProto``. External data
            needs a path.
        candidate: What should compute the same.
        providers: ``cpu``, ``cuda``, ``cuda:1``, or any other execution provider of the installed
            runtime by its name. A provider that is asked for either runs the models, proved by
            the runtime's own assignment of nodes, or is an error.
        level: Optimization level of the deployment, one of
            :data:`bnfold.levels.LEVELS`. The models are compared as
            they are written (``disable_all``) in any case.
        inputs: Shapes by input name, in place of the declared ones; "" names the only input.
        dims: Sizes of symbolic dimensions.
        data: Files and folders with real inputs, which are compared beside the drawn ones:
            ``.npz``, ``.npy``, ``test_data_set_*``, Polygraphy's ``.json``, or folders of them.
        data_loader: ``file.py:function``; the function returns or yields inputs.
        samples: Compare at most this many feeds, the given ones first and then drawn ones. By
            default all that are given, and as many drawn ones as show every kind of error.
        rtol: With ``atol``: ``|candidate - reference| <= atol + rtol * |reference|`` for every
            element, in place of the noise rule.
        atol: See ``rtol``; in the units of the outputs.
        tolerances: ``rtol`` and ``atol`` by output name, or a JSON or TOML file with them.
        seed: Where the random numbers start. The same seed draws the same feeds.
        oracle: Say for each output which of the two models is nearer to the result in float64.
        localize: Where the models differ, find the first tensor in which they do.
        tf32: Measure on CUDA what TF32 does to the candidate. The verdict is without TF32.
        timeout: Give up after this many seconds.
        progress: Called with what is being done, in a few words, a
            :class:`bnfold.progress.Step`.
        failing_feed: Where to save the worst feed if the models are not equivalent, as ``.npz``.

    Returns:
        For each provider one report at ``disable_all`` and one at ``level``, in that order.

    Raises:
        InputError: A file, option or value that cannot be used; inputs that cannot be drawn.
        ModelError: A model that is not ONNX, or a reference that does not run.
        ProviderError: A provider is missing or did not run; both builds of the runtime are
            installed; the runtime crashed, or the time was up. ``learned`` has the reports
            that were complete by then.
        MissingPackageError: The runtime is not installed.
    """
    if (rtol is None) != (atol is None):
        raise InputError(
            "rtol and atol have to be given together", hint="give both, or neither for the rule"
        )
    providers = (providers,) if isinstance(providers, str) else tuple(providers)
    if not providers:
        raise InputError("no provider to check on", hint="choose from cpu, cuda")
    level = {"all": "default"}.get(level, level)
    if level not in LEVELS:
        raise InputError(f"unknown level '{level}'", hint=f"choose from {', '.join(LEVELS)}")
    if tf32 and not any(name.lower().startswith("cuda") for name in providers):
        raise InputError("TF32 is a number format of CUDA", hint="add the provider cuda")
    request = Request(
        reference=_portable(reference, "reference"),
        candidate=_portable(candidate, "candidate"),
        providers=providers,
        level=level,
        inputs={name: tuple(shape) for name, shape in (inputs or {}).items()},
        dims=dict(dims or {}),
        data=tuple(os.fspath(path) for path in data),
        loader=data_loader,
        samples=samples,
        rtol=rtol,
        atol=atol,
        tolerances=os.fspath(tolerances) if isinstance(tolerances, os.PathLike) else tolerances,
        seed=seed,
        oracle=oracle,
        localize=localize,
        tf32=tf32,
        failing_feed=None if failing_feed is None else os.fspath(failing_feed),
    )
    return run_isolated(request, progress, timeout)


def _portable(model: ModelLike, role: str) -> str | bytes:
    """Return a model in a form that another process can read."""
    if isinstance(model, bytes):
        return model
    if isinstance(model, str | os.PathLike):
        return os.fspath(model)
    from bnfold.check.models.model import serialize  # noqa: PLC0415 - onnx, which no path needs

    return serialize(model, role)
