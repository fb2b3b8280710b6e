"""Runs PyTorch's exporters, without any optimization of theirs: folding is ours, in float64."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from bnfold.errors import InputError, MissingPackageError
from bnfold.torch.inputs import Example
from bnfold.torch.reasons import reason_of

__all__ = ["Names", "argument_names", "write_onnx"]

log = logging.getLogger(__name__)
LEGACY_OPSET = 17


@dataclass(frozen=True)
class Names:
    """How the ONNX file names things, and which of its dimensions are open."""

    inputs: Sequence[str] | None = None
    outputs: Sequence[str] | None = None
    dynamic_shapes: Any = None
    opset: int | None = None


def write_onnx(
    module: nn.Module | ExportedProgram, example: Example | None, file: Path, names: Names
) -> None:
    """Write an unoptimized ONNX file.

    Args:
        module: TorchScript goes through the legacy exporter, everything else through dynamo's.
        example: Arguments of the module; None for a program, which knows its own.
        file: Where to write.
        names: What the exporter takes beside.

    Raises:
        InputError: The exporter refuses the model.
        MissingPackageError: onnxscript is not installed.
    """
    said = io.StringIO()
    try:
        with _quiet(said):
            if isinstance(module, torch.jit.ScriptModule):
                _legacy(module, example, file, names)
            else:
                _dynamo(module, example, file, names)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"exporting to ONNX needs the package '{error.name}', which is not installed",
            hint="pip install 'bnfold[torch]'",
        ) from error
    except Exception as error:
        log.debug("%s", said.getvalue())
        log.debug("the exporter failed", exc_info=True)
        reason = reason_of(_first_cause(error))
        raise InputError(
            f"this {type(module).__name__} cannot be exported to ONNX: {reason}",
            hint="-v (or the log of 'bnfold') shows all that the exporter says",
        ) from error
    log.debug("%s", said.getvalue())


def _dynamo(
    module: nn.Module | ExportedProgram, example: Example | None, file: Path, names: Names
) -> None:
    program = torch.onnx.export(
        module,
        () if example is None else example.fresh().args,
        kwargs=None if example is None else example.fresh().kwargs,
        dynamo=True,
        optimize=False,
        verbose=False,
        input_names=names.inputs,
        output_names=names.outputs,
        dynamic_shapes=names.dynamic_shapes,
        opset_version=names.opset,
    )
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    program.save(str(file))


def _legacy(
    module: torch.jit.ScriptModule, example: Example | None, file: Path, names: Names
) -> None:
    """With constant folding the exporter would fold Conv and BatchNorm itself, in float32."""
    if example is None:
        raise ValueError("TorchScript does not know its inputs")
    axes = _axes(module, names)
    torch.onnx.export(
        module,
        (*example.fresh().args, *example.fresh().kwargs.values()),
        str(file),
        dynamo=False,
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.EVAL,
        input_names=names.inputs or argument_names(module),
        output_names=names.outputs,
        dynamic_axes=axes,
        opset_version=names.opset or LEGACY_OPSET,
    )


def argument_names(module: torch.jit.ScriptModule) -> list[str]:
    """The names of the inputs of a TorchScript module."""
    forward: Any = module.forward
    return [argument.name for argument in forward.schema.arguments[1:]]


def _axes(module: torch.jit.ScriptModule, names: Names) -> dict[str, Any] | None:
    """dynamic_shapes in the words of the legacy exporter: by name, or in the order of arguments."""
    shapes = names.dynamic_shapes
    if shapes is None:
        return None
    known = names.inputs or argument_names(module)
    by_name = (
        dict(shapes) if isinstance(shapes, Mapping) else dict(zip(known, shapes, strict=False))
    )
    axes: dict[str, Any] = {}
    for name, dims in by_name.items():
        pairs = dims.items() if isinstance(dims, Mapping) else enumerate(dims or ())
        axes[name] = {
            axis: dim if isinstance(dim, str) else getattr(dim, "__name__", f"{name}_{axis}")
            for axis, dim in pairs
            if dim is not None
        }
    return axes


@contextlib.contextmanager
def _quiet(said: io.StringIO) -> Iterator[None]:
    """Exporters print progress and warn of themselves; that goes to the log."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _first_cause(error: BaseException) -> BaseException:
    """What started it all."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
