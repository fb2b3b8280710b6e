"""Small modules, each with one trap: what must fold, what must stay, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

__all__ = ["TRAPS", "Trap", "randomized"]

IMAGE = (2, 3, 8, 8)


@dataclass(frozen=True)
class Trap:
    """A module and what a fold must make of it.

    Attributes:
        make: Builds it, in any mode.
        inputs: Shapes of its inputs, or the inputs themselves.
        folded: Names of the normalizations that go.
        kept: Names of those that stay, with their reason codes.
        others: Shapes of other inputs on which both must agree.
    """

    make: Callable[[], nn.Module]
    inputs: Any = (IMAGE,)
    folded: tuple[str, ...] = ()
    kept: dict[str, str] = field(default_factory=dict)
    others: tuple[Any, ...] = ()


def randomized(module: nn.Module, seed: int = 0) -> nn.Module:
    """Eval mode, with statistics that look trained: negative scales too."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        for name in ("running_mean", "bias"):
            tensor = getattr(part, name, None)
            if getattr(part, "running_var", None) is not None and tensor is not None:
                tensor.data.normal_(generator=generator)
        if getattr(part, "running_var", None) is not None:
            part.running_var.uniform_(0.3, 2, generator=generator)
            if getattr(part, "weight", None) is not None:
                part.weight.data.normal_(generator=generator)
    return module.eval()


def body(code: Callable[..., Any], **layers: Any) -> Callable[[], nn.Module]:
    """A module whose layers and forward are given: traps stay short."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        module: nn.Module = type("Net", (nn.Module,), {"forward": code})()
        for name, layer in layers.items():
            setattr(module, name, layer())
        return module

    return make


def conv(i: int = 3, o: int = 4, k: int = 3, **options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(i, o, k, **options)


def bn(c: int = 4, **options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.BatchNorm2d(c, **options)


def sequence(*layers: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(*(layer() for layer in layers))

    return make


# --- modules that need a class


class TwoNames(nn.Module):
    """One normalization under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.again = self.bn

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.conv(x))


class Tied(nn.Module):
    """Two linear layers with one weight, of which one is normalized."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.b.weight = self.a.weight
        self.bn = nn.BatchNorm1d(6)
        self.both = both

    def forward(self, x: Tensor) -> Tensor:
        if self.both:
            return self.bn(self.a(x)) + self.bn(self.b(x * 2))
        return self.bn(self.a(x)) + self.b(x)


class TiedByView(nn.Module):
    """Two parameters in one memory."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.b.weight = nn.Parameter(self.a.weight.data.view(6, 6))
        self.bn = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.a(x)) + self.b(x)


class Buffers(nn.Module):
    """F.batch_norm in the middle of other code."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("running_mean", torch.zeros(4))
        self.register_buffer("running_var", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(self.conv(x), self.running_mean, self.running_var).relu()


class OwnNorm(nn.Module):
    """F.batch_norm and nothing else."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c))
        self.register_buffer("running_mean", torch.zeros(c))
        self.register_buffer("running_var", torch.ones(c), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=1e-3
        )


class FrozenBatchNorm2d(nn.Module):
    """As torchvision and detectors write it."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(c))
        self.register_buffer("bias", torch.zeros(c))
        self.register_buffer("running_mean", torch.zeros(c))
        self.register_buffer("running_var", torch.ones(c))

    def forward(self, x: Tensor) -> Tensor:
        w, b = self.weight.reshape(1, -1, 1, 1), self.bias.reshape(1, -1, 1, 1)
        var, mean = self.running_var.reshape(1, -1, 1, 1), self.running_mean.reshape(1, -1, 1, 1)
        scale = w * (var + 1e-5).rsqrt()
        return x * scale + (b - mean * scale)


class BatchNormAct2d(nn.BatchNorm2d):
    """As in timm: normalization and activation in one module."""

    def __init__(self, c: int) -> None:
        super().__init__(c)
        self.drop, self.act = nn.Identity(), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps
        )
        return self.act(self.drop(x))


class Doubling(nn.BatchNorm2d):
    """A normalization that does something else too."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class ForgetsBias(nn.Conv2d):
    """A convolution whose code does not look at its bias."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, None, self.stride, self.padding)


class Standardized(nn.Conv2d):
    """Weight standardization: the weight is computed from the parameter."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Hidden(nn.Module):
    """A normalization that is also in a plain list, and is called from there."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.layers = [self.conv, self.bn]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Configured(nn.Module):
    """Asks its normalization for an attribute when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * self.bn.num_features


def hooked(where: str, *, changes: bool = False) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        module = sequence(conv(), bn(), nn.ReLU)()
        hook = _double if changes else _look
        module.get_submodule(where).register_forward_hook(hook)
        return module

    return make


def _look(module: nn.Module, args: Any, output: Tensor) -> None:
    return None


def _double(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output * 2


def weight_normed() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    return nn.Sequential(layer, nn.BatchNorm2d(4))


def spectral_normed() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4, bias=False))
    return nn.Sequential(layer, nn.BatchNorm1d(4))


def half() -> nn.Module:
    return randomized(sequence(conv(), bn(), nn.ReLU)()).half()


def bfloat() -> nn.Module:
    return randomized(sequence(conv(), bn(), nn.ReLU)()).bfloat16()


def double() -> nn.Module:
    return randomized(sequence(conv(), bn(), nn.ReLU)()).double()


def nan_statistics() -> nn.Module:
    module = randomized(sequence(conv(), bn())())
    module[1].running_var[0] = -1.0
    return module


def one_in_training() -> nn.Module:
    module = randomized(sequence(conv(), bn(), conv(4, 4, 1), bn())())
    module[1].train()
    return module


def lazy() -> nn.Module:
    module = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d())
    module(torch.zeros(IMAGE))
    return module


# --- code of traps


def residual(m: Any, x: Tensor) -> Tensor:
    return F.relu(m.bn1(m.conv1(x)) + m.bn2(m.conv2(x)))


def skip_of_raw(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.bn(y) + y


def twice_alike(m: Any, x: Tensor) -> Tensor:
    return m.bn(m.conv(x)) + m.bn(m.conv(x.flip(3)))


def conv_twice(m: Any, x: Tensor) -> Tensor:
    return m.bn1(m.conv(x)) + m.bn2(m.conv(x.flip(3)))


def conv_once_bare(m: Any, x: Tensor) -> Tensor:
    return m.bn(m.conv(x)) + m.conv(x.flip(3))


def norm_twice(m: Any, x: Tensor) -> Tensor:
    return m.bn(m.conv1(x)) + m.bn(m.conv2(x))


def norm_twice_one_free(m: Any, x: Tensor) -> Tensor:
    y = F.gelu(m.conv2(x))
    return m.bn(m.conv1(x)) + m.bn(y)


def norm_of_norm(m: Any, x: Tensor) -> Tensor:
    return m.bn(m.bn(m.conv(x)))


def regularized(m: Any, x: Tensor) -> dict[str, Tensor]:
    return {"y": m.bn(m.conv(x)), "penalty": m.conv.weight.square().sum()}


def by_shape(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.bn(y) if x.shape[2] < 12 else y


def by_shape_harmless(m: Any, x: Tensor) -> Tensor:
    if x.shape[2] % 2:
        x = F.pad(x, (0, 1, 0, 1))
    return m.bn(m.conv(x))


def by_batch(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    return y if len(x) == 1 else m.bn(y)


def by_threshold(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.bn(y) if x.shape[-1] <= 150 else y.relu()


def by_value(m: Any, x: Tensor) -> Tensor:
    y = m.stem(x)
    y = m.conv(y)
    return m.bn(y) if x.mean() > -1e9 else y


def by_flag(m: Any, x: Tensor, raw: bool = False) -> Any:
    y = m.conv(x)
    return (m.bn(y), y) if raw else m.bn(y)


def by_flag_harmless(m: Any, x: Tensor, double: bool = False) -> Any:
    y = m.bn(m.conv(x))
    return y * 2 if double else y


def dicts(m: Any, x: Tensor) -> dict[str, Any]:
    y = m.bn(m.conv(x))
    return {"out": y, "more": [y.mean(), None], "name": "net"}


def returns_inner(m: Any, x: Tensor) -> list[Tensor]:
    y = m.conv(x)
    return [m.bn(y), y]


def inplace_between(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    y.relu_()
    return m.bn(y)


def inplace_after(m: Any, x: Tensor) -> Tensor:
    return F.relu_(m.bn(m.conv(x)))


def inplace_through_view(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    y[:, :2].mul_(3.0)
    return m.bn(y)


def inplace_view_after(m: Any, x: Tensor) -> Tensor:
    y = m.bn(m.conv(x))
    y[:, :2] += 1.0
    return y


def identity_would_leak(m: Any, x: Tensor) -> Tensor:
    """Without the norm, mul_ would change what is added later."""
    a = F.gelu(m.conv(x))
    return m.last(m.bn(a).mul_(2.0)) + a.mean()


def input_would_change(m: Any, x: Tensor) -> Tensor:
    """Without the norm, mul_ would write into the caller's tensor."""
    return m.conv(m.bn(x).mul_(2.0))


def saves(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    kept = y.detach()
    return m.bn(y) + kept


def linear_on_channels(m: Any, x: Tensor) -> Tensor:
    return m.bn(m.linear(x))


def linear_then_transpose(m: Any, x: Tensor) -> Tensor:
    return m.bn(m.linear(x).transpose(1, 2))


def view_by_luck(m: Any, x: Tensor) -> Tensor:
    """In a batch of one the reshape undoes the transpose."""
    y = m.conv(x)
    return m.bn(y.transpose(0, 1).reshape(y.shape))


def functional_twin(m: Any, x: Tensor) -> Tensor:
    return m.bn(m.conv(x)) + F.conv2d(x, m.conv.weight)


def reads_statistics(m: Any, x: Tensor) -> Tensor:
    return m.bn(m.conv(x)) + m.bn.running_mean.mean()


def shuffle(m: Any, x: Tensor) -> Tensor:
    return m.bn(F.pixel_unshuffle(m.conv(x), 2))


def concat(m: Any, x: Tensor) -> Tensor:
    return m.bn(torch.cat([m.a(x), m.b(x)], 1))


def concat_of_input(m: Any, x: Tensor) -> Tensor:
    return m.bn(torch.cat([m.a(x), x], 1))


def gate(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.bn(y * torch.sigmoid(m.gate(x)))


def pooled_indices(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return F.max_pool2d(m.bn(m.conv(x)), 2, return_indices=True)


def indices_before(m: Any, x: Tensor) -> Any:
    y, where = F.max_pool2d(m.conv(x), 2, return_indices=True)
    return m.bn(y), where


def masked(m: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
    y = m.conv(x)
    return m.bn(y if mask is None else y * mask)


class Wrapped:
    """A result that torch knows nothing of."""

    def __init__(self, **parts: Any) -> None:
        self.parts = parts


def wrapped(m: Any, x: Tensor) -> Wrapped:
    return Wrapped(y=m.bn(m.conv(x)), n=3)


def wrapped_inner(m: Any, x: Tensor) -> Wrapped:
    y = m.conv(x)
    return Wrapped(y=m.bn(y), raw=y)


def through_numpy(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    factor = torch.from_numpy(1.0 + x.detach().numpy().mean(keepdims=True))
    return m.last(m.bn(y * factor).relu())


def numbers(m: Any, x: Tensor) -> Tensor:
    """Not for torch.export, and no branch depends on it."""
    return m.body(x) * float(x.mean())


def uncalled(m: Any, x: Tensor) -> Tensor:
    return m.bn(m.conv(x))


def tied_gamma() -> nn.Module:
    module = sequence(conv(), bn(), conv(4, 4), bn())()
    module[3].weight = module[1].weight
    return module


class Accumulates(nn.Module):
    """A buffer that changes with each call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.register_buffer("count", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.bn(self.conv(x)) * self.count


def linear(i: int, o: int, **options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(i, o, **options)


def bn1(c: int, **options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.BatchNorm1d(c, **options)


def transposed(i: int, o: int, k: int, **options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.ConvTranspose2d(i, o, k, **options)


BOTH = {"conv1": conv(), "conv2": conv(bias=False), "bn1": bn(), "bn2": bn()}
ONE = {"conv": conv(), "bn": bn()}
BIG = ((2, 3, 14, 14),)

TRAPS: dict[str, Trap] = {
    # everything folds
    "conv-bn": Trap(sequence(conv(bias=False), bn()), folded=("1",)),
    "bn-conv-unpadded": Trap(sequence(bn(3), conv()), folded=("0",)),
    "bn-conv-padded": Trap(sequence(bn(3), conv(padding=1)), kept={"0": "padding_shift"}),
    "bn-conv-same": Trap(sequence(bn(3), conv(padding="same")), kept={"0": "padding_shift"}),
    "bn-conv-valid": Trap(sequence(bn(3), conv(padding="valid")), folded=("0",)),
    **{
        f"bn-conv-{mode}": Trap(
            sequence(bn(3), conv(padding=1, padding_mode=mode)), folded=("0",)
        )
        for mode in ("reflect", "replicate", "circular")
    },
    "bn-relu-conv": Trap(sequence(bn(3), nn.ReLU, conv()), kept={"0": "graph_input"}),
    "conv-relu-bn-conv": Trap(sequence(conv(), nn.ReLU, bn(), conv(4, 3)), folded=("2",)),
    "bn-flatten-linear": Trap(
        sequence(conv(), nn.ReLU, bn(), nn.Flatten, linear(144, 5)), folded=("2",)
    ),
    "bn-bn": Trap(sequence(conv(), bn(), bn()), folded=("1", "2")),
    "grouped-transposed": Trap(
        sequence(transposed(4, 6, 3, groups=2, stride=2, bias=False), bn(6)), ((2, 4, 5, 5),), ("1",)
    ),
    "bn-grouped-transposed": Trap(
        sequence(bn(4), transposed(4, 6, 1, groups=2)), ((2, 4, 5, 5),), ("0",)
    ),
    "bn-transposed-strided": Trap(
        sequence(bn(4), transposed(4, 6, 2, stride=2)), ((2, 4, 5, 5),), kept={"0": "padding_shift"}
    ),
    "grouped": Trap(sequence(conv(3, 6, 3, groups=3), bn(6), conv(6, 4, 1, groups=2)), folded=("1",)),
    "conv1d": Trap(sequence(lambda: nn.Conv1d(3, 4, 3), bn1(4)), ((2, 3, 9),), ("1",)),
    "conv3d": Trap(
        sequence(lambda: nn.Conv3d(2, 4, 3), lambda: nn.BatchNorm3d(4)), ((2, 2, 5, 5, 5),), ("1",)
    ),
    "transposed3d": Trap(
        sequence(lambda: nn.ConvTranspose3d(2, 4, 2), lambda: nn.BatchNorm3d(4)),
        ((2, 2, 4, 4, 4),), ("1",),
    ),
    "sync": Trap(sequence(conv(), lambda: nn.SyncBatchNorm(4)), folded=("1",)),
    "not-affine": Trap(sequence(conv(bias=False), bn(affine=False)), folded=("1",)),
    "cumulative": Trap(sequence(conv(), bn(momentum=None)), folded=("1",)),
    "no-statistics": Trap(
        sequence(conv(), bn(track_running_stats=False)), kept={"1": "training_mode"}
    ),
    "one-in-training": Trap(one_in_training, folded=("3",), kept={"1": "training_mode"}),
    "lazy": Trap(lazy, folded=("1",)),
    "half": Trap(half, (torch.randn(IMAGE).half(),), ("1",)),
    "bfloat16": Trap(bfloat, (torch.randn(IMAGE).bfloat16(),), ("1",)),
    "double": Trap(double, (torch.randn(IMAGE).double(),), ("1",)),
    "negative-variance": Trap(nan_statistics, kept={"1": "non_finite_statistics"}),
    # who feeds whom
    "residual": Trap(body(residual, **BOTH), folded=("bn1", "bn2")),
    "skip-of-raw": Trap(body(skip_of_raw, **ONE), kept={"bn": "fan_out"}),
    "conv-and-norm-twice": Trap(body(twice_alike, **ONE), folded=("bn",)),
    "conv-twice": Trap(
        body(conv_twice, conv=conv(), bn1=bn(), bn2=bn()), kept={"bn1": "fan_out", "bn2": "fan_out"}
    ),
    "conv-once-bare": Trap(body(conv_once_bare, **ONE), kept={"bn": "fan_out"}),
    "norm-twice": Trap(body(norm_twice, conv1=conv(), conv2=conv(), bn=bn()), folded=("bn",)),
    "norm-twice-one-free": Trap(
        body(norm_twice_one_free, conv1=conv(), conv2=conv(), bn=bn()), kept={"bn": "nonlinear"}
    ),
    "norm-of-norm": Trap(body(norm_of_norm, **ONE), folded=("bn",)),
    "two-names": Trap(TwoNames, folded=("bn",)),
    "tied": Trap(lambda: Tied(both=False), ((3, 6),), kept={"bn": "fan_out"}),
    "tied-alike": Trap(lambda: Tied(both=True), ((3, 6),), folded=("bn",)),
    "tied-by-view": Trap(TiedByView, ((3, 6),), folded=("bn",)),
    "regularizer": Trap(body(regularized, **ONE), kept={"bn": "fan_out"}),
    "functional-twin": Trap(body(functional_twin, **ONE), kept={"bn": "fan_out"}),
    "reads-statistics": Trap(body(reads_statistics, **ONE), kept={"bn": "fan_out"}),
    "concat": Trap(body(concat, a=conv(3, 2), b=conv(3, 2), bn=bn()), folded=("bn",)),
    "concat-of-input": Trap(
        body(concat_of_input, a=conv(3, 2, padding=1), bn=bn(5)), kept={"bn": "graph_input"}
    ),
    "gate": Trap(body(gate, conv=conv(), gate=conv(), bn=bn()), kept={"bn": "nonlinear"}),
    "pixel-unshuffle": Trap(body(shuffle, conv=conv(), bn=bn(16)), kept={"bn": "not_per_channel"}),
    "pool-with-indices": Trap(body(pooled_indices, **ONE), folded=("bn",)),
    "indices-returned": Trap(body(indices_before, **ONE), kept={"bn": "nonlinear"}),
    "dict-outputs": Trap(body(dicts, **ONE), folded=("bn",)),
    "returns-inner": Trap(body(returns_inner, **ONE), kept={"bn": "graph_output"}),
    "optional-argument": Trap(body(masked, **ONE), folded=("bn",)),
    "unknown-result": Trap(body(wrapped, **ONE), folded=("bn",)),
    "unknown-result-with-inner": Trap(body(wrapped_inner, **ONE), kept={"bn": "graph_output"}),
    "through-numpy": Trap(
        body(through_numpy, **ONE, last=conv(4, 2)), kept={"bn": "graph_output"}
    ),
    "reads-a-number": Trap(body(numbers, body=sequence(conv(), bn(), nn.ReLU)), folded=("body.1",)),
    "uncalled": Trap(body(uncalled, **ONE, aux=bn()), folded=("bn",), kept={"aux": "no_linear_neighbour"}),
    "tied-gamma": Trap(tied_gamma, folded=("1", "3")),
    # axes
    "linear-bn": Trap(sequence(linear(6, 4, bias=False), bn1(4)), ((3, 6),), ("1",)),
    "linear-L-equals-C": Trap(
        body(linear_on_channels, linear=linear(5, 6), bn=bn1(6)), ((2, 6, 5),),
        kept={"bn": "not_per_channel"},
    ),
    "linear-transpose": Trap(
        body(linear_then_transpose, linear=linear(5, 6), bn=bn1(6)), ((2, 7, 5),), ("bn",)
    ),
    "linear-transpose-L-equals-C": Trap(
        body(linear_then_transpose, linear=linear(5, 6, bias=False), bn=bn1(6)), ((2, 6, 5),), ("bn",)
    ),
    "view-by-luck": Trap(
        body(view_by_luck, **ONE), ((1, 3, 8, 8),), kept={"bn": "not_per_channel"}, others=((IMAGE,),)
    ),
    # writes in place
    "inplace-relu-between": Trap(body(inplace_between, **ONE), kept={"bn": "nonlinear"}),
    "inplace-relu-after": Trap(body(inplace_after, **ONE), folded=("bn",)),
    "inplace-through-view": Trap(body(inplace_through_view, **ONE), kept={"bn": "nonlinear"}),
    "inplace-view-after": Trap(body(inplace_view_after, **ONE), folded=("bn",)),
    "identity-would-leak": Trap(
        body(identity_would_leak, **ONE, last=conv(4, 2)), kept={"bn": "fan_out"}
    ),
    "input-would-change": Trap(body(input_would_change, bn=bn(3), conv=conv()), kept={"bn": "fan_out"}),
    "detached": Trap(body(saves, **ONE), kept={"bn": "fan_out"}),
    "changing-buffer": Trap(Accumulates, folded=("bn",)),
    # branches
    "by-shape": Trap(body(by_shape, **ONE), kept={"bn": "fan_out"}, others=(BIG,)),
    "by-shape-harmless": Trap(body(by_shape_harmless, **ONE), folded=("bn",), others=(((2, 3, 9, 9),),)),
    "by-batch": Trap(body(by_batch, **ONE), kept={"bn": "fan_out"}, others=(((1, 3, 8, 8),),)),
    "by-threshold": Trap(
        body(by_threshold, **ONE), kept={"bn": "fan_out"}, others=(((1, 3, 8, 160),),)
    ),
    "by-value": Trap(
        body(by_value, stem=sequence(conv(), bn()), conv=conv(4, 4), bn=bn()),
        folded=("stem.1",), kept={"bn": "graph_output"},
    ),
    "by-flag": Trap(body(by_flag, **ONE), kept={"bn": "graph_output"}),
    "by-flag-harmless": Trap(body(by_flag_harmless, **ONE), folded=("bn",)),
    # code
    "functional": Trap(Buffers, kept={"Buffers": "no_gain"}),
    "own-norm": Trap(sequence(conv(), lambda: OwnNorm(4), nn.ReLU), folded=("1",)),
    "frozen": Trap(sequence(conv(), lambda: FrozenBatchNorm2d(4), nn.ReLU), folded=("1",)),
    "frozen-forward": Trap(
        sequence(conv(), nn.ReLU, lambda: FrozenBatchNorm2d(4), conv(4, 3)), folded=("2",)
    ),
    "norm-and-activation": Trap(sequence(conv(), lambda: BatchNormAct2d(4)), folded=("1",)),
    "norm-that-doubles": Trap(sequence(conv(), lambda: Doubling(4)), kept={"1": "no_gain"}),
    "conv-without-bias-in-code": Trap(
        sequence(lambda: ForgetsBias(3, 4, 3, bias=False), bn()), kept={"1": "dynamic_weight"}
    ),
    "weight-standardization": Trap(
        sequence(lambda: Standardized(3, 4, 3), bn()), kept={"1": "dynamic_weight"}
    ),
    "hidden-in-a-list": Trap(Hidden, kept={"bn": "dynamic_weight"}),
    "asked-for-an-attribute": Trap(Configured, kept={"bn": "dynamic_weight"}),
    "hook-on-conv": Trap(hooked("0"), kept={"1": "graph_output"}),
    "hook-that-changes": Trap(hooked("0", changes=True), kept={"1": "graph_output"}),
    "hook-on-norm": Trap(hooked("1"), kept={"1": "fan_out"}),
    "hook-on-relu": Trap(hooked("2"), folded=("1",)),
    "hook-on-all": Trap(hooked(""), folded=("1",)),
    "weight-norm": Trap(weight_normed, folded=("1",)),
    "spectral-norm": Trap(spectral_normed, ((3, 6),), ("1",)),
    "the-norm-alone": Trap(bn(3), kept={"BatchNorm2d": "no_linear_neighbour"}),
}  # fmt: skip
