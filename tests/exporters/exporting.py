"""PyTorch's exporters, quiet, with the batch dimension open."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["EXPORTERS", "export_module", "export_program"]

EXPORTERS = ("dynamo", "dynamo-unoptimized", "legacy", "legacy-unfolded")


def export_module(module: nn.Module, batch: Tensor, exporter: str, path: Path) -> None:
    """Export a module by one of ``EXPORTERS``; those that are not to fold keep all normalizations."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with contextlib.ExitStack() as quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quiet.enter_context(contextlib.redirect_stdout(io.StringIO()))
        quiet.enter_context(contextlib.redirect_stderr(io.StringIO()))
        if exporter.startswith("dynamo"):
            torch.onnx.export(
                module, (batch,), path, dynamo=True, optimize=exporter == "dynamo",
                dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
            )  # fmt: skip
            return
        unfolded = exporter == "legacy-unfolded"
        mode = torch.onnx.TrainingMode.PRESERVE if unfolded else torch.onnx.TrainingMode.EVAL
        torch.onnx.export(
            module, (batch,), str(path), dynamo=False, do_constant_folding=not unfolded,
            training=mode, input_names=["x"], dynamic_axes={"x": {0: "batch"}},
        )  # fmt: skip


def export_program(module: nn.Module, batch: Tensor) -> torch.onnx.ONNXProgram:
    """Return what PyTorch's exporter makes of a module, in memory."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with contextlib.ExitStack() as quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quiet.enter_context(contextlib.redirect_stdout(io.StringIO()))
        quiet.enter_context(contextlib.redirect_stderr(io.StringIO()))
        program = torch.onnx.export(
            module, (batch,), dynamo=True, dynamic_shapes=({0: "batch"},), verbose=False
        )
        assert program is not None
        return program
