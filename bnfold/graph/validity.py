"""Whose fault it is when the work on a graph fails: the model's, if it is not valid ONNX."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import onnx
from onnx import ModelProto, TensorProto

from bnfold.errors import BnfoldError, ModelError
from bnfold.graph.shapes import harmless
from bnfold.store import LoadedModel, iter_tensors

__all__ = ["blaming"]

log = logging.getLogger(__name__)
_LONGEST = 300


@contextlib.contextmanager
def blaming(model: LoadedModel) -> Iterator[None]:
    """Turn an unexpected error into a `ModelError` where ONNX itself finds fault with the model.

    Rules read attributes and inputs as the specification promises them. Checking every model first
    would cost more than folding it, and refuse much that runtimes take.

    Raises:
        ModelError: The model is not valid. Other errors are bugs, and go on.
    """
    original = ModelProto()
    original.CopyFrom(model.proto)
    label = "the model" if model.path is None else str(model.path)
    try:
        yield
    except ModelError as error:
        if label not in error.message:
            raise ModelError(f"{label}: {error.message}", hint=error.hint) from error
        raise
    except BnfoldError:
        raise
    except (Exception, RecursionError) as error:
        why = _complaint(original)
        if why is None:
            raise
        log.debug("the model is not valid", exc_info=True)
        raise ModelError(
            f"{label}: not a valid ONNX model: {why}", hint="export it again"
        ) from error


def _complaint(model: ModelProto) -> str | None:
    """Return what ONNX says against a model, in one line, or None."""
    model.ir_version = min(model.ir_version, onnx.IR_VERSION)  # the checker may be older
    for tensor in iter_tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:  # its values do not matter here
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.dims[:] = [0]
    try:
        onnx.checker.check_model(model)
        onnx.shape_inference.infer_shapes(harmless(model), check_type=True, strict_mode=True)
    except Exception as error:  # noqa: BLE001 - its own classes are not the only ones to come out
        lines = str(error).split()
        return " ".join(lines)[:_LONGEST] or type(error).__name__
    return None
