"""PyTorch in, ONNX out: exported unoptimized, folded, proved against PyTorch's own outputs.

Two proofs must hold before the file appears: the folded graph against the unfolded export, by
`bnfold.check`, and the file against the outputs of the PyTorch model, by the same noise rule.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from bnfold.errors import InputError, NotEquivalentError
from bnfold.pipeline import optimize
from bnfold.report import FoldReport
from bnfold.store import load, stage
from bnfold.targets import StrPath, resolve_target
from bnfold.torch.exported import events_of, trace_of
from bnfold.torch.inputs import Example, as_example
from bnfold.torch.onnx_export import Names, write_onnx
from bnfold.torch.onnx_proof import against_pytorch
from bnfold.torch.operators.arguments import arguments
from bnfold.torch.operators.normalization import BATCH_NORMS
from bnfold.torch.program_proof import examples_of
from bnfold.torch.reasons import reason_of
from bnfold.torch.surgery import clone

__all__ = ["Job", "export", "run_export"]

AnyModule = nn.Module | ExportedProgram


@dataclass(frozen=True)
class Job:
    """One export.

    Attributes:
        module: What is exported.
        example: Arguments of a module; None for a program.
        target: The file to write.
        names: What goes to the exporter.
        source: How messages and the report name the model.
        check: Prove the result before it is written.
        options: Keyword arguments of `bnfold.optimize`.
        examples: Other arguments to prove it on.
        progress: Called with what is being done.
    """

    module: AnyModule
    example: Example | None
    target: Path
    names: Names = field(default_factory=Names)
    source: str = ""
    check: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    examples: Sequence[Example] = ()
    progress: Callable[[str], None] | None = None


def export(  # noqa: PLR0913 - what the exporter and the fold take
    module: AnyModule,
    args: Any,
    path: StrPath,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int | None = None,
    check: bool = True,
    providers: Sequence[str] = ("cpu",),
    keep: Sequence[str] = (),
    merge: bool = True,
    ones_channel: bool = False,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> FoldReport:
    """Export a PyTorch model to ONNX, fold it, prove it, and write it.

    Args:
        module: A module in eval mode, a TorchScript module, or an exported program.
        args: Example inputs of a module: a tensor, or a tuple of positional arguments. None for an
            exported program, which knows its own.
        path: The ONNX file to write. It appears whole or not at all.
        kwargs: Keyword arguments of the module.
        dynamic_shapes: Which dimensions are open, as for ``torch.onnx.export``:
            ``({0: "N"},)`` leaves the first axis of the first input open under the name N.
        input_names: Names of the inputs in the file.
        output_names: Names of the outputs in the file.
        opset_version: Of the file; the exporter's default if None.
        check: Prove the file against the module and against the unfolded export.
        providers: Where to prove it; see `bnfold.check`.
        keep: Globs of site names to leave alone.
        merge: Make one operator of linear ones that are added or follow one another.
        ones_channel: As for `bnfold.optimize`.
        rtol: With ``atol``, a tolerance in place of the noise rule, for the unfolded export.
        atol: See ``rtol``.
        seed: Seed of the random inputs.
        progress: Called with what is being done, in a few words.

    Returns:
        What was folded, what was kept and why, and both proofs.

    Raises:
        InputError: The model is in training mode, does not run, or cannot be exported.
        NotEquivalentError: The result does not compute the same. Nothing was written.
        MissingPackageError: A package is not installed.
    """
    options = {
        "providers": providers, "keep": keep, "merge": merge, "ones_channel": ones_channel,
        "rtol": rtol, "atol": atol, "seed": seed,
    }  # fmt: skip
    example = None
    if not isinstance(module, ExportedProgram):
        given = as_example(args).map(lambda t: t.detach().cpu())
        example = Example(given.args, {**given.kwargs, **(kwargs or {})})
    names = Names(input_names, output_names, dynamic_shapes, opset_version)
    source = type(module).__name__
    others = () if example is None or dynamic_shapes is None else (_longer(example),)
    target = Path(path)
    return run_export(Job(module, example, target, names, source, check, options, others, progress))


def run_export(job: Job) -> FoldReport:
    """Export, fold, prove, and move into place; see `export`."""
    say = job.progress or (lambda _: None)
    _check_mode(job.module, job.source)
    if isinstance(job.module, nn.Module):
        copied = clone(job.module)
        here = all(t.device.type == "cpu" for t in (*copied.parameters(), *copied.buffers()))
        job = dataclasses.replace(job, module=copied if here else copied.cpu())
    reference, examples = _reference(job)
    target = resolve_target(Path("-"), job.target)
    with tempfile.TemporaryDirectory(prefix="bnfold-") as folder:
        unfolded, folded = Path(folder) / "unfolded.onnx", Path(folder) / "folded.onnx"
        say("exporting")
        write_onnx(job.module, job.example, unfolded, job.names)
        try:
            report = optimize(unfolded, folded, check=job.check, progress=say, **job.options)
        except NotEquivalentError as error:
            raise _at_home(error, folded, target, job.source) from error
        hints = list(report.hints)
        checks = report.checks
        if job.check:
            say("comparing with PyTorch")
            check, said = against_pytorch(folded, reference, examples)
            checks, hints = (*checks, check), [*hints, *said]
            if not check.equivalent:
                raise _differs(job.source, check, checks)
        with stage(load(folded), target, unchanged=True) as staged:
            staged.commit()
    return dataclasses.replace(
        report,
        model=job.source,
        output=str(target),
        bytes_after=staged.nbytes,
        checks=checks,
        hints=tuple(hints),
    )


def _check_mode(module: AnyModule, source: str) -> None:
    if isinstance(module, ExportedProgram):
        trace = trace_of(events_of(module))
        training = any(
            arguments(call).get("training", arguments(call).get("train", False))
            for call in trace.calls
            if call.op in BATCH_NORMS and call.op != "_native_batch_norm_legit_no_training"
            and any(datum.owner is not None for datum in call.inputs())
        )  # fmt: skip
        hint = "export it from a module in eval mode: call module.eval() before torch.export"
    elif isinstance(module, nn.Module):
        training, hint = module.training, "call module.eval() before it is saved or exported"
    else:
        raise InputError(
            f"a {type(module).__name__} is no PyTorch model",
            hint="give an nn.Module, a ScriptModule or an ExportedProgram",
        )
    if training:
        raise InputError(
            f"{source}: the model is in training mode, where batch normalization uses the batch",
            hint=hint,
        )


def _reference(job: Job) -> tuple[nn.Module, list[Example]]:
    """What to run in PyTorch, and on what."""
    if isinstance(job.module, ExportedProgram):
        module: nn.Module = job.module.module(check_guards=False)
        return module, examples_of(job.module)
    assert job.example is not None  # noqa: S101 - only programs come without
    try:
        with torch.no_grad():
            example = job.example.fresh()
            job.module(*example.args, **example.kwargs)
    except Exception as error:
        raise InputError(
            f"{job.source}: the model does not run on these inputs: {reason_of(error)}",
            hint="give the shapes that it expects",
        ) from error
    return job.module, [job.example, *job.examples]


def _longer(example: Example) -> Example:
    """Another size of the first axis, which is the one that is open most often."""
    return example.map(
        lambda t: torch.cat([t, t[:1]]) if t.ndim and len(t) else t, "another batch size"
    )


def _at_home(
    error: NotEquivalentError, folded: Path, target: Path, source: str
) -> NotEquivalentError:
    """The same error about the files that the caller knows."""
    feed = folded.with_name(f"{folded.stem}.failing.npz")
    hint = error.hint or ""
    if feed.exists():
        kept = target.with_name(f"{target.stem}.failing.npz")
        shutil.move(feed, kept)
        hint = hint.replace(str(feed), str(kept))
    message = error.message.replace(str(folded.with_name("unfolded.onnx")), source)
    return NotEquivalentError(message, hint=hint, checks=error.checks, report=error.report)


def _differs(source: str, check: Any, checks: Any) -> NotEquivalentError:
    bad = next((output for output in check.outputs if not output.equivalent), None)
    what = check.detail
    if bad is not None:
        what = f"output '{bad.name}': {bad.difference:.2g} apart, {bad.allowed:.2g} allowed"
    return NotEquivalentError(
        f"{source}: the ONNX file does not compute what PyTorch computes ({what}); "
        "nothing was written",
        hint="the exporter may be at fault; without the check it would be written all the same",
        checks=checks,
    )
