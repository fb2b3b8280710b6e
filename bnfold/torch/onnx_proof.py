"""Does an ONNX file compute what the PyTorch model computes? Compared by the noise rule."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from bnfold.check.runtimes.threads import limit_threads
from bnfold.errors import MissingPackageError
from bnfold.report import CheckReport
from bnfold.torch.inputs import Example
from bnfold.torch.surrogate import array_of
from bnfold.torch.verify import compare_outputs, outputs_of

__all__ = ["against_pytorch"]

log = logging.getLogger(__name__)


def against_pytorch(
    file: Path, module: nn.Module, examples: Sequence[Example]
) -> tuple[CheckReport, list[str]]:
    """Run a module and an ONNX file on the same inputs.

    Args:
        file: The ONNX file.
        module: The module that it was made from.
        examples: Arguments; the first ones are those of the export.

    Returns:
        The comparison, and what there is to say about it.

    Raises:
        MissingPackageError: onnxruntime is not installed.
    """
    model = _Model(file)
    pairs = []
    hints: list[str] = []
    for index, example in enumerate(examples):
        try:
            expected = outputs_of(module, example)
        except Exception as error:
            if index == 0:
                raise
            log.info("%s: %s", example.label, error)
            continue
        try:
            found = model.run(example)
        except Exception as error:  # noqa: BLE001 - the runtime says what it does not like
            reason = (str(error).strip().splitlines() or [""])[0]
            if index == 0:
                detail = f"the ONNX file does not run: {reason}"
                return CheckReport("PyTorch", "disable_all", False, (), 0, detail=detail), hints
            hints.append(f"the ONNX file does not run with {example.label}: {reason[:160]}")
            continue
        tensors = [leaf for leaf in expected.leaves if isinstance(leaf, torch.Tensor)]
        if len(tensors) != len(found):
            detail = f"PyTorch returns {len(tensors)} tensors, the ONNX file {len(found)}"
            return CheckReport("PyTorch", "disable_all", False, (), 0, detail=detail), hints
        pairs.append((example, expected, found))
    outputs = compare_outputs(module, pairs, model.outputs)
    equivalent = all(output.equivalent for output in outputs)
    return CheckReport("PyTorch", "disable_all", equivalent, outputs, len(pairs)), hints


class _Model:
    def __init__(self, file: Path) -> None:
        try:
            import onnxruntime  # noqa: PLC0415 - an optional package
        except ModuleNotFoundError as error:
            raise MissingPackageError(
                "comparing with PyTorch needs the package 'onnxruntime', which is not installed",
                hint="pip install 'bnfold[cpu]'",
            ) from error
        options = onnxruntime.SessionOptions()
        limit_threads(options)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        self.run_on: Any
        try:
            session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            if "NOT_IMPLEMENTED" not in str(error):
                raise
            from bnfold.check.runtimes.evaluator_ops import evaluator_class  # noqa: PLC0415

            evaluator = evaluator_class()(onnx.load(file))
            self.inputs, self.outputs = evaluator.input_names, evaluator.output_names
            self.run_on = evaluator.run
        else:
            self.inputs = [item.name for item in session.get_inputs()]
            self.outputs = [item.name for item in session.get_outputs()]
            self.run_on = session.run

    def run(self, example: Example) -> list[torch.Tensor]:
        arrays = [array_of(tensor.contiguous()) for tensor in example.tensors()]
        feeds = dict(zip(self.inputs, arrays, strict=False))
        results = [np.asarray(result) for result in self.run_on(None, feeds)]
        return [_tensor(result) for result in results]


def _tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))
