"""Example inputs: guessed where none are given, and varied to reach what one shape does not show.

A trace shows one way through the Python code of a module. Other batch sizes, other lengths, and
flags the other way round may take another; so what was folded is compared on those too.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from bnfold.errors import InputError

__all__ = ["Example", "as_example", "guess", "variants"]

MORE = 3
SMALL = 1 << 18
MAX_THRESHOLDS = 8
MAX_VARIANTS = 18


@dataclass(frozen=True, eq=False)
class Example:
    """Arguments of one call of a module.

    Attributes:
        args: Positional ones.
        kwargs: Keyword ones.
        label: What is particular about them, for messages.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    label: str = "the example inputs"

    def map(self, change: Callable[[torch.Tensor], torch.Tensor], label: str = "") -> Example:
        """The same with every tensor changed."""
        args, kwargs = pytree.tree_map_only(torch.Tensor, change, (self.args, self.kwargs))
        return Example(args, kwargs, label or self.label)

    def tensors(self) -> list[torch.Tensor]:
        """Every tensor among the arguments."""
        leaves = pytree.tree_leaves((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def to(self, dtype: torch.dtype) -> Example:
        """Floating point tensors in another type."""
        return self.map(
            lambda t: t.detach().clone().to(dtype if t.is_floating_point() else t.dtype)
        )

    def fresh(self) -> Example:
        """A copy that a module may write to."""
        return self.map(lambda t: t.detach().clone())


def as_example(inputs: Any) -> Example:
    """Read what a caller gives: a tensor, a tuple of arguments, or a dict of keyword arguments.

    Raises:
        InputError: It is none of these.
    """
    if isinstance(inputs, torch.Tensor):
        return Example((inputs,))
    if isinstance(inputs, Mapping):
        return Example((), dict(inputs))
    if isinstance(inputs, Sequence) and not isinstance(inputs, (str, bytes)):
        return Example(tuple(inputs))
    raise InputError(
        f"a {type(inputs).__name__} is no example input",
        hint="give a tensor, a tuple of positional arguments, or a dict of keyword arguments",
    )


# --- guesses


def guess(module: nn.Module, runs: Callable[[Example], bool]) -> Example:
    """Find an input that the module accepts, from its own words or its first layer.

    Args:
        module: In eval mode.
        runs: Whether the module runs on an example.

    Raises:
        InputError: Nothing that was tried runs.
    """
    for shape in _shapes(module):
        example = Example((torch.randn(shape, generator=torch.Generator().manual_seed(0)),))
        dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)
        example = example if dtype is None else example.to(dtype)
        if runs(example):
            return example
    raise InputError(
        f"no example input for this {type(module).__name__} could be guessed",
        hint="give example_inputs: a tensor, a tuple of arguments, or a dict of keyword arguments",
    )


def _shapes(module: nn.Module) -> Iterator[tuple[int, ...]]:
    for name in ("pretrained_cfg", "default_cfg"):
        config = getattr(module, name, None)
        size = config.get("input_size") if isinstance(config, Mapping) else None
        if isinstance(size, (tuple, list)) and all(isinstance(n, int) for n in size):
            yield (2, *size)
    array = getattr(module, "example_input_array", None)
    if isinstance(array, torch.Tensor):
        yield tuple(array.shape)
    for part in module.modules():
        if isinstance(part, nn.Linear):
            yield (2, part.in_features)
            yield (2, 8, part.in_features)
        elif isinstance(part, nn.modules.conv._ConvNd):  # noqa: SLF001 - the common base
            spatial = len(part.kernel_size)
            sizes = {1: (64, 256), 2: (32, 64, 224, 96, 28, 299), 3: (16, 32, 64)}[spatial]
            for size in sizes:
                yield (2, part.in_channels, *[size] * spatial)
        elif isinstance(part, nn.BatchNorm1d):
            yield (2, part.num_features)
            yield (2, part.num_features, 16)
        elif isinstance(part, nn.BatchNorm2d):
            yield (2, part.num_features, 32, 32)
        else:
            continue
        return


# --- variants


def variants(module: nn.Module, example: Example, seed: int = 0) -> list[Example]:
    """Other arguments of the same kind, most telling first. The module may reject some.

    Args:
        module: Its code tells which lengths and flags it asks for.
        example: Arguments that it accepts.
        seed: Of the random values.
    """
    generator = torch.Generator().manual_seed(seed)
    limit = max(MORE * sum(t.numel() for t in example.tensors()), SMALL)
    found: list[Example] = []
    for label, resize in _resizings(module, example, limit):
        shapes = [resize(t) for t in example.tensors()]
        if shapes and sum(math.prod(shape) for shape in shapes) <= limit:
            found.append(example.map(partial(_resized, resize, generator), label))
    found.append(example.map(lambda t: t * -30.0 if t.is_floating_point() else t, "large inputs"))
    return [*found, *_flipped(module, example)][:MAX_VARIANTS]


Resize = Callable[[torch.Tensor], tuple[int, ...]]


def _resized(
    resize: Callable[[torch.Tensor], tuple[int, ...]],
    generator: torch.Generator,
    tensor: torch.Tensor,
) -> torch.Tensor:
    return _redrawn(tensor, resize(tensor), generator)


def _resizings(module: nn.Module, example: Example, limit: int) -> Iterator[tuple[str, Resize]]:
    yield "another batch size", lambda t: (t.shape[0] + 1, *t.shape[1:]) if t.ndim else ()
    ranks = {t.ndim for t in example.tensors()}
    if max(ranks, default=0) >= 3:
        yield "shorter inputs", lambda t: _spatial(t, lambda n: max(1, n // 2))
        yield "an odd size", lambda t: _spatial(t, lambda n: n + 1 if n < 32 else n // 2 + 1)
        yield "longer inputs", lambda t: _spatial(t, lambda n: n + min(n, 32))
    if 3 in ranks:
        yield "another sequence length", _other_length
    for size in _thresholds(module, example):
        yield f"size {size}", partial(_up_to, size, limit)
    if any(t.ndim and t.shape[0] > 1 for t in example.tensors()):
        yield "a batch of one", lambda t: (1, *t.shape[1:]) if t.ndim else ()


def _other_length(tensor: torch.Tensor) -> tuple[int, ...]:
    if tensor.ndim != 3:
        return tuple(tensor.shape)
    return (tensor.shape[0], tensor.shape[1] + 1, tensor.shape[2])


def _up_to(size: int, limit: int, tensor: torch.Tensor) -> tuple[int, ...]:
    """Every length, or only the last one of a single sample where that is too much."""
    whole = _spatial(tensor, lambda _: size)
    if math.prod(whole) <= limit or tensor.ndim < 3:
        return whole
    return (1, *tensor.shape[1:-1], size)


def _spatial(tensor: torch.Tensor, change: Callable[[int], int]) -> tuple[int, ...]:
    return (*tensor.shape[:2], *(change(n) for n in tensor.shape[2:]))


def _thresholds(module: nn.Module, example: Example) -> list[int]:
    """Lengths around the numbers that the code of the module may compare lengths with."""
    in_code: set[int] = set()
    in_attributes: set[int] = set()
    codes: dict[CodeType, bool] = {}
    for part in module.modules():
        kind = type(part)
        if kind.__module__.startswith("torch."):
            continue
        known = len(codes)
        for base in kind.__mro__:
            if not base.__module__.startswith("torch."):
                for item in vars(base).values():
                    _gather(getattr(item, "__func__", item), codes, depth=3)
        if any(list(codes.values())[known:]):
            in_attributes |= {n for n in vars(part).values() if type(n) is int}
    for code, measures in codes.items():
        if measures:
            in_code |= {n for n in code.co_consts if type(n) is int}
    lengths = {n for t in example.tensors() for n in t.shape[2:]}
    numbers = [*sorted(in_code), *sorted(in_attributes - in_code)]
    sizes = [n + step for n in numbers if 2 < n <= 1024 for step in (1, -1)]
    return [n for n in dict.fromkeys(sizes) if n not in lengths][:MAX_THRESHOLDS]


def _gather(function: object, codes: dict[CodeType, bool], depth: int) -> None:
    """The code of a function and of those that it calls, and whether it looks at lengths."""
    if not isinstance(function, FunctionType) or function.__code__ in codes or depth == 0:
        return
    code = function.__code__
    codes[code] = bool({"shape", "size", "numel", "len"} & set(code.co_names))
    for name in code.co_names:
        other = function.__globals__.get(name)
        if not getattr(other, "__module__", "torch.").startswith("torch"):
            _gather(other, codes, depth - 1)


def _redrawn(
    tensor: torch.Tensor, shape: tuple[int, ...], generator: torch.Generator
) -> torch.Tensor:
    """A tensor of another shape whose values are like those given."""
    if tensor.is_floating_point():
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        values = tensor.detach().double()
        spread = values.std().item() if values.numel() > 1 else 1.0
        middle = values.mean().item() if values.numel() else 0.0
        return (drawn * (spread or 1.0) + middle).to(tensor.dtype)
    if tensor.numel() == 0:
        return torch.zeros(shape, dtype=tensor.dtype)
    flat = tensor.detach().reshape(-1)
    count = 1
    for length in shape:
        count *= length
    return flat[torch.arange(count) % flat.numel()].reshape(shape).clone()


def _flipped(module: nn.Module, example: Example) -> Iterator[Example]:
    """Flags the other way round, those among them that have a default."""
    for place, value in enumerate(example.args):
        if isinstance(value, bool):
            args = (*example.args[:place], not value, *example.args[place + 1 :])
            yield Example(args, example.kwargs, f"argument {place} = {not value}")
    flags = {name: value for name, value in example.kwargs.items() if isinstance(value, bool)}
    parameters = list(inspect.signature(module.forward).parameters.values())
    for parameter in itertools.islice(parameters, len(example.args), None):
        if isinstance(parameter.default, bool):
            flags.setdefault(parameter.name, parameter.default)
    for name, value in flags.items():
        yield Example(example.args, {**example.kwargs, name: not value}, f"{name}={not value}")
