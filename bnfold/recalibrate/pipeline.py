"""From a job to a written model: what is read before, and what is done with the result."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

from onnx import ModelProto

from bnfold._version import __version__
from bnfold.errors import InputError, ModelError
from bnfold.graph import shapes
from bnfold.graph.fold import PROVENANCE as FOLDED
from bnfold.graph.index import Graph
from bnfold.isolation import run_isolated
from bnfold.progress import Progress
from bnfold.recalibrate.assess import drift_of, sorted_by_drift
from bnfold.recalibrate.gather import Gathered, GatherJob
from bnfold.recalibrate.norms import Norm, find_norms
from bnfold.recalibrate.renewal import PRECISE
from bnfold.recalibrate.report import NormKept, RecalibrationReport
from bnfold.recalibrate.write import sign, write_statistics
from bnfold.store import load, stage
from bnfold.targets import resolve_target

__all__ = ["renew"]


def renew(
    job: GatherJob,
    output: Path,
    state: Path,
    timeout: float | None,
    progress: Progress | None,
) -> RecalibrationReport:
    """Run a job, and write the model with what it found.

    Args:
        job: What to gather.
        output: The file to write.
        state: Where the run keeps what it has gathered until the output is written.
        timeout: Seconds after which it is given up, or None.
        progress: Called with what is being done.

    Raises:
        BnfoldError: See :func:`bnfold.recalibrate`.
    """
    source = Path(job.model)
    if output.exists() and source.exists() and output.samefile(source):
        raise InputError(f"{output}: the output is the input", hint="choose another name")
    target = resolve_target(source, output)
    model = load(source)
    if any(file.is_at(target) for file in model.external.values()):
        raise InputError(
            f"{target}: the output is external data of the input", hint="choose another name"
        )
    graph = Graph(model.proto)
    shapes.infer(graph)
    norms, skipped = find_norms(graph, model.tensors, job.only)
    _require_norms(source, model.proto, norms, skipped)
    job = dataclasses.replace(job, state=str(state))
    try:
        gathered = _run(job, timeout, progress)
        renewals = [
            job.rule.renewed(norm, moments, label=job.model)
            for norm, moments in zip(norms, gathered.moments, strict=True)
        ]
    except InputError:
        # What was gathered is of no use; what an earlier run has left is not ours to remove.
        if not job.resume:
            state.unlink(missing_ok=True)
        raise
    drifts = [
        drift_of(norm, renewal, moments.count)
        for norm, renewal, moments in zip(norms, renewals, gathered.moments, strict=True)
    ]
    changed = write_statistics(graph, model.tensors, norms, renewals)
    if changed:
        sign(model.proto, _provenance(job, gathered))
    with stage(model, target, unchanged=not changed) as staged:
        staged.commit()
    state.unlink(missing_ok=True)
    return RecalibrationReport(
        model=job.model,
        output=str(output),
        mode=job.mode,
        variance=job.rule.variance,
        pooling=job.rule.pooling,
        momentum=job.rule.momentum,
        provider=gathered.provider,
        samples=gathered.samples,
        batches=gathered.batches,
        norms=sorted_by_drift(drifts),
        kept=tuple(skipped),
        warnings=tuple(_warnings(job, norms, gathered)),
    )


def _run(job: GatherJob, timeout: float | None, progress: Progress | None) -> Gathered:
    if job.feeds is None:
        found: tuple[Gathered, ...] = run_isolated(job, progress, timeout)
        return found[0]
    # What is in this process's memory is not sent to another one.
    results: list[Gathered] = []
    job.run(progress=progress or (lambda _: None), learned=results.append)
    return results[0]


def _require_norms(
    source: Path, model: ModelProto, norms: list[Norm], skipped: list[NormKept]
) -> None:
    """Refuse a model with nothing to renew, or with something that must not be passed over."""
    training = [each for each in skipped if each.reason == "training_mode"]
    if training:
        raise ModelError(
            f"{source}: '{training[0].name}' is in training mode: it normalizes with the "
            "statistics of the batch, and has none to renew",
            hint="export the model in evaluation mode, or name the others with --only",
        )
    if norms:
        return
    if skipped:
        counts = Counter(each.reason for each in skipped)
        if set(counts) == {"excluded"}:
            raise InputError(
                f"{source}: --only matches none of its {len(skipped)} batch normalizations",
                hint=f"such as --only '{skipped[0].name}'",
            )
        first = next(each for each in skipped if each.reason != "excluded")
        raise ModelError(
            f"{source}: no batch normalization can be renewed: {first.detail}",
            hint="bnfold inspect shows all of them",
        )
    folded = next((e.value for e in model.metadata_props if e.key == FOLDED), None)
    if folded is not None:
        raise ModelError(
            f"{source}: its batch normalizations are folded already, by bnfold {folded}",
            hint="recalibrate the model that it was made from, then fold it again",
        )
    raise ModelError(
        f"{source}: there is no BatchNormalization in it",
        hint="exporters fold them unless told otherwise: export with do_constant_folding=False, "
        "or optimize=False",
    )


def _provenance(job: GatherJob, gathered: Gathered) -> str:
    rule = job.rule
    return (
        f"{__version__}: {job.mode}, {rule.variance} variance over {rule.pooling}, "
        f"momentum {rule.momentum:g}, {gathered.samples} samples"
    )


def _warnings(job: GatherJob, norms: list[Norm], gathered: Gathered) -> list[str]:
    warnings: list[str] = []
    if job.mode != PRECISE:
        return warnings
    for norm, moments in zip(norms, gathered.moments, strict=True):
        if moments.single:
            warnings.append(
                f"'{norm.name}': {moments.single} of {moments.batches} batches had one value for "
                "each channel, which normalizes to the bias alone; choose another --batch-size, "
                "or --mode sequential"
            )
            break
    return warnings
