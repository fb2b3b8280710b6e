"""Equivalence: does the candidate compute what the reference computes?

``check`` runs both models on the same feeds and compares every output, on each execution provider
at two optimization levels of the runtime. How far apart two outputs may be is measured on the
reference itself (:mod:`bnfold.check.compare`, :mod:`bnfold.check.noise`).

**Who is compared with whom.** A runtime rewrites models when it loads them, by folds of its own
among others, and some of those are wrong. So the truth is always R0, the reference exactly as it
is written (all optimizations disabled). With R1 the reference at the default level, and C0 and C1
the candidate at the two levels:

1. ``disable_all``: C0 has to agree with R0. Here only the two files can differ.
2. ``default``: C1 has to agree with R0, or with R1. Usually R1 agrees with R0 and both say the
   same. Where R1 departs from R0, the runtime spoils the original: a warning says so. Then the
   candidate may do what it should (agree with R0), or what the original does in this
   deployment (agree with R1: the same misfold, not the candidate's doing). Whatever else it
   computes is a fault that came with the candidate, even where the candidate is right at
   ``disable_all``, and counts as not equivalent.

A candidate that does not load, does not run where the reference runs, or has other inputs or
outputs is not equivalent. A reference that does not run proves nothing, which is an error.
Where the runtime has no kernel for the reference, the ONNX reference evaluator runs both models;
it optimizes nothing, so that there is one report.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from bnfold.check.compare import Tolerance
from bnfold.check.data import load_feeds, save_feed
from bnfold.check.feeds import Feed, apply_shapes, random_feeds, sizes_of
from bnfold.check.hints import Hint, find_hints
from bnfold.check.model import Model, ModelLike, interface_difference, open_model
from bnfold.check.pairs import NOT_COMPARABLE, Pair, open_pair
from bnfold.check.sessions import LEVELS, REFERENCE_EVALUATOR, RunError, resolve_provider
from bnfold.check.verify import different, verify
from bnfold.errors import InputError, ModelError
from bnfold.report import CheckReport

__all__ = ["ModelLike", "check"]


def check(  # noqa: PLR0913 - the command has these options
    reference: ModelLike,
    candidate: ModelLike,
    *,
    providers: Sequence[str] = ("cpu",),
    inputs: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
    data: Sequence[str | os.PathLike[str]] = (),
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    failing_feed: str | os.PathLike[str] | None = None,
) -> tuple[CheckReport, ...]:
    """Compare two models.

    Args:
        reference: The original: a path, serialized bytes or a ``ModelProto``. External data
            needs a path.
        candidate: What should compute the same.
        providers: ``cpu`` and ``cuda``. A provider that is asked for either runs or is an error.
        inputs: Shapes by input name, in place of the declared ones; "" names the only input.
        dims: Sizes of symbolic dimensions.
        data: Files and folders with real inputs, which are compared beside the drawn ones:
            ``.npz``, ``.npy``, ``test_data_set_*``.
        rtol: With ``atol``: |candidate - reference| <= atol + rtol * |reference| for every
            element, in place of the noise rule.
        atol: See ``rtol``; in the units of the outputs.
        seed: Where the random numbers start. The same seed draws the same feeds.
        progress: Called before each feed with what is being done, in a few words.
        failing_feed: Where to save the worst feed if the models are not equivalent, as ``.npz``.

    Returns:
        For each provider one report at ``disable_all`` and one at ``default``, in that order.

    Raises:
        InputError: A file, option or value that cannot be used; inputs that cannot be drawn.
        ModelError: A model that is not ONNX, or a reference that does not run.
        ProviderError: A provider is missing or did not run; both builds of the runtime are
            installed.
        MissingPackageError: The runtime is not installed.
    """
    if (rtol is None) != (atol is None):
        raise InputError(
            "rtol and atol have to be given together", hint="give both, or neither for the rule"
        )
    tolerance = None if rtol is None or atol is None else Tolerance(rtol, atol)
    names = list(dict.fromkeys(resolve_provider(provider) for provider in providers))
    if not names:
        raise InputError("no provider to check on", hint="choose from cpu, cuda")
    original, other = open_model(reference, "reference"), open_model(candidate, "candidate")
    why = interface_difference(original, other)
    if why is not None:
        outputs = [spec.name for spec in original.outputs]
        return tuple(different(outputs, name, level, why) for name in names for level in LEVELS)
    pairs = [open_pair(original, other, name) for name in names]
    prepared = [_prepare(pair, inputs or {}, dims or {}, data, seed) for pair in pairs]
    reports: list[CheckReport] = []
    worst: Feed | None = None
    for pair, (feeds, hints) in zip(pairs, prepared, strict=True):
        found, rejected = verify(
            pair, feeds, hints, tolerance=tolerance, seed=seed, progress=progress
        )
        reports += found
        worst = worst or rejected
    if worst is not None and failing_feed is not None:
        save_feed(worst, failing_feed)
    return tuple(reports)


def _prepare(
    pair: Pair,
    inputs: Mapping[str, Sequence[int]],
    dims: Mapping[str, int],
    data: Sequence[str | os.PathLike[str]],
    seed: int,
) -> tuple[list[Feed], dict[str, Hint]]:
    """Return the feeds, a caller's own first, and the advice about the inputs."""
    model: Model = pair.reference
    specs = apply_shapes(model.inputs, inputs, dims)
    hints = find_hints(model.graph, [spec.name for spec in specs])
    given = load_feeds(data, specs)

    def attempt(feed: Feed) -> str | None:
        try:
            pair.truth.run(feed.arrays)
        except RunError as error:
            return str(error)
        return None

    if given:
        specs = sizes_of(given[0], specs)
    quick = pair.provider == REFERENCE_EVALUATOR
    try:
        drawn = random_feeds(specs, hints, seed, attempt, quick=quick)
    except InputError as error:
        # Data is what a caller gives where nothing can be drawn.
        if not given and quick:
            raise ModelError(
                f"{model.label}: the original itself does not run: {pair.refusal}",
                hint=NOT_COMPARABLE,
            ) from error
        if not given:
            raise
        drawn = []
    return given + drawn, hints
