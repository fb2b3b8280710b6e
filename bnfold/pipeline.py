"""The whole way of a model: load, simplify, fold, save beside the target, prove, move into place.

These are the functions behind the verbs of the command line. None of them prints.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import onnx

from bnfold.errors import InputError, NotEquivalentError, ProviderError
from bnfold.graph.census import operator_counts
from bnfold.graph.fold import FoldOptions, fold_model
from bnfold.graph.validity import blaming
from bnfold.memory import as_given, open_any
from bnfold.neighbours.onnx_program import accepts_programs
from bnfold.progress import Progress
from bnfold.report import CheckReport, FoldReport
from bnfold.store import LoadedModel, load, stage
from bnfold.targets import StrPath, resolve_target

if TYPE_CHECKING:
    import onnx_ir

    from bnfold.recalibrate.report import NormStatistics

__all__ = ["fold", "inspect", "optimize"]

AnyModel = TypeVar("AnyModel", onnx.ModelProto, "onnx_ir.Model")


@accepts_programs
def optimize(  # noqa: PLR0913 - one keyword for each option of the command line
    src: StrPath,
    dst: StrPath | None = None,
    *,
    in_place: bool = False,
    check: bool = True,
    providers: str | Sequence[str] = ("cpu",),
    level: str = "default",
    keep: Sequence[str] = (),
    freeze_initializers: bool = False,
    merge: bool = True,
    ones_channel: bool = False,
    simplify: bool = False,
    statistics: bool = False,
    inputs: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
    data: Sequence[StrPath] = (),
    data_loader: str | None = None,
    samples: int | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    tolerances: StrPath | Mapping[str, Any] | None = None,
    seed: int = 0,
    timeout: float | None = None,
    progress: Progress | None = None,
) -> FoldReport:
    """Fold a model file, prove the result, and write it.

    The output appears whole or not at all. If there is nothing to fold it is a copy of the input,
    byte for byte, and there is nothing to prove.

    Args:
        src: The model to read, which is not changed unless ``in_place``; or an ``ONNXProgram`` from
            ``torch.onnx.export``, of which a folded one is returned if ``dst`` is None.
        dst: The file to write; ``model.folded.onnx`` beside ``model.onnx`` if None.
        in_place: Replace ``src`` itself.
        check: Prove that the result computes the same before it is written.
        providers: Where to prove it: ``cpu``, ``cuda`` and others; see :func:`bnfold.check`.
        level: Optimization level of the deployment, for the proof.
        keep: Globs of site names to leave alone.
        freeze_initializers: Take initializers that a caller could override for constants, and take
            them out of the inputs.
        merge: Make one operator of linear ones that are added or follow one another.
        ones_channel: Fold a normalization in front of a padded convolution by giving the
            convolution before it one more channel, which is constantly 1.
        simplify: Run onnxsim first; the proof is still against ``src``.
        statistics: Report what can be seen of the statistics of ``src`` too, as `inspect` does.
        inputs: Shapes by input name, for the proof; "" names the only input.
        dims: Sizes of symbolic dimensions, for the proof.
        data: Files with real inputs to compare on as well.
        data_loader: ``file.py:function`` that returns or yields inputs to compare on as well.
        samples: Number of inputs to compare on, the given ones first.
        rtol: With ``atol``, a tolerance in place of the noise rule.
        atol: See ``rtol``.
        tolerances: Tolerances for single outputs, or a file with them; see :func:`bnfold.check`.
        seed: Seed of the random inputs.
        timeout: Give the proof up after this many seconds.
        progress: Called with what is being done, in a few words.

    Returns:
        What was folded, what was kept and why, and the proof; a new ``ONNXProgram`` for one.

    Raises:
        InputError: An argument cannot be used, or the output cannot be written there.
        ModelError: ``src`` cannot be read.
        NotEquivalentError: The result does not compute the same. Nothing was written but the feed
            that shows it, as ``model.folded.failing.npz`` beside ``dst``.
        ProviderError: A provider or a package is missing.
    """
    say = progress or _say_nothing
    source = Path(src)
    target = resolve_target(source, dst, in_place=in_place)
    model = load(source)
    if any(file.is_at(target) for file in model.external.values()):
        raise InputError(
            f"{target}: the output is external data of the input", hint="choose another name"
        )
    operators_before, size_before = operator_counts(model.proto), model.size
    found = _statistics(model) if statistics else None
    hints: tuple[str, ...] = ()
    if simplify:
        from bnfold.simplify import simplify as run_onnxsim

        say("simplifying")
        simplified = run_onnxsim(model, str(src), freeze_initializers=freeze_initializers)
        model, hints = simplified.model, (simplified.hint,)
    say("folding")
    report, changed = fold_model(
        model,
        _options(
            keep, freeze_initializers=freeze_initializers, merge=merge, ones_channel=ones_channel
        ),
    )
    changed |= simplify
    report = dataclasses.replace(
        report,
        model=str(src),
        nodes_before=sum(operators_before.values()),
        operators_before=operators_before,
        bytes_before=size_before,
        statistics=found,
        hints=(*hints, *report.hints),
    )
    checks: tuple[CheckReport, ...] = ()
    say("writing")
    with stage(model, target, unchanged=not changed) as staged:
        if check and changed:
            from bnfold.check import check as compare

            failing_feed = target.with_name(f"{target.stem}.failing.npz")
            try:
                checks = compare(
                    source,
                    staged.path,
                    providers=providers,
                    level=level,
                    inputs=inputs,
                    dims=dims,
                    data=data,
                    data_loader=data_loader,
                    samples=samples,
                    rtol=rtol,
                    atol=atol,
                    tolerances=tolerances,
                    seed=seed,
                    timeout=timeout,
                    progress=progress,
                    failing_feed=failing_feed,
                )
            except ProviderError as error:
                error.learned = (*error.learned, report)
                raise
            if not all(each.equivalent for each in checks):
                raise _not_equivalent(source, report, checks, failing_feed)
        staged.commit()
    return dataclasses.replace(
        report,
        output=str(target),
        bytes_after=staged.nbytes,
        checks=checks,
    )


@overload
def fold(
    model: StrPath,
    *,
    keep: Sequence[str] = (),
    freeze_initializers: bool = False,
    merge: bool = True,
    ones_channel: bool = False,
) -> onnx.ModelProto: ...


@overload
def fold(
    model: AnyModel,
    *,
    keep: Sequence[str] = (),
    freeze_initializers: bool = False,
    merge: bool = True,
    ones_channel: bool = False,
) -> AnyModel: ...


def fold(
    model: StrPath | onnx.ModelProto | onnx_ir.Model,
    *,
    keep: Sequence[str] = (),
    freeze_initializers: bool = False,
    merge: bool = True,
    ones_channel: bool = False,
) -> onnx.ModelProto | onnx_ir.Model:
    """Fold a model in memory, without a proof; `check` gives one, `inspect` the verdicts.

    Args:
        model: A ``ModelProto``, an ``onnx_ir.Model``, or the path of a model file. It is not
            changed.
        keep: Globs of site names to leave alone.
        freeze_initializers: As for `optimize`.
        merge: As for `optimize`.
        ones_channel: As for `optimize`.

    Returns:
        A new model of the same type, its weights inside; a ``ModelProto`` for a path.

    Raises:
        InputError: ``model`` is of another type.
        ModelError: The model cannot be read, or is too large for memory.
    """
    loaded = open_any(model)
    fold_model(
        loaded,
        _options(
            keep, freeze_initializers=freeze_initializers, merge=merge, ones_channel=ones_channel
        ),
    )
    folded: onnx.ModelProto | onnx_ir.Model = as_given(model, loaded)
    return folded


def inspect(
    src: StrPath | onnx.ModelProto | onnx_ir.Model,
    *,
    keep: Sequence[str] = (),
    freeze_initializers: bool = False,
    merge: bool = True,
    ones_channel: bool = False,
    statistics: bool = False,
) -> FoldReport:
    """Say what `optimize` would fold, and why the rest would stay. Nothing is written or changed.

    Args:
        src: A path, a ``ModelProto`` or an ``onnx_ir.Model``.
        keep: As for `optimize`.
        freeze_initializers: As for `optimize`.
        merge: As for `optimize`.
        ones_channel: As for `optimize`.
        statistics: Report what can be seen of the statistics too: ranges, dead channels, channels
            that amplify noise.

    Raises:
        InputError: ``src`` is of another type.
        ModelError: The model cannot be read.
    """
    model = open_any(src)
    found = _statistics(model) if statistics else None
    report, _ = fold_model(
        model,
        _options(
            keep, freeze_initializers=freeze_initializers, merge=merge, ones_channel=ones_channel
        ),
    )
    return dataclasses.replace(
        report,
        model=None if model.path is None else str(src),
        bytes_before=model.size,
        statistics=found,
    )


def _statistics(model: LoadedModel) -> tuple[NormStatistics, ...]:
    from bnfold.recalibrate.assess import statistics_of

    with blaming(model):
        return statistics_of(model)


def _say_nothing(_: str) -> None:
    pass


def _options(
    keep: Sequence[str], *, freeze_initializers: bool, merge: bool, ones_channel: bool
) -> FoldOptions:
    if isinstance(keep, str):
        keep = (keep,)
    return FoldOptions(tuple(keep), freeze_initializers, merge, ones_channel)


def _not_equivalent(
    source: Path, report: FoldReport, checks: tuple[CheckReport, ...], failing_feed: Path
) -> NotEquivalentError:
    failed = next(check for check in checks if not check.equivalent)
    output = next((output for output in failed.outputs if not output.equivalent), None)
    what = failed.detail
    if what is None and output is not None:
        what = f"output '{output.name}': "
        what += output.detail or f"{output.difference:.2g} apart, {output.allowed:.2g} allowed"
    hint = "this is a bug in bnfold, please report it; --keep leaves a site alone meanwhile"
    if failing_feed.exists():
        hint = f"'{failing_feed}' holds the inputs that show it; {hint}"
    return NotEquivalentError(
        f"{source}: the folded model does not compute the same on {failed.provider}, "
        f"level {failed.level} ({what}); nothing was written",
        hint=hint,
        checks=checks,
        report=report,
    )
