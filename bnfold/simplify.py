"""``--simplify``: onnxsim first, for constant expressions that bnfold does not evaluate.

onnxsim works on a copy. Its own batch normalization fusion is off, and what it does to the outside
of a model is undone: inputs, outputs, producer, documentation and metadata stay as they were. What
it does to the inside is proved with the rest, against the original file.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx

from bnfold.errors import InputError, MissingPackageError
from bnfold.memory import to_proto
from bnfold.store import LoadedModel, from_bytes

__all__ = ["Simplified", "simplify"]

_KEPT_FIELDS = ("producer_name", "producer_version", "domain", "model_version", "doc_string")


@dataclass(frozen=True)
class Simplified:
    """What onnxsim made of a model.

    Attributes:
        model: The simplified model.
        hint: One sentence on what changed.
    """

    model: LoadedModel
    hint: str


def simplify(model: LoadedModel, label: str, *, freeze_initializers: bool = False) -> Simplified:
    """Run onnxsim on a model.

    Args:
        model: The model; its external data is brought inside.
        label: What messages call it.
        freeze_initializers: Initializers that a caller could override count as constants.

    Raises:
        MissingPackageError: onnxsim is not installed.
        InputError: onnxsim cannot simplify this model.
    """
    run = _onnxsim()
    original = to_proto(model)
    options: dict[str, bool] = {}
    if _lists_initializers(original):
        # onnxsim would take them out of the inputs, and so take them for constants.
        options["mutable_initializer"] = True
        if original.ir_version >= 4 and not freeze_initializers:
            options["initializers_as_constants"] = False
    try:
        simplified, _ = run(original, skip_fuse_bn=True, **options)
    except Exception as error:  # onnxsim raises whatever its parts raise
        raise InputError(
            f"{label}: onnxsim cannot simplify this model: {_one_line(error)}",
            hint="run without --simplify",
        ) from error
    _restore_outside(original, simplified, label)
    before, after = len(original.graph.node), len(simplified.graph.node)
    hint = f"onnxsim {importlib.metadata.version('onnxsim')} made {after} nodes of {before}"
    if original.training_info:
        hint += " and dropped training_info"
    return Simplified(from_bytes(simplified.SerializeToString()), f"{label}: {hint}")


def _onnxsim() -> Callable[..., tuple[onnx.ModelProto, bool]]:
    try:
        import onnxsim  # noqa: PLC0415 - optional, and slow to import
    except ImportError as error:
        raise MissingPackageError(
            "--simplify needs onnxsim, which is not installed",
            hint='pip install "bnfold[simplify]"',
        ) from error
    run: Callable[..., tuple[onnx.ModelProto, bool]] = onnxsim.simplify
    return run


def _lists_initializers(model: onnx.ModelProto) -> bool:
    initializers = {tensor.name for tensor in model.graph.initializer}
    return any(value.name in initializers for value in model.graph.input)


def _restore_outside(original: onnx.ModelProto, simplified: onnx.ModelProto, label: str) -> None:
    """Give the simplified model the interface and the papers of the original.

    Raises:
        InputError: Its inputs or outputs have other names or another order.
    """
    for field in ("input", "output"):
        ours = _real(original, field)
        theirs = _real(simplified, field)
        if [value.name for value in ours] != [value.name for value in theirs]:
            raise InputError(
                f"{label}: onnxsim changed the names of the model's {field}s",
                hint="run without --simplify",
            )
        for value, changed in zip(ours, theirs, strict=True):
            changed.CopyFrom(value)
    for name in _KEPT_FIELDS:
        setattr(simplified, name, getattr(original, name))
    del simplified.metadata_props[:]
    simplified.metadata_props.extend(original.metadata_props)
    simplified.graph.name = original.graph.name
    simplified.graph.doc_string = original.graph.doc_string


def _real(model: onnx.ModelProto, field: str) -> list[Any]:
    """Return the inputs that are not initializers, or the outputs."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    values = getattr(model.graph, field)
    return [value for value in values if field == "output" or value.name not in initializers]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
