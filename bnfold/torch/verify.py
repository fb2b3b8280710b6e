"""Are two modules equal? Their own outputs are compared, in float64 and in their own type.

In float64 the weights of the folded module are not rounded, so both must agree to what is left of
float64's precision: that proves the algebra. In the module's own type the rule is that of
`bnfold.check`: D = max|candidate - reference| / max|reference| may be 8 times the noise, which is
the largest D of the reference against itself when its inputs move by one unit in the last place.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from bnfold.report import CheckReport, OutputComparison
from bnfold.torch.inputs import Example
from bnfold.torch.results import leaves_of
from bnfold.torch.surgery import clone

__all__ = ["Outputs", "agree", "compare", "compare_outputs", "outputs_of", "report_of"]

PROOF = 1e-8
FACTOR = 8.0
DRAWS = 3
LOW = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Outputs:
    """What a module returned: its leaves, and their paths."""

    names: tuple[str, ...]
    leaves: tuple[Any, ...]


def outputs_of(module: nn.Module, example: Example, seed: int = 0) -> Outputs:
    """Run a module, and leave it as it was; random numbers start from ``seed``."""
    example = example.fresh()
    if isinstance(module, torch.jit.ScriptModule):
        module = clone(module)
    with (
        torch.random.fork_rng(devices=[]),
        torch.no_grad(),
        warnings.catch_warnings(),
        _unchanged(module),
    ):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        result = module(*example.args, **example.kwargs)
    pairs = leaves_of(result)
    leaves = tuple(v.detach().clone() if isinstance(v, torch.Tensor) else v for _, v in pairs)
    return Outputs(tuple(name for name, _ in pairs), leaves)


@contextmanager
def _unchanged(module: nn.Module) -> Iterator[None]:
    """Give buffers and plain attributes back what they were: counters, caches."""
    saved = []
    for part in module.modules() if not isinstance(module, torch.jit.ScriptModule) else ():
        buffers = [
            (name, tensor, None if tensor is None else tensor.clone())
            for name, tensor in part._buffers.items()  # noqa: SLF001 - in torch's keeping
        ]
        plain = {k: v for k, v in vars(part).items() if isinstance(v, _PLAIN)}
        saved.append((part, buffers, plain))
    try:
        yield
    finally:
        for part, buffers, plain in saved:
            vars(part).update(plain)
            for name, tensor, values in buffers:
                part._buffers[name] = tensor  # noqa: SLF001
                if tensor is not None and values is not None:
                    tensor.copy_(values)


_PLAIN = (int, float, str, bool, type(None))


def agree(reference: Outputs, candidate: Outputs) -> str | None:
    """Compare results in float64; None where they agree, else what differs."""
    if len(reference.leaves) != len(candidate.leaves):
        return "they return different structures"
    for name, one, other in zip(reference.names, reference.leaves, candidate.leaves, strict=True):
        if not isinstance(one, torch.Tensor):
            if isinstance(one, (int, float, str, bool, type(None))) and one != other:
                return f"output '{name}' is {other!r}, not {one!r}"
            continue
        if not isinstance(other, torch.Tensor) or one.shape != other.shape:
            return f"output '{name}' has another shape"
        difference = _difference(one, other)
        if not difference <= PROOF:
            return f"output '{name}' is {difference:.2g} apart in float64"
    return None


def compare(
    reference: nn.Module, candidate: nn.Module, examples: Sequence[Example]
) -> tuple[OutputComparison, ...]:
    """Compare two modules in their own type by the noise rule, over all examples."""
    pairs = []
    for example in examples:
        first = outputs_of(reference, example)
        second = outputs_of(candidate, example)
        found = [
            other
            for one, other in zip(first.leaves, second.leaves, strict=True)
            if isinstance(one, torch.Tensor)
        ]
        pairs.append((example, first, found))
    return compare_outputs(reference, pairs)


def compare_outputs(
    reference: nn.Module,
    pairs: Sequence[tuple[Example, Outputs, Sequence[Any]]],
    names: Sequence[str] | None = None,
) -> tuple[OutputComparison, ...]:
    """Compare what a module returns with what something else does, by the noise rule.

    Args:
        reference: The module, for its noise.
        pairs: Arguments, what the module returned, and the tensors to compare with its tensors.
        names: Of the tensors; those of the module's results if None.
    """
    worst: dict[str, OutputComparison] = {}
    for example, first, found in pairs:
        noise = _noise(reference, example, first)
        places = [i for i, leaf in enumerate(first.leaves) if isinstance(leaf, torch.Tensor)]
        for order, (place, other) in enumerate(zip(places, found, strict=True)):
            name = first.names[place] if names is None else names[order]
            result = _by_noise(name, first.leaves[place], other, noise[place])
            worst[name] = max(worst.get(name, result), result, key=_severity)
    return tuple(worst.values())


def report_of(outputs: tuple[OutputComparison, ...], feeds: int) -> CheckReport:
    """The comparison as part of a report."""
    equivalent = all(output.equivalent for output in outputs)
    return CheckReport("PyTorch", "eager", equivalent, outputs, feeds)


def _severity(result: OutputComparison) -> tuple[bool, float]:
    excess = result.difference / result.allowed if result.allowed else result.difference
    return (not result.equivalent, excess)


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference over largest value; infinite where one is NaN or infinite alone."""
    if one.dtype != other.dtype and one.is_floating_point() != other.is_floating_point():
        return math.inf
    if not (one.is_floating_point() or one.is_complex()):
        return 0.0 if torch.equal(one, other) else math.inf
    a, b = _real(one), _real(other)
    odd = ~torch.isfinite(a)
    if not torch.equal(odd, ~torch.isfinite(b)):
        return math.inf
    if not torch.equal(a[odd].nan_to_num(7.0), b[odd].nan_to_num(7.0)):
        return math.inf
    a, b = a[~odd], b[~odd]
    if a.numel() == 0:
        return 0.0
    largest = float(a.abs().max())
    apart = float((a - b).abs().max())
    return apart / largest if largest > 0 else apart


def _real(tensor: torch.Tensor) -> torch.Tensor:
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).double()


def _noise(module: nn.Module, example: Example, reference: Outputs) -> list[float]:
    """The largest D of each output when inputs, or else weights, move by one unit."""
    noise = [0.0] * len(reference.leaves)
    floats = [t for t in example.tensors() if t.is_floating_point()]
    weights = not floats or any(t.dtype in LOW for t in floats)
    for draw in range(DRAWS):
        generator = torch.Generator().manual_seed(draw)
        moved = example.map(partial(_nudged, generator))
        runs = outputs_of(module, moved)
        for index, (one, other) in enumerate(zip(reference.leaves, runs.leaves, strict=True)):
            if isinstance(one, torch.Tensor) and one.is_floating_point():
                noise[index] = max(noise[index], _finite(_difference(one, other)))
    if weights:
        _weight_noise(module, example, reference, noise)
    return noise


def _weight_noise(
    module: nn.Module, example: Example, reference: Outputs, noise: list[float]
) -> None:
    for draw in range(DRAWS):
        generator = torch.Generator().manual_seed(100 + draw)
        moved = clone(module)
        with torch.no_grad():
            for parameter in (*moved.parameters(), *moved.buffers()):
                parameter.data.copy_(_nudged(generator, parameter.data))
        runs = outputs_of(moved, example)
        for index, (one, other) in enumerate(zip(reference.leaves, runs.leaves, strict=True)):
            if isinstance(one, torch.Tensor) and one.is_floating_point():
                noise[index] = max(noise[index], _finite(_difference(one, other)))


def _nudged(generator: torch.Generator, tensor: torch.Tensor) -> torch.Tensor:
    """Every float one unit in the last place up or down."""
    if not tensor.is_floating_point():
        return tensor
    up = torch.rand(tensor.shape, generator=generator) < 0.5
    if tensor.dtype in LOW:
        step = tensor.double().abs() * torch.finfo(tensor.dtype).eps
        return (tensor.double() + torch.where(up, step, -step)).to(tensor.dtype)
    infinity = torch.full_like(tensor, math.inf)
    return torch.where(up, torch.nextafter(tensor, infinity), torch.nextafter(tensor, -infinity))


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _by_noise(name: str, one: torch.Tensor, other: Any, noise: float) -> OutputComparison:
    if not isinstance(other, torch.Tensor) or one.shape != other.shape:
        return OutputComparison(
            name, False, math.inf, 0.0, None, math.inf, 0.0, None, "another shape"
        )  # fmt: skip
    difference = _difference(one, other)
    if not one.is_floating_point():
        same = difference == 0.0
        detail = None if same else "values that are not floating point differ"
        return OutputComparison(name, same, difference, 0.0, None, difference, 0.0, None, detail)
    allowed = FACTOR * max(noise, 2 * torch.finfo(one.dtype).eps)
    apart = (_real(one) - _real(other)).abs().nan_to_num(0.0)
    worst = int(apart.argmax()) if apart.numel() else None
    index = None if worst is None else _index(worst, tuple(apart.shape))
    ratio = difference / noise if noise > 0 else None
    largest = float(apart.max()) if apart.numel() else 0.0
    return OutputComparison(
        name, difference <= allowed, difference, noise, ratio, largest, allowed, index
    )


def _index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    index: list[int] = []
    for length in reversed(shape):
        index.append(flat % length)
        flat //= length
    return tuple(reversed(index))
