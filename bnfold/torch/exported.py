"""The trace of an exported program: the graph that ``torch.export`` has found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.export.graph_signature import InputKind

from bnfold.torch.trace import Builder, Datum, Dims, Event, Handle, Scope, Trace

__all__ = ["events_of", "trace_of"]

Raw = tuple[dict[Handle, Datum], list[Event], list[Handle]]
_STORED = (InputKind.PARAMETER, InputKind.BUFFER)


def trace_of(raw: Raw, views: frozenset[str] = frozenset()) -> Trace:
    """Build the trace of what a front end saw; ``views`` as for `Builder`."""
    return Builder(*raw, views=views).build()


def events_of(program: torch.export.ExportedProgram) -> Raw:
    """Read the graph of a program.

    Returns:
        What each handle is, the events, and the handles that are returned. The handle of a tensor
        is the name of its node; a value that is no tensor has one too.
    """
    return _Reader(program).read()


class _Reader:
    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.program = program
        self.described: dict[Handle, Datum] = {}
        self.events: list[Event] = []
        self.parts: dict[str, list[Handle | None]] = {}

    def read(self) -> Raw:
        outputs: list[Handle] = []
        specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node, specs.get(node.name))
            elif node.op == "get_attr":
                self._attribute(node)
            elif node.op == "output":
                outputs = [Handle(other.name) for other in node.all_input_nodes]
            else:
                self._call(node)
        return self.described, self.events, outputs

    def _placeholder(self, node: torch.fx.Node, spec: Any) -> None:
        datum = _describe(node.name, node.meta.get("val"))
        self.described[Handle(node.name)] = datum
        kind = None if spec is None else spec.kind
        if kind in _STORED:
            stored = self.program.state_dict.get(spec.target)
            stored = self.program.constants.get(spec.target) if stored is None else stored
            datum.tensor, datum.owner = stored, spec.target
        elif kind is InputKind.CONSTANT_TENSOR:
            datum.tensor = self.program.constants.get(spec.target)
        else:
            datum.is_input = True

    def _attribute(self, node: torch.fx.Node) -> None:
        datum = _describe(node.name, node.meta.get("val"))
        value: Any = self.program.graph_module
        for part in str(node.target).split("."):
            value = getattr(value, part, None)
        datum.tensor = value if isinstance(value, torch.Tensor) else None
        self.described[Handle(node.name)] = datum

    def _call(self, node: torch.fx.Node) -> None:
        if getattr(node.target, "__name__", "") == "getitem" and node.args:
            source, index = node.args[0], node.args[1]
            parts = self.parts.get(getattr(source, "name", ""))
            if parts is not None and isinstance(index, int):
                handle = Handle(node.name)
                self.described[handle] = _describe(node.name, node.meta.get("val"))
                known = parts[index]
                if known is None:
                    parts[index] = handle
                else:
                    self.events.append(Event(node.name, None, "alias", (known,), {}, [handle]))
                return
        value = node.meta.get("val")
        results: list[Handle | None]
        if isinstance(value, (tuple, list)):
            results = [None] * len(value)
            self.parts[node.name] = results
        else:
            handle = Handle(node.name)
            self.described[handle] = _describe(node.name, value)
            results = [handle]
        is_overload = isinstance(node.target, torch._ops.OpOverload)  # noqa: SLF001 - its only home
        target: Any = node.target
        op = target.overloadpacket.__name__ if is_overload else str(getattr(target, "__name__", ""))
        self.events.append(
            Event(
                node.name,
                target if is_overload else None,
                op,
                self._arguments(node.args),
                self._arguments(node.kwargs),
                results,
                _scopes(node),
            )
        )

    def _arguments(self, value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            return Handle(value.name)
        if isinstance(value, (tuple, list)):
            return tuple(self._arguments(item) for item in value)
        if isinstance(value, dict):
            return {key: self._arguments(item) for key, item in value.items()}
        return value


def _describe(name: str, value: Any) -> Datum:
    if not isinstance(value, torch.Tensor):
        return Datum(name)
    return Datum(name, _dims(value.shape), value.dtype)


def _dims(shape: Sequence[Any]) -> Dims:
    return tuple(dim if isinstance(dim, int) else _symbol(dim) for dim in shape)


def _symbol(dim: Any) -> int | str:
    text = str(dim)
    return int(text) if text.isdecimal() else text


def _scopes(node: torch.fx.Node) -> tuple[Scope, ...]:
    stack = node.meta.get("nn_module_stack") or {}
    return tuple(
        Scope(key, name.split("@")[0]) for key, (name, _) in stack.items() if name or name == ""
    )
