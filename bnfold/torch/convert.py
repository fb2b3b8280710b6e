"""A PyTorch file in, an ONNX file or an exported program out: what the command line does."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from bnfold.errors import InputError
from bnfold.report import FoldReport
from bnfold.store.temporaries import replacing
from bnfold.targets import StrPath, default_target, resolve_target
from bnfold.torch.export import Job, run_export
from bnfold.torch.files import written_as
from bnfold.torch.inputs import Example
from bnfold.torch.load import load
from bnfold.torch.onnx_export import Names, argument_names
from bnfold.torch.program import fold_program
from bnfold.torch.reasons import reason_of

__all__ = ["optimize"]

OUTPUTS = (".onnx", ".pt2")


def optimize(  # noqa: PLR0913 - one keyword for each option of the command line
    src: StrPath,
    dst: StrPath | None = None,
    *,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    ema: bool = False,
    trust_pickle: bool = False,
    inputs: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
    in_place: bool = False,
    check: bool = True,
    keep: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
    options: Mapping[str, Any] | None = None,
) -> FoldReport:
    """Fold a PyTorch file and write it as ONNX (``.onnx``) or as an exported program (``.pt2``).

    Args:
        src: A file of any kind that `load` opens.
        dst: The file to write; its suffix says as what. By default ``model.folded.pt2`` for an
            exported program, ``model.folded.onnx`` for everything else.
        arch: As for `load`.
        arch_args: As for `load`.
        ema: As for `load`.
        trust_pickle: As for `load`.
        inputs: Shapes by input name, "" for the only one: what a module is exported with.
        dims: For a module: a name under which the first axis of its inputs is left open, and a size
            to prove it at. For an exported program: sizes of its own symbolic dimensions.
        in_place: Replace ``src``, an exported program.
        check: Prove the result before it is written.
        keep: Globs of site names to leave alone.
        progress: Called with what is being done, in a few words.
        options: Other keyword arguments of `bnfold.optimize`, for ONNX.

    Returns:
        What was folded, what was kept and why, and the proofs.

    Raises:
        InputError: An argument cannot be used, or the model cannot be exported.
        ModelError: ``src`` cannot be read.
        NotEquivalentError: The result does not compute the same. Nothing was written.
        MissingPackageError: A package is not installed.
    """
    source = Path(src)
    target = resolve_target(source, dst or _default(source, in_place), in_place=in_place)
    if target.suffix not in OUTPUTS:
        raise InputError(
            f"{target}: PyTorch models are written as .onnx or .pt2",
            hint="name the output so: -o model.onnx or -o model.pt2",
        )
    say = progress or (lambda _: None)
    say("loading")
    model = load(source, arch=arch, arch_args=arch_args, ema=ema, trust_pickle=trust_pickle)
    if target.suffix == ".pt2":
        say("folding")
        report = _to_program(model, target, inputs, dims, str(source), keep=keep, check=check)
        return dataclasses.replace(report, bytes_before=source.stat().st_size)
    size = source.stat().st_size
    others = {**(options or {}), "keep": keep, "dims": dims}
    if isinstance(model, ExportedProgram):
        job = Job(model, None, target, Names(), str(source), check, others, (), progress)
        return dataclasses.replace(run_export(job), bytes_before=size)
    example, guessed = _example(model, inputs or {}, str(source))
    names, examples, example = _opened(model, example, dims or {}, str(source))
    others["dims"] = dims if names.dynamic_shapes is not None else None
    job = Job(model, example, target, names, str(source), check, others, examples, progress)
    report = run_export(job)
    return dataclasses.replace(report, bytes_before=size, hints=(*guessed, *report.hints))


def _default(source: Path, in_place: bool) -> Path | None:
    if in_place:
        return None
    target = default_target(source)
    return target.with_suffix(written_as(source))


# --- .pt2


def _to_program(
    model: ExportedProgram | nn.Module,
    target: Path,
    inputs: Mapping[str, Sequence[int]] | None,
    dims: Mapping[str, int] | None,
    source: str,
    *,
    keep: Sequence[str],
    check: bool,
) -> FoldReport:
    hints: tuple[str, ...] = ()
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            f"{source}: a TorchScript archive cannot become an exported program",
            hint="write it as ONNX: -o model.onnx",
        )
    if isinstance(model, nn.Module):
        model, hints = _exported(model, inputs or {}, dims or {}, source)
    folded, report = fold_program(model, keep=keep, check=check)
    _save(folded, target)
    return dataclasses.replace(
        report,
        model=source,
        output=str(target),
        bytes_after=target.stat().st_size,
        hints=(*hints, *report.hints),
    )


def _exported(
    module: nn.Module,
    inputs: Mapping[str, Sequence[int]],
    dims: Mapping[str, int],
    source: str,
) -> tuple[ExportedProgram, tuple[str, ...]]:
    if module.training:
        raise InputError(
            f"{source}: the model is in training mode, where batch normalization uses the batch",
            hint="call module.eval() before it is saved",
        )
    example, hints = _example(module, inputs, source)
    names, _, example = _opened(module, example, dims, source)
    shapes = names.dynamic_shapes
    if shapes is not None:
        name = next(iter(dims))
        axis = torch.export.Dim(name)
        shapes = tuple({0: axis} for _ in shapes)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                module, example.args, example.kwargs or None, dynamic_shapes=shapes, strict=False
            )
    except Exception as error:
        raise InputError(
            f"{source}: torch.export does not take the model: {reason_of(error)}",
            hint="write it as ONNX, or change the code that torch.export does not take",
        ) from error
    return program, hints


def _save(program: ExportedProgram, target: Path) -> None:
    """Write beside the target, and move into place when whole."""
    try:
        with replacing(target) as staged, staged.open("xb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Given a path, it would write the temporary name into the archive.
            torch.export.save(program, file)
    except (OSError, RuntimeError) as error:  # torch's own writer raises the latter
        raise InputError(
            f"{target}: cannot be written: {reason_of(error)}",
            hint="is there room, and may you write there? -o chooses another place",
        ) from error


# --- inputs of modules


def _example(
    module: nn.Module, inputs: Mapping[str, Sequence[int]], source: str
) -> tuple[Example, tuple[str, ...]]:
    """Random inputs of the shapes given, or of those that the model itself tells."""
    hints: tuple[str, ...] = ()
    known = _parameters(module)
    if not inputs:
        config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
        size = config.get("input_size") if isinstance(config, Mapping) else None
        if size is None:
            raise InputError(
                f"{source}: the shape of its input is not known",
                hint=f"give it: --input {known[0] if known else 'x'}:1x3x224x224",
            )
        inputs = {"": (1, *size)}
        text = "x".join(map(str, inputs[""]))
        hints = (f"no --input was given: exported for {text}, the size that the model names",)
    shapes = dict(inputs)
    if "" in shapes:
        shapes[known[0] if known else ""] = shapes.pop("")
    unknown = [name for name in shapes if name not in known]
    if unknown and known:
        raise InputError(
            f"{source}: the model has no input '{unknown[0]}'",
            hint="it has " + ", ".join(f"'{name}'" for name in known),
        )
    drawn = {name: _draw(module, shape) for name, shape in shapes.items()}
    ordered = [drawn.pop(name) for name in known if name in drawn and _leads(name, known, shapes)]
    return Example(tuple(ordered), drawn), hints


def _leads(name: str, known: Sequence[str], shapes: Mapping[str, Any]) -> bool:
    """True if every argument before it is given too, so that it can be positional."""
    return all(other in shapes for other in known[: known.index(name)])


def _parameters(module: nn.Module) -> list[str]:
    if isinstance(module, torch.jit.ScriptModule):
        return argument_names(module)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(module.forward).parameters.values()
    return [p.name for p in parameters if p.kind in (*kinds, inspect.Parameter.KEYWORD_ONLY)]


def _draw(module: nn.Module, shape: Sequence[int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    first = next((p for p in module.modules() if list(p.parameters(recurse=False))), None)
    if isinstance(first, nn.Embedding):
        return torch.randint(0, first.num_embeddings, tuple(shape), generator=generator)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    return torch.randn(tuple(shape), generator=generator).to(dtype)


def _opened(
    module: nn.Module, example: Example, dims: Mapping[str, int], source: str
) -> tuple[Names, Sequence[Example], Example]:
    """Leave the first axis open where ``--dim`` gives it a name; a batch of 1 would fix it."""
    if not dims:
        return Names(), (), example
    if len(dims) > 1 or example.kwargs:
        raise InputError(
            f"{source}: --dim leaves one axis open, the first of each input",
            hint="for more, export from Python: bnfold.export(..., dynamic_shapes=...)",
        )
    name, size = next(iter(dims.items()))

    def resized(length: int, label: str) -> Example:
        def change(tensor: torch.Tensor) -> torch.Tensor:
            times = -(-length // max(len(tensor), 1))
            return torch.cat([tensor] * times)[:length]

        return example.map(change, label)

    wide = resized(max(2, len(example.tensors()[0])), "the example inputs")
    proved = resized(size, f"{name}={size}")
    return Names(dynamic_shapes=tuple({0: name} for _ in wide.args)), (proved,), wide
