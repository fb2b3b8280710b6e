"""What a module computes, as a list of aten calls on values that never change.

A trace is the common form of two front ends: the graph of ``torch.export``, and the calls that one
eager run makes (``record.py``). Both name tensors by *handles*: a handle is a tensor object, and an
operator that writes in place leaves its handle with another value. :class:`Builder` turns handles
into values::

    relu_(h)                 the handle h means a new value from here on
    relu_(view of h)         if h or another view of it is read later, all of them get new values
                             from a call that nothing passes

so that "who reads this value" is a question about a list, as in an ONNX graph.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["Builder", "Call", "Datum", "Dims", "Event", "Scope", "Trace", "data_in"]

Dims = tuple[int | str, ...]
WRITES = "write"


@dataclass(frozen=True)
class Scope:
    """One call of a module: its name in the tree, and what tells this call from others."""

    key: str
    name: str


@dataclass(eq=False)
class Datum:
    """A tensor (or a number) at one moment.

    Attributes:
        name: Name for messages.
        shape: Lengths; equal strings are equal lengths. None for what is no tensor.
        dtype: Type of the elements, None for what is no tensor.
        tensor: The tensor itself, for parameters, buffers and constants.
        owner: Name of the parameter or buffer that it is, or None.
        is_input: True for an input of the module.
    """

    name: str
    shape: Dims | None = None
    dtype: torch.dtype | None = None
    tensor: torch.Tensor | None = None
    owner: str | None = None
    is_input: bool = False


@dataclass(eq=False)
class Call:
    """One aten operator.

    Attributes:
        name: Name for messages, unique in the trace.
        op: Operator without namespace and overload, without the underscore of an in-place one.
        target: The overload that ran, or None for what is no aten operator.
        args: Positional arguments, with a `Datum` for each tensor.
        kwargs: Keyword arguments.
        outputs: What it computes.
        scopes: The module calls that it is part of, outermost first.
    """

    name: str
    op: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Datum | None]
    scopes: tuple[Scope, ...] = ()

    def inputs(self) -> Iterator[Datum]:
        """Every datum among the arguments."""
        yield from data_in((self.args, self.kwargs))


@dataclass(eq=False)
class Trace:
    """All calls in order, and the data that the module returns."""

    calls: list[Call] = field(default_factory=list)
    outputs: list[Datum] = field(default_factory=list)
    inputs: list[Datum] = field(default_factory=list)
    #: writes that reach what only the absence of some calls lets them reach: their names
    spills: list[tuple[str, frozenset[str]]] = field(default_factory=list)


def data_in(value: Any) -> Iterator[Datum]:
    """Every `Datum` in nested tuples, lists and dicts."""
    if isinstance(value, Datum):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from data_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from data_in(item)


@dataclass(eq=False)
class Event:
    """One call as a front end saw it: handles in place of data.

    Attributes:
        name: Name of the call.
        target: The operator overload, or None.
        op: Its name without namespace.
        args: Arguments with `Handle` objects in place of tensors.
        kwargs: Likewise.
        results: A handle for each result.
        scopes: The module calls it is part of.
    """

    name: str
    target: Any
    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: list[Handle | None]
    scopes: tuple[Scope, ...] = ()


@dataclass(frozen=True)
class Handle:
    """A tensor object of a front end; equal keys are the same object."""

    key: Hashable


#: operators that return their input itself, though their schema does not say so
RETURNS_ITS_INPUT = {
    "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout",
}  # fmt: skip


class Builder:
    """Turns events into a `Trace`.

    Args:
        described: The shape and dtype of each handle when it first appears, and what it is.
        events: In the order in which they ran.
        outputs: The handles that are returned.
        views: Names of calls that will return their input itself: batch normalizations that are to
            go. With them, `Trace.spills` tells which of them would let a write through.
    """

    def __init__(
        self,
        described: dict[Handle, Datum],
        events: Sequence[Event],
        outputs: Sequence[Handle],
        views: frozenset[str] = frozenset(),
    ) -> None:
        self.described = described
        self.events = events
        self.returned = outputs
        self.views = views
        self.now: dict[Handle, Datum] = {}
        self.storage: dict[Handle, int] = {}
        self.without: dict[Handle, int] = {}  # as it is now, before any view of `views`
        self.through: dict[int, set[str]] = {}
        self.fresh = itertools.count()
        self.last_use = self._last_uses()

    def build(self) -> Trace:
        """Return the trace."""
        trace = Trace(inputs=[d for d in self.described.values() if d.is_input])
        written = self._written_parameters()
        for handle in written:
            datum = self.described[handle]
            self.now[handle] = Datum(datum.name, datum.shape, datum.dtype, is_input=True)
        for index, event in enumerate(self.events):
            self._step(index, event, trace)
        trace.outputs = [self._datum(handle) for handle in self.returned]
        return trace

    def _last_uses(self) -> dict[Handle, int]:
        last: dict[Handle, int] = {}
        for index, event in enumerate(self.events):
            for handle in _handles((event.args, event.kwargs)):
                last[handle] = index
        for handle in self.returned:
            last[handle] = len(self.events)
        for handle, datum in self.described.items():
            if datum.is_input:  # the caller still has it, so a write that reaches it is seen
                last[handle] = len(self.events)
        return last

    def _written_parameters(self) -> set[Handle]:
        """Parameters, buffers and constants that change while the module runs."""
        known = {h for h, datum in self.described.items() if datum.tensor is not None}
        origin = {handle: handle for handle in known}
        written: set[Handle] = set()
        for event in self.events:
            aliased, changed = _aliases(event)
            for handle in changed:
                if handle in origin:
                    written.add(origin[handle])
            for handle in aliased:
                for result in event.results:
                    if handle in origin and result is not None:
                        origin[result] = origin[handle]
        return written

    def _step(self, index: int, event: Event, trace: Trace) -> None:
        args, kwargs = self._data(event.args), self._data(event.kwargs)
        aliased, changed = _aliases(event)
        if event.name in self.views:
            aliased = list(_handles(event.args))[:1]
        outputs: list[Datum | None] = []
        for result in event.results:
            if result is None:
                outputs.append(None)
                continue
            seen = self.described[result]
            datum = Datum(seen.name, seen.shape, seen.dtype)
            outputs.append(datum)
            if result not in changed:
                self.now[result] = datum
                self._place(result, event, aliased)
        call = Call(event.name, _out_of_place(event.op), event.target, args, kwargs, outputs)
        call.scopes = event.scopes
        trace.calls.append(call)
        for handle in changed:
            self._write(index, event, handle, outputs, trace)

    def _place(self, result: Handle, event: Event, aliased: list[Handle]) -> None:
        if result in self.storage:
            return
        place = self._storage(aliased[0]) if aliased else next(self.fresh)
        self.storage[result] = place
        is_new = not aliased or event.name in self.views
        self.without[result] = next(self.fresh) if is_new else self.without[aliased[0]]
        if event.name in self.views:
            self.through.setdefault(place, set()).add(event.name)

    def _write(
        self, index: int, event: Event, handle: Handle, outputs: list[Datum | None], trace: Trace
    ) -> None:
        """``handle`` has a new value; so has everything that shares its memory."""
        first = next((datum for datum in outputs if datum is not None), None)
        place = self._storage(handle)
        results = {result for result in event.results if result is not None}
        if first is None:
            seen = self.described[handle]
            first = Datum(seen.name, seen.shape, seen.dtype)
            trace.calls[-1].outputs.append(first)
        self.now[handle] = first
        for result in results:
            self.storage.setdefault(result, place)
            self.without.setdefault(result, self.without[handle])
            self.now[result] = first
        others = [
            other
            for other, where in self.storage.items()
            if where == place
            and other != handle
            and other not in results
            and self.last_use.get(other, -1) > index
        ]
        if not others:
            return
        if any(self.without[other] != self.without[handle] for other in others):
            trace.spills.append((event.name, frozenset(self.through.get(place, ()))))
        before = tuple(self._datum(other) for other in (handle, *others))
        after: list[Datum | None] = []
        for other in (handle, *others):
            seen = self.described[other]
            datum = Datum(seen.name, seen.shape, seen.dtype)
            after.append(datum)
            self.now[other] = datum
        for result in results:
            new = after[0]
            assert new is not None  # noqa: S101 - made above
            self.now[result] = new
        name = f"{event.name}:{WRITES}"
        trace.calls.append(Call(name, WRITES, None, before, {}, after, event.scopes))

    def _storage(self, handle: Handle) -> int:
        if handle not in self.storage:
            self.storage[handle] = next(self.fresh)
            self.without[handle] = next(self.fresh)
        return self.storage[handle]

    def _datum(self, handle: Handle) -> Datum:
        if handle not in self.now:
            self.now[handle] = self.described[handle]
            self._storage(handle)
        return self.now[handle]

    def _data(self, value: Any) -> Any:
        if isinstance(value, Handle):
            return self._datum(value)
        if isinstance(value, (tuple, list)):
            return tuple(self._data(item) for item in value)
        if isinstance(value, dict):
            return {key: self._data(item) for key, item in value.items()}
        return value


def _handles(value: Any) -> Iterator[Handle]:
    if isinstance(value, Handle):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _handles(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _handles(item)


def _aliases(event: Event) -> tuple[list[Handle], list[Handle]]:
    """The handles that the results may share memory with, and those that are written."""
    schema = getattr(event.target, "_schema", None)
    if schema is None:
        return [], []
    shared: list[Handle] = []
    written: list[Handle] = []
    for position, argument in enumerate(schema.arguments):
        info = argument.alias_info
        value = (
            event.args[position] if position < len(event.args) else event.kwargs.get(argument.name)
        )
        handles = list(_handles(value))
        if info is not None and info.is_write:
            written += handles
        elif info is not None or (position == 0 and event.op in RETURNS_ITS_INPUT):
            shared += handles
    return shared, written


def _out_of_place(op: str) -> str:
    return op[:-1] if op.endswith("_") and not op.endswith("__") else op
