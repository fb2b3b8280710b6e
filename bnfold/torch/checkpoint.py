"""State dicts: out of whatever a checkpoint wraps them in, into a module, key by key.

Training scripts have habits: the weights lie under ``state_dict``, ``model`` or ``net``, beside the
optimizer; names begin with ``module.`` (DataParallel), ``_orig_mod.`` (torch.compile) or ``model.``
(Lightning); an average of the weights lies beside them or among them. All of that is undone by
comparing with the names that the module has. What is left over, or missing, is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from bnfold.errors import InputError
from bnfold.torch.reasons import reason_of

__all__ = ["fill", "find_state"]

WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params",
    "net_state_dict", "generator", "module", "backbone",
)  # fmt: skip
AVERAGES = (
    "model_ema", "ema_state_dict", "state_dict_ema", "model_ema_state_dict", "ema_model", "ema",
    "params_ema", "averaged_model", "ema_weights",
)  # fmt: skip
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "ema_model.", "model_ema.")
#: what counters and profilers leave in state dicts, and no module asks for
LEFTOVERS = ("n_averaged", "total_ops", "total_params", "decay", "num_updates")
SHOWN = 8
State = dict[str, torch.Tensor]


def find_state(content: Any, name: str, *, ema: bool) -> State:
    """Find the weights in what a checkpoint file holds.

    Args:
        content: What ``torch.load`` returned.
        name: Of the file, for messages.
        ema: Take the averaged weights.

    Raises:
        InputError: There are none.
    """
    found = _search(content, WRAPPERS, depth=3)
    if ema:
        averages = [content[key] for key in AVERAGES if _named(content) and key in content]
        found = next(
            (state for inner in averages if (state := _search(inner, WRAPPERS, depth=3))),
            _averages_inside(found or {}),
        )
        if not found:
            raise InputError(f"{name}: it holds no averaged weights", hint="leave --ema away")
        return found
    if found is None:
        keys = ", ".join(f"'{key}'" for key in list(content)[:SHOWN]) if _named(content) else ""
        raise InputError(
            f"{name}: no weights found" + (f"; its keys are {keys}" if keys else ""),
            hint="save model.state_dict(), alone or under the key 'state_dict'",
        )
    inside = _averages_inside(found, strip=False)
    return {key: tensor for key, tensor in found.items() if key not in inside}


def _named(content: Any) -> bool:
    return isinstance(content, Mapping) and all(isinstance(key, str) for key in content)


def _search(content: Any, wrappers: Sequence[str], depth: int) -> State | None:
    if hasattr(content, "state_dict") and isinstance(content, nn.Module):
        return dict(content.state_dict())
    if not _named(content) or depth == 0:
        return None
    tensors = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
    for key in wrappers:
        if key in content and key not in tensors:
            inner = _search(content[key], wrappers, depth - 1)
            if inner:
                return inner
    # lengths and counters may stand among weights, as numbers
    if (tensors and any("." in key for key in tensors)) or len(tensors) == len(content) > 0:
        return tensors
    return None


def _averages_inside(state: State, *, strip: bool = True) -> State:
    """Averages among the weights themselves: ``model_ema.conv.weight``."""
    for prefix in ("model_ema.", "ema_model.", "ema."):
        inside = {key: value for key, value in state.items() if key.startswith(prefix)}
        if inside and len(inside) < len(state):
            return {k[len(prefix) :] if strip else k: v for k, v in inside.items()}
    return {}


def fill(module: nn.Module, state: State, name: str) -> None:
    """Put a state dict into a module, names adapted.

    Args:
        module: Changed in place.
        state: Weights by name.
        name: Of the file, for messages.

    Raises:
        InputError: Keys are missing, unexpected, or of another shape.
    """
    wanted = module.state_dict()
    state = _adapted(state, set(wanted))
    unexpected = [key for key in state if key not in wanted and not _is_leftover(key)]
    missing = [key for key in wanted if key not in state and not _has_default(key)]
    if missing or unexpected:
        parts = [f"{what} {_listed(keys)}" for what, keys in
                 (("missing", missing), ("unexpected", unexpected)) if keys]  # fmt: skip
        raise InputError(
            f"{name}: the weights do not fit this {type(module).__name__}: {'; '.join(parts)}",
            hint="is --arch the model that was saved, with the same --arch-args?",
        )
    odd = [
        f"'{key}' is {_described(state[key])}, not {_described(value)}"
        for key, value in wanted.items()
        if key in state and isinstance(value, torch.Tensor) and not _fits(state[key], value)
    ]
    if odd:
        raise InputError(
            f"{name}: the weights do not fit this {type(module).__name__}: "
            + "; ".join(odd[:SHOWN]),
            hint="is --arch the model that was saved, with the same --arch-args?",
        )
    chosen = {key: state[key] for key in wanted if key in state}
    try:
        module.load_state_dict({**wanted, **chosen})
    except Exception as error:
        raise InputError(
            f"{name}: this {type(module).__name__} does not take the weights: {reason_of(error)}",
            hint="is --arch the model that was saved, with the same --arch-args?",
        ) from error


def _adapted(state: State, wanted: set[str]) -> State:
    """Take off the prefixes that hide the names of the module."""
    best = state
    for _ in range(4):
        candidates = [{key.replace("_orig_mod.", ""): v for key, v in best.items()}]
        first = {key.partition(".")[0] + "." for key in best}
        prefixes = {*PREFIXES, *(first if len(first) == 1 else ())}
        candidates += [
            {key.removeprefix(prefix): value for key, value in best.items()}
            for prefix in sorted(prefixes)
            if any(key.startswith(prefix) for key in best)
        ]
        better = max(candidates, key=lambda candidate: len(wanted & candidate.keys()))
        if len(wanted & better.keys()) > len(wanted & best.keys()):
            best = better
        elif len(first) == 1 and not wanted & best.keys():
            best = {key.partition(".")[2] or key: value for key, value in best.items()}
        else:
            break
    return best


def _is_leftover(key: str) -> bool:
    return key.rpartition(".")[2] in LEFTOVERS


def _has_default(key: str) -> bool:
    """Batch counters are missing in old checkpoints, and nothing at inference depends on them."""
    return key.endswith("num_batches_tracked")


def _listed(keys: list[str]) -> str:
    shown = ", ".join(f"'{key}'" for key in keys[:SHOWN])
    return shown if len(keys) <= SHOWN else f"{shown} and {len(keys) - SHOWN} more"


def _fits(given: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Whether the numbers of one tensor can be put into another."""
    return (
        given.layout is wanted.layout
        and given.is_quantized == wanted.is_quantized
        and (wanted.is_complex() or not given.is_complex())
        and (wanted.is_meta or not given.is_meta)
        and not given.is_nested
        and given.shape == wanted.shape
    )


def _described(tensor: torch.Tensor) -> str:
    kinds = {
        "nested": tensor.is_nested,
        "sparse": tensor.layout is not torch.strided,
        "quantized": tensor.is_quantized,
        "complex": tensor.is_complex(),
        "without values": tensor.is_meta,
    }
    shape = "" if tensor.is_nested else "x".join(map(str, tensor.shape)) or "a scalar"
    return ", ".join(filter(None, [shape, *(kind for kind, applies in kinds.items() if applies)]))
