"""The ``test_data_set_*`` folders of ONNX: inputs, and outputs as a third opinion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from bnfold.check.data.raw import Raw, natural
from bnfold.check.models.model import ValueSpec
from bnfold.check.runtimes.sessions import Value
from bnfold.errors import InputError

__all__ = ["is_data_set", "read_data_set"]


def is_data_set(path: Path) -> bool:
    """True for a folder with at least one input, or one that is called like a data set."""
    return path.is_dir() and (
        path.name.startswith("test_data_set_") or any(path.glob("input_*.pb"))
    )


def read_data_set(
    folder: Path, specs: Sequence[ValueSpec], output_specs: Sequence[ValueSpec]
) -> Raw:
    """Read all values of a data set.

    A value belongs to the input that its own name says; where that says nothing, to the one at the
    position that the file's name says.

    Raises:
        InputError: A file cannot be read, or the model has nothing that it belongs to.
    """
    values = _read(folder, "input", specs)
    if not values and specs:
        raise InputError(f"{folder}: no input_*.pb in this folder")
    outputs = _read(folder, "output", output_specs) if output_specs else {}
    return Raw(str(folder), values, outputs or None, may_stack=False)


def _read(folder: Path, kind: str, specs: Sequence[ValueSpec]) -> dict[str, Value]:
    by_name = {spec.name: spec for spec in specs}
    values: dict[str, Value] = {}
    for file in sorted(folder.glob(f"{kind}_*.pb"), key=natural):
        try:
            content = file.read_bytes()
        except OSError as error:
            raise InputError(f"{file}: cannot be read: {(error.strerror or '').lower()}") from error
        spec = by_name.get(_name(content))
        if spec is None:
            number = file.stem.removeprefix(f"{kind}_")
            position = int(number) if number.isdecimal() else len(specs)
            spec = specs[position] if position < len(specs) else None
        if spec is None:
            listed = ", ".join(f"'{spec.name}'" for spec in specs) or "none"
            raise InputError(
                f"{file}: the model has no {kind} for it", hint=f"{kind}s of the model: {listed}"
            )
        try:
            values[spec.name] = _decode(content, spec)
        except (DecodeError, ValueError, TypeError, KeyError) as error:
            why = " ".join(str(error).split())
            raise InputError(
                f"{file}: not a serialized {spec.kind} for '{spec.name}' ({why})",
                hint="the file is damaged, or belongs to another model",
            ) from error
    return values


def _name(content: bytes) -> str:
    """Return the name that a value carries; each kind has it in a field of its own."""
    for proto in (onnx.TensorProto, onnx.SequenceProto, onnx.OptionalProto):
        try:
            name = str(proto.FromString(content).name)
        except DecodeError:
            continue
        if name:
            return name
    return ""


def _decode(content: bytes, spec: ValueSpec) -> Value:
    match spec.kind:
        case "sequence":
            return numpy_helper.to_list(onnx.SequenceProto.FromString(content))
        case "optional":
            return numpy_helper.to_optional(onnx.OptionalProto.FromString(content))
        case "map":
            return numpy_helper.to_dict(onnx.MapProto.FromString(content))
        case _:
            return numpy_helper.to_array(onnx.TensorProto.FromString(content))
