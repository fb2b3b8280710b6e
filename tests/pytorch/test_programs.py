"""Exported programs: what modules cannot have, and what must stay as it was."""

from __future__ import annotations

from typing import Any

import pytest

import bnfold
from bnfold.errors import InputError

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402 - needs torch
from torch.nn import functional as F  # noqa: E402, N812

from tests.pytorch.test_architectures import norm_nodes  # noqa: E402
from tests.pytorch.traps import ONE, body, conv, conv_once_bare, conv_twice, randomized  # noqa: E402


def program_of(module: nn.Module, *shapes: tuple[int, ...]) -> Any:
    args = tuple(torch.randn(shape) for shape in shapes or ((2, 3, 8, 8),))
    return torch.export.export(randomized(module), args, strict=False), args


def assert_same(program: Any, folded: Any, args: tuple[Tensor, ...]) -> None:
    expected, found = program.module()(*args), folded.module()(*args)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_each_use_of_a_weight_gets_one_of_its_own() -> None:
    two = {"bn1": lambda: nn.BatchNorm2d(4), "bn2": lambda: nn.BatchNorm2d(4)}
    program, args = program_of(body(conv_twice, conv=conv(), **two)())
    folded, report = bnfold.torch.fold_program(program)
    assert [site.name for site in report.folded] == ["bn1", "bn2"]
    assert norm_nodes(folded) == 0
    assert {"conv.weight_folded", "conv.weight_folded_2"} <= set(folded.state_dict)
    assert_same(program, folded, args)


def test_a_weight_that_is_also_needed_as_it_was_stays_beside() -> None:
    program, args = program_of(body(conv_once_bare, **ONE)())
    folded, _ = bnfold.torch.fold_program(program)
    assert norm_nodes(folded) == 0
    original = program.state_dict["conv.weight"]
    assert torch.equal(folded.state_dict["conv.weight"], original)
    assert_same(program, folded, args)


def test_what_nothing_reads_any_more_leaves_the_state_dict() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
    program, args = program_of(module)
    folded, _ = bnfold.torch.fold_program(program)
    assert sorted(folded.state_dict) == ["0.bias", "0.weight_folded"]
    assert_same(program, folded, args)


def test_batch_norm_in_the_code_of_a_module_goes_too() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.register_buffer("mean", torch.randn(4))
            self.register_buffer("var", torch.rand(4) + 0.5)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"y": F.batch_norm(self.conv(x), self.mean, self.var)}

    program, args = program_of(Net())
    folded, report = bnfold.torch.fold_program(program)
    assert len(report.folded) == 1
    assert_same(program, folded, args)


def test_outputs_keep_their_names_and_order() -> None:
    def code(m: Any, x: Tensor) -> dict[str, Any]:
        return {"b": m.bn(m.conv(x)), "a": x + 1}

    program, args = program_of(body(code, **ONE)())
    folded, _ = bnfold.torch.fold_program(program)
    assert list(folded.module()(*args)) == ["b", "a"]
    assert folded.call_spec == program.call_spec


def test_keep_names_what_stays() -> None:
    program, _ = program_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    folded, report = bnfold.torch.fold_program(program, keep=["1"])
    assert norm_nodes(folded) == 1
    assert [str(site.reason) for site in report.kept] == ["excluded"]


def test_a_write_that_would_reach_too_far_is_found() -> None:
    def code(m: Any, x: Tensor) -> Tensor:
        return m.conv(m.bn(x).mul_(2.0))

    layers = {"bn": lambda: nn.BatchNorm2d(3), "conv": conv()}
    program, _ = program_of(body(code, **layers)())
    _, report = bnfold.torch.fold_program(program)
    assert [str(site.reason) for site in report.kept] == ["fan_out"]


def test_a_module_is_no_program() -> None:
    with pytest.raises(InputError, match=r"a Linear is no torch\.export\.ExportedProgram"):
        bnfold.torch.fold_program(nn.Linear(2, 2))
