"""The tensors in what a module returns, whatever they are wrapped in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

__all__ = ["leaves_of"]

DEEPEST = 6


def leaves_of(result: Any) -> list[tuple[str, Any]]:
    """All leaves with their paths; objects that torch does not know are opened by attribute.

    Args:
        result: What a module returned: tensors in tuples, dicts, dataclasses, other objects.
    """
    pairs, _ = pytree.tree_flatten_with_path(result)
    found = [
        item
        for path, leaf in pairs
        for item in _open(pytree.keystr(path), leaf, DEEPEST, {id(result)})
    ]
    return [(name.strip("[].'") or f"output{i}", leaf) for i, (name, leaf) in enumerate(found)]


def _open(name: str, value: Any, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (torch.Tensor, torch.nn.Module, type)) or depth == 0:
        yield name, value
        return
    parts = _parts(value)
    if not parts:
        yield name, value
        return
    for key, part in parts:
        if id(part) in seen and not isinstance(part, torch.Tensor):
            continue
        for path, leaf in pytree.tree_flatten_with_path(part)[0]:
            inside = f"{name}.{key}{pytree.keystr(path)}"
            yield from _open(inside, leaf, depth - 1, {*seen, id(part)})


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(str(key), part) for key, part in value.items()]
    if dataclasses.is_dataclass(value):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    if isinstance(value, (set, frozenset)):
        return [(str(i), part) for i, part in enumerate(value)]
    return list(getattr(value, "__dict__", {}).items())
