"""The check itself, in this process: which models, which feeds, which providers.

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

import dataclasses
from collections.abc import Callable, Sequence

from bnfold.check.data import save_feed
from bnfold.check.feeds.feed import Feed, apply_shapes
from bnfold.check.feeds.hints import Hints, find_hints
from bnfold.check.feeds.source import FeedSource
from bnfold.check.localization.localize import localize
from bnfold.check.models.model import Model, interface_difference, open_model
from bnfold.check.models.pairs import NOT_COMPARABLE, Pair, open_pair
from bnfold.check.request import Request
from bnfold.check.runtimes.providers import CUDA, provider_name, resolve_provider
from bnfold.check.runtimes.sessions import REFERENCE_EVALUATOR, UNOPTIMIZED, refusal
from bnfold.check.verdict.compare import Tolerance
from bnfold.check.verdict.tf32 import measure_tf32
from bnfold.check.verdict.tolerances import load_tolerances
from bnfold.check.verdict.verify import different, verify
from bnfold.errors import InputError, ModelError
from bnfold.progress import Progress
from bnfold.report import CheckReport, Localization

__all__ = ["run_check"]


def run_check(
    request: Request, *, progress: Progress, learned: Callable[[CheckReport], None]
) -> None:
    """Compare two models.

    Args:
        request: Which, and how.
        progress: Called with what is being done.
        learned: Called with each report: for each provider one at ``disable_all``, then one at
            the level of the deployment.

    Raises:
        BnfoldError: See :func:`bnfold.check`.
    """
    names = list(dict.fromkeys(map(resolve_provider, request.providers)))
    reference = open_model(request.reference, "reference")
    candidate = open_model(request.candidate, "candidate")
    outputs = [spec.name for spec in reference.outputs]
    rules = _rules(request, outputs)
    why = interface_difference(reference, candidate)
    if why is not None:
        for name in names:
            for level in dict.fromkeys((UNOPTIMIZED, request.level)):
                learned(different(outputs, name, level, why))
        return
    saved: str | None = None
    for name in names:
        progress(f"{name}: loading the reference")
        pair = open_pair(reference, candidate, name, request.level)
        feeds, hints = _prepare(pair, request)
        reports, rejected = verify(
            pair,
            feeds,
            hints,
            tolerance=rules,
            seed=request.seed,
            progress=progress,
            oracle=request.oracle,
        )
        warnings: tuple[str, ...] = ()
        if rejected is not None and saved is None and request.failing_feed is not None:
            saved, warnings = _save(rejected, request.failing_feed)
        found: Localization | None = None
        if request.localize and rejected is not None:
            level = next(report.level for report in reports if not report.equivalent)
            found = localize(pair, rejected, hints, level=level, seed=request.seed, tell=progress)
        for report in reports:
            rounded = None
            if request.tf32 and provider_name(name) == CUDA:
                progress(f"{name}: measuring TF32 at level {report.level}")
                rounded = measure_tf32(pair, report.level, feeds, hints, request.seed)
            learned(
                dataclasses.replace(
                    report,
                    nodes=pair.nodes,
                    tf32=rounded,
                    localization=None if report.equivalent else found,
                    failing_feed=None if report.equivalent else saved,
                    warnings=(*report.warnings, *warnings),
                )
            )


def _rules(request: Request, outputs: Sequence[str]) -> dict[str, Tolerance]:
    """Return a caller's tolerances by output name: those of the file, else the general one."""
    rules: dict[str, Tolerance] = {}
    if request.rtol is not None and request.atol is not None:
        rules = dict.fromkeys(outputs, Tolerance(request.rtol, request.atol))
    if request.tolerances is not None:
        rules |= load_tolerances(request.tolerances, outputs)
    return rules


def _save(feed: Feed, path: str) -> tuple[str | None, tuple[str, ...]]:
    """Save a feed; that it cannot be saved must not hide what it shows."""
    try:
        save_feed(feed, path)
    except (InputError, OSError) as error:
        return None, (f"the failing inputs could not be saved: {error}",)
    return path, ()


def _prepare(pair: Pair, request: Request) -> tuple[FeedSource, Hints]:
    """Return the feeds, a caller's own first, and the advice about the inputs."""
    model: Model = pair.reference
    specs = apply_shapes(model.inputs, request.inputs, request.dims)
    hints = find_hints(model.skeleton.proto, [spec.name for spec in specs])

    def translate(error: InputError) -> InputError:
        if pair.provider != REFERENCE_EVALUATOR:
            return error
        return ModelError(
            f"{model.label}: the original itself does not run: {pair.refusal}", hint=NOT_COMPARABLE
        )

    source = FeedSource(
        request,
        specs,
        model.outputs,
        hints,
        lambda feed: refusal(pair.truth, feed.arrays),
        quick=pair.provider == REFERENCE_EVALUATOR,
        translate=translate,
    )
    return source, hints
