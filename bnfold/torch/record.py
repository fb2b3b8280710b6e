"""The trace of one eager run, for modules that ``torch.export`` does not take.

Every aten call is recorded as it happens. What one run cannot show is another branch of the code:
if the code looks at *values* (``if x.mean() > 0``), the trace says so, and only what lies inside an
``nn.Sequential``, whose code is known, counts as proved.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from bnfold.torch.exported import Raw
from bnfold.torch.inputs import Example
from bnfold.torch.results import leaves_of
from bnfold.torch.trace import Datum, Event, Handle, Scope

__all__ = ["record"]

READS_VALUES = {
    "__bool__", "__int__", "__float__", "__index__", "__complex__", "__array__", "__contains__",
    "item", "tolist", "numpy",
}  # fmt: skip
SCALARS = {"_local_scalar_dense", "is_nonzero", "equal", "allclose"}


def record(module: nn.Module, example: Example) -> tuple[Raw, bool]:
    """Run a module once and record what it calls.

    Args:
        module: A copy that may be written to, in eval mode.
        example: Its arguments.

    Returns:
        What each handle is, the events and the handles that are returned; and whether the code
        looked at values of tensors, so that other values may take another branch.
    """
    recorder = _Recorder(module)
    example = example.fresh()
    recorder.arguments(example)
    with torch.inference_mode(), recorder.following(), _Reads(recorder), _Dispatch(recorder):
        result = module(*example.args, **example.kwargs)
    leaves = [leaf for _, leaf in leaves_of(result) if isinstance(leaf, torch.Tensor)]
    returned = [recorder.handle(leaf) for leaf in leaves]
    return (recorder.described, recorder.events, returned), recorder.reads_values


class _Recorder:
    def __init__(self, module: nn.Module) -> None:
        self.names = {part: name for name, part in module.named_modules()}
        self.described: dict[Handle, Datum] = {}
        self.events: list[Event] = []
        self.stack: list[Scope] = []
        self.kept: list[torch.Tensor] = []  # an id stays unique while its object lives
        self.known: dict[int, Handle] = {}
        self.numbers = itertools.count()
        self.reads_values = False
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            datum = self.describe(tensor, name)
            datum.tensor, datum.owner = tensor, name
        for part in module.modules():
            for name, value in vars(part).items():
                if isinstance(value, torch.Tensor) and id(value) not in self.known:
                    self.describe(value, name).tensor = value

    def arguments(self, example: Example) -> None:
        for index, tensor in enumerate(example.tensors()):
            self.describe(tensor, f"input{index}").is_input = True

    def describe(self, tensor: torch.Tensor, name: str) -> Datum:
        handle = Handle(f"{name}#{next(self.numbers)}")
        self.known[id(tensor)] = handle
        self.kept.append(tensor)
        datum = Datum(name, tuple(tensor.shape), tensor.dtype)
        self.described[handle] = datum
        return datum

    def handle(self, tensor: torch.Tensor) -> Handle:
        if id(tensor) not in self.known:  # made outside of what is recorded: by NumPy, say
            self.describe(tensor, "unknown").is_input = True
        return self.known[id(tensor)]

    def replace(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self.handle(value)
        if isinstance(value, (tuple, list)):
            return tuple(self.replace(item) for item in value)
        if isinstance(value, dict):
            return {key: self.replace(item) for key, item in value.items()}
        return value

    def call(self, target: Any, args: Any, kwargs: Any, result: Any) -> None:
        op = target.overloadpacket.__name__
        if op in SCALARS:
            self.reads_values = True
        arguments = self.replace(args), self.replace(kwargs)
        name = f"{op}_{len(self.events)}"
        results: list[Handle | None] = []
        for leaf in result if isinstance(result, (tuple, list)) else [result]:
            if not isinstance(leaf, torch.Tensor):
                results.append(None)
                continue
            if id(leaf) not in self.known:
                self.describe(leaf, name)
            results.append(self.known[id(leaf)])
        self.events.append(Event(name, target, op, *arguments, results, tuple(self.stack)))

    @contextmanager
    def following(self) -> Iterator[None]:
        """Know at every moment which modules are being called."""

        def enter(part: nn.Module, _: Any) -> None:
            name = self.names.get(part, type(part).__name__)
            self.stack.append(Scope(f"{name}@{next(self.numbers)}", name))

        def leave(part: nn.Module, _: Any, __: Any) -> None:
            self.stack.pop()

        handles = (
            hooks.register_module_forward_pre_hook(enter),
            hooks.register_module_forward_hook(leave, always_call=True),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class _Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.recorder.call(func, args, kwargs or {}, result)
        return result


class _Reads(TorchFunctionMode):
    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in READS_VALUES:
            self.recorder.reads_values = True
        return func(*args, **(kwargs or {}))
