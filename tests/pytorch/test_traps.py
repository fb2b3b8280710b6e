"""None of the traps is folded wrongly, and all that can be folded is."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest

import bnfold

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402 - needs torch
from torch.utils import _pytree as pytree  # noqa: E402

from tests.pytorch.traps import TRAPS, Trap, Wrapped, randomized  # noqa: E402

NORMS = (nn.modules.batchnorm._BatchNorm,)


def inputs_of(shapes: Any, seed: int = 0) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        s if isinstance(s, torch.Tensor) else torch.randn(s, generator=generator) for s in shapes
    )


def assert_agree(one: nn.Module, other: nn.Module, args: tuple[Any, ...], tolerance: float) -> None:
    with torch.no_grad():
        first = pytree.tree_leaves(opened(copy.deepcopy(one)(*(a.clone() for a in args))))
        given = tuple(a.clone() for a in args)
        second = pytree.tree_leaves(opened(copy.deepcopy(other)(*given)))
    for before, after in zip(args, given, strict=True):
        assert torch.equal(before, after), "the caller's input was written to"
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        if not isinstance(a, torch.Tensor):
            assert a == b
        elif not a.is_floating_point():
            assert torch.equal(a, b)
        else:
            assert a.dtype == b.dtype
            scale = max(float(a.double().abs().nan_to_num(0).max()), 1e-30)
            torch.testing.assert_close(
                b.double(), a.double(), rtol=0, atol=tolerance * scale, equal_nan=True
            )


def opened(result: Any) -> Any:
    return result.parts if isinstance(result, Wrapped) else result


def state(module: nn.Module) -> dict[str, bytes]:
    return {
        name: tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()
        if tensor.ndim
        else str(tensor.item()).encode()
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }


@pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS)
def test_trap(trap: Trap) -> None:
    module = trap.make()
    dtype = next(module.parameters()).dtype
    any_training = any(part.training for part in module.modules()) and not module.training
    module = module if any_training or dtype != torch.float32 else _prepared(module)
    args = inputs_of(trap.inputs)
    before, hooks = state(module), repr(module)
    folded, report = bnfold.torch.fold(module, args)

    found = {v.name: str(v.reason) for v in report.kept}
    assert [v.name for v in report.folded] == list(trap.folded), report.to_dict()["sites"]
    assert found == trap.kept, report.to_dict()["sites"]
    assert all(v.detail for v in report.kept)
    assert report.equivalent

    assert type(folded) is type(module)
    assert (state(module), repr(module)) == (before, hooks)
    assert not {t.data_ptr() for t in folded.parameters()} & {
        t.data_ptr() for t in module.parameters()
    }
    for name in trap.folded:
        assert not isinstance(folded.get_submodule(name), NORMS)
    tolerance = {torch.float16: 2e-2, torch.bfloat16: 1e-1, torch.float64: 1e-13}.get(dtype, 2e-5)
    for shapes in (trap.inputs, *trap.others):
        assert_agree(module, folded, inputs_of(shapes, seed=1), tolerance)
    _survives(folded, args)


def _prepared(module: nn.Module) -> nn.Module:
    statistics = [p for p in module.modules() if getattr(p, "running_var", None) is not None]
    fresh = all(bool((p.running_var > 0).all()) for p in statistics)
    return randomized(module) if fresh else module.eval()


def _survives(folded: nn.Module, args: tuple[Any, ...]) -> None:
    again = copy.deepcopy(folded)
    again.load_state_dict(folded.state_dict())
    buffer = io.BytesIO()
    torch.save(folded.state_dict(), buffer)
    assert not any(part.training for part in folded.modules() if isinstance(part, nn.Identity))


def test_pickle() -> None:
    module = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    folded, _ = bnfold.torch.fold(module, torch.randn(2, 3, 8, 8))
    buffer = io.BytesIO()
    torch.save(folded, buffer)
    buffer.seek(0)
    again = torch.load(buffer, weights_only=False)
    assert_agree(folded, again, (torch.randn(3, 3, 9, 9),), 0.0)
