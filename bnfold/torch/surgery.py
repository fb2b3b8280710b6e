"""Changes modules: copies them, takes parametrizations off, puts weights in, takes norms out."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from bnfold.errors import InputError
from bnfold.lazy import Unrounded
from bnfold.torch.reasons import reason_of
from bnfold.torch.surrogate import Slot

__all__ = ["clone", "install", "plain", "take_out", "tensor_from"]

LINEAR = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.Linear,
)  # fmt: skip
ModuleT = TypeVar("ModuleT", bound=nn.Module)
Changes = Mapping[Hashable, tuple[Slot, Unrounded]]


def clone(module: ModuleT) -> ModuleT:
    """A deep copy that shares nothing with ``module``.

    Raises:
        InputError: The module cannot be copied.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for value in (*vars(part).values(), *part._buffers.values()):  # noqa: SLF001 - in torch's keeping
            # what a hook has computed has a history, which deepcopy refuses
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about what it copies itself
            return copy.deepcopy(module, memo)
    except Exception as error:
        raise InputError(
            f"this {type(module).__name__} cannot be copied: {reason_of(error)}",
            hint="a module must support copy.deepcopy to be folded",
        ) from error


def plain(module: ModuleT, names: Iterable[str] | None = None) -> ModuleT:
    """Take weight parametrizations off convolutions and linear layers, in place.

    The weight that a parametrization computes becomes the parameter itself, to the bit.

    Args:
        module: Changed in place.
        names: Names of the layers; all of them if None.
    """
    chosen = dict(module.named_modules()) if names is None else {}
    for name in names or ():
        chosen[name] = module.get_submodule(name)
    for part in chosen.values():
        if isinstance(part, LINEAR):
            _bare(part)
    return module


def _bare(part: nn.Module) -> None:
    if parametrize.is_parametrized(part):
        # the class was made for the original, and removal would take its properties away there
        kind = type(part)
        own = {key: item for key, item in vars(kind).items() if key not in _OF_EVERY_CLASS}
        part.__class__ = type(kind.__name__, kind.__bases__, own)
        for name in list(part.parametrizations):  # type: ignore[arg-type]
            if name in ("weight", "bias"):
                parametrize.remove_parametrizations(part, name, leave_parametrized=True)
    for hook in list(part._forward_pre_hooks.values()):  # noqa: SLF001 - the only way to see them
        if isinstance(hook, WeightNorm):
            remove_weight_norm(part, hook.name)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(part, hook.name)


_OF_EVERY_CLASS = ("__dict__", "__weakref__")


def install(module: nn.Module, changes: Changes, *, exact: bool = False) -> None:
    """Put new values into the parameters and buffers of ``module``, in place.

    Args:
        module: A copy of the module that was planned on.
        changes: New values by slot.
        exact: Keep float64 values as they are; ``module`` is in float64.
    """
    plain(module, {slot.name.rpartition(".")[0] for slot, _ in changes.values()})
    for slot, values in changes.values():
        owner, _, name = slot.name.rpartition(".")
        part = module.get_submodule(owner)
        data = torch.from_numpy(values.float64()) if exact else tensor_from(values)
        data = data.contiguous()
        old = getattr(part, name)
        if old is None:
            weight = part.weight
            assert isinstance(weight, torch.Tensor)  # noqa: S101 - only such layers lack a bias
            setattr(part, name, nn.Parameter(data, requires_grad=weight.requires_grad))
        else:
            with torch.no_grad():
                old.data.copy_(data)


def tensor_from(values: Unrounded) -> torch.Tensor:
    """The values in their storage type, rounded once."""
    array = np.ascontiguousarray(values.rounded())
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def take_out(module: nn.Module, names: Iterable[str]) -> None:
    """Replace normalizations by what is left of them, under every name that they have.

    An activation that a normalization has for a child stays, under its own name.
    """
    for name in names:
        norm = module.get_submodule(name)
        left = _rest(norm)
        for part in module.modules():
            for key, child in part._modules.items():  # noqa: SLF001 - in torch's keeping
                if child is norm:
                    part._modules[key] = left  # noqa: SLF001


def _rest(norm: nn.Module) -> nn.Module:
    children = OrderedDict(norm.named_children())
    left = nn.Sequential(children) if children else nn.Identity()
    return left.train(norm.training)
