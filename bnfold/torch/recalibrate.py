"""Statistics of a module's batch normalizations, gathered again from data.

The same numbers as for an ONNX model (:mod:`bnfold.recalibrate`): the moments of every batch in
float64, pooled by the same code. Each batch is normalized by its own mean and population variance,
as ``BatchNorm`` does in train mode; everything else, dropout for one, is in evaluation mode.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnfold.errors import InputError, ModelError
from bnfold.progress import Progress
from bnfold.recalibrate.assess import drift_of, sorted_by_drift
from bnfold.recalibrate.moments import Moments
from bnfold.recalibrate.norms import Norm
from bnfold.recalibrate.renewal import MODES, SEQUENTIAL, Renewal, Rule, require_choice
from bnfold.recalibrate.report import NormKept, RecalibrationReport

__all__ = ["recalibrate"]

_KINDS = {
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
}

Inputs = Callable[[Any], Any]


class _EnoughError(Exception):
    """What a pass wanted of a batch is there; the rest of the module need not run."""


def recalibrate(  # noqa: PLR0913 - the options of `bnfold.recalibrate`
    module: nn.Module,
    loader: Iterable[Any],
    *,
    mode: str = "precise",
    variance: str = "unbiased",
    pooling: str = "samples",
    momentum: float = 1.0,
    only: Sequence[str] = (),
    keep_constant: bool = False,
    samples: int | None = None,
    inputs: Inputs | None = None,
    progress: Progress | None = None,
) -> tuple[nn.Module, RecalibrationReport]:
    """Gather mean and variance of what every batch normalization of a module normalizes.

    Args:
        module: It is not changed.
        loader: Batches: tensors, dicts of keyword arguments, or sequences of which as many are
            used as ``module.forward`` needs (so that labels may come behind the images). They are
            moved to where the module is.
        mode: As for :func:`bnfold.recalibrate`; ``sequential`` iterates once for each
            normalization.
        variance: As for :func:`bnfold.recalibrate`.
        pooling: As for :func:`bnfold.recalibrate`; ``batches`` with ``unbiased`` is what an epoch
            in train mode with ``momentum=None`` leaves.
        momentum: As for :func:`bnfold.recalibrate`.
        only: Globs on names of modules, such as ``layer1.*``.
        keep_constant: As for :func:`bnfold.recalibrate`.
        samples: Use the batches that come before this many samples are reached.
        inputs: Makes of a batch what the module is called with: a tensor, a tuple or a dict.
        progress: Called with what is being done.

    Returns:
        A copy of the module with the new statistics, and the report. ``num_batches_tracked`` and
        the training flags are as they were.

    Raises:
        InputError: An option or the data cannot be used; there are too few samples, or channels
            that are constant.
        ModelError: The module has no normalization to renew, or one without running statistics.
    """
    require_choice("mode", mode, MODES)
    rule = Rule(variance, pooling, momentum, keep_constant)
    if mode == SEQUENTIAL and isinstance(loader, Iterator):
        raise InputError(
            "layer by layer needs the data several times, and an iterator gives it once",
            hint="give a list or a DataLoader",
        )
    renewed = copy.deepcopy(module)
    found, kept = _find(renewed, (only,) if isinstance(only, str) else tuple(only))
    flags = {each: each.training for each in renewed.modules()}
    renewed.eval()
    watched = [_Watched(name, norm) for name, norm in found]
    run = _Run(renewed, loader, inputs, samples, progress or (lambda _: None))
    try:
        renewals = _gather(run, watched, rule, mode)
    finally:
        for each in watched:
            each.restore()
    for flagged, training in flags.items():
        flagged.training = training
    drifts = [
        drift_of(each.stored(), renewal, each.moments.count)
        for each, renewal in zip(watched, renewals, strict=True)
    ]
    for each, renewal in zip(watched, renewals, strict=True):
        each.put(renewal)
    report = RecalibrationReport(
        model=type(module).__name__,
        output=None,
        mode=mode,
        variance=variance,
        pooling=pooling,
        momentum=momentum,
        provider=f"torch {run.device}",
        samples=run.rows,
        batches=run.batches,
        norms=sorted_by_drift(drifts),
        kept=kept,
    )
    return renewed, report


def _gather(run: _Run, watched: Sequence[_Watched], rule: Rule, mode: str) -> list[Renewal]:
    if mode != SEQUENTIAL:
        for each in watched:
            each.gather()
        run.all_batches("gathering")
        return [each.renewed(rule) for each in watched]
    order: dict[_Watched, int] = {}
    for each in watched:
        each.gather(lambda each: order.__setitem__(each, order.get(each, 0) + 1))
    run.one_batch()
    renewals: dict[_Watched, Renewal] = {}
    for at, each in enumerate([*order, *(each for each in watched if each not in order)]):
        each.moments = Moments.empty(each.channels)
        # Behind its last use nothing matters any more.
        each.gather(_stop_after(order.get(each, 0)))
        run.all_batches(f"layer {at + 1} of {len(watched)}")
        renewals[each] = each.renewed(rule)
        each.work_with(renewals[each])
    return [renewals[each] for each in watched]


def _stop_after(uses: int) -> Callable[[_Watched], None]:
    seen = 0

    def count(_: _Watched) -> None:
        nonlocal seen
        seen += 1
        if seen == uses:
            seen = 0
            raise _EnoughError

    return count


class _Watched:
    """One normalization of the copy.

    Attributes:
        name: Its name in the module.
        moments: What has been gathered of it.
    """

    def __init__(self, name: str, norm: _BatchNorm) -> None:
        self.name = name
        self.moments = Moments.empty(norm.num_features)
        self._norm = norm
        self._kind = int(TensorProto.FLOAT)
        assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101, PT018 - _find has seen both
        self._before = (norm.running_mean.clone(), norm.running_var.clone())

    @property
    def channels(self) -> int:
        """C."""
        return int(self._norm.num_features)

    def gather(self, then: Callable[[_Watched], None] | None = None) -> None:
        """From now on, normalize every batch by its own statistics, and gather them.

        Args:
            then: Called behind each use.
        """

        def forward(x: Tensor) -> Tensor:
            result = self._by_its_batch(x)
            if then is not None:
                then(self)
            return result

        self._norm.forward = forward  # type: ignore[method-assign,assignment]

    def work_with(self, renewal: Renewal) -> None:
        """From now on, normalize by new statistics."""
        self.restore()
        self.put(renewal)

    def restore(self) -> None:
        """Give the module its own way to work back."""
        self._norm.__dict__.pop("forward", None)

    def put(self, renewal: Renewal) -> None:
        """Store new statistics."""
        pairs = zip((self._norm.running_mean, self._norm.running_var), renewal.stored, strict=True)
        for buffer, values in pairs:
            if buffer is not None:
                buffer.copy_(torch.from_numpy(values.astype(np.float64)))

    def renewed(self, rule: Rule) -> Renewal:
        """Return the new statistics."""
        return rule.renewed(self.stored(), self.moments)

    def stored(self) -> Norm:
        """Return the normalization as it was."""
        norm = self._norm
        ones = np.ones(self.channels)
        gamma = ones if norm.weight is None else _float64(norm.weight)
        beta = 0 * ones if norm.bias is None else _float64(norm.bias)
        mean, var = map(_float64, self._before)
        kind = int(_KINDS.get(self._before[0].dtype, TensorProto.FLOAT))
        return Norm(self.name, (), gamma, beta, mean, var, norm.eps, self._kind, kind)

    def _by_its_batch(self, x: Tensor) -> Tensor:
        """Normalize as in train mode, in float64, and add the moments of the batch to the others.

        Args:
            x: (N, C, ...), any number of axes behind the channels.
        """
        if x.dim() < 2 or x.shape[1] != self.channels:
            raise InputError(
                f"'{self.name}': {self.channels} channels, but its input is {list(x.shape)}",
                hint="give data that the module takes",
            )
        self._kind = int(_KINDS.get(x.dtype, TensorProto.FLOAT))
        norm, count = self._norm, x.numel() // self.channels
        shape = (1, -1) + (1,) * (x.dim() - 2)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        # Metal has no float64.
        wide = x.cpu().double() if x.device.type == "mps" else x.double()
        mean = wide.mean(axes)
        wide = wide - mean.reshape(shape)
        square = wide.square().sum(axes)
        if not bool(torch.isfinite(mean + square).all()):
            raise InputError(
                f"NaN or infinity in front of '{self.name}'",
                hint="take the samples out that are not finite, or that make the module overflow",
            )
        self.moments = self.moments + Moments.of_batch(count, _float64(mean), _float64(square))
        scale = torch.rsqrt(square / count + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight.to(wide)
        wide = wide * scale.reshape(shape)
        if norm.bias is not None:
            wide = wide + norm.bias.to(wide).reshape(shape)
        return wide.to(x)


class _Run:
    """Calls a module on the batches of a loader.

    Attributes:
        device: Where the module is.
        rows: Samples of the last pass.
        batches: Batches of the last pass.
    """

    def __init__(
        self,
        module: nn.Module,
        loader: Iterable[Any],
        inputs: Inputs | None,
        samples: int | None,
        progress: Progress,
    ) -> None:
        self._module = module
        self._loader = loader
        self._inputs = inputs or _first_of(module)
        self._samples = samples
        self._progress = progress
        tensors = [*module.parameters(), *module.buffers()]
        self.device = tensors[0].device if tensors else torch.device("cpu")
        self.rows = self.batches = 0

    def all_batches(self, what: str) -> None:
        """Call the module on all batches.

        Raises:
            InputError: There are none, or the module does not take them.
        """
        self.rows = self.batches = 0
        for batch in self._loader:
            self.rows += self._call(batch)
            self.batches += 1
            self._progress(f"{what}: {self.rows} samples")
            if self._samples is not None and self.rows >= self._samples:
                break
        if not self.batches:
            raise InputError("the loader gives no batches", hint="give one that can be iterated")

    def one_batch(self) -> None:
        """Call the module on the first batch."""
        for batch in self._loader:
            self._call(batch)
            return

    def _call(self, batch: Any) -> int:
        """Call the module on one batch; return the number of samples."""
        given = _moved(self._inputs(batch), self.device)
        arguments, keywords = ((), given) if isinstance(given, Mapping) else (given, {})
        arguments = arguments if isinstance(arguments, tuple | list) else (arguments,)
        tensors = [each for each in (*arguments, *keywords.values()) if isinstance(each, Tensor)]
        for tensor in tensors:
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise InputError(
                    f"NaN or infinity in batch {self.batches} of the data",
                    hint="statistics of such data mean nothing; take these samples out",
                )
        try:
            with torch.no_grad():
                self._module(*arguments, **keywords)
        except _EnoughError:
            pass
        except (RuntimeError, ValueError, TypeError) as error:
            why = " ".join(str(error).split())[:300]
            raise InputError(
                f"the module does not take batch {self.batches} of the data: {why}",
                hint="pick its arguments out of a batch with inputs=, such as lambda b: b[0]",
            ) from error
        return len(tensors[0]) if tensors and tensors[0].dim() else 1


def _find(
    module: nn.Module, only: tuple[str, ...]
) -> tuple[list[tuple[str, _BatchNorm]], tuple[NormKept, ...]]:
    """Return the normalizations to renew, and those that keep their statistics."""
    found: list[tuple[str, _BatchNorm]] = []
    kept: list[NormKept] = []
    for name, each in module.named_modules():
        if not isinstance(each, _BatchNorm):
            continue
        label = name or type(each).__name__
        if only and not any(fnmatchcase(label, pattern) for pattern in only):
            detail = f'"{label}" is not among those asked for'
            kept.append(NormKept(label, "main", each.num_features, "excluded", detail))
            continue
        if each.running_mean is None or each.running_var is None:
            raise ModelError(
                f"'{label}' has no running statistics: it normalizes with those of the batch",
                hint="name the others with only=",
            )
        found.append((label, each))
    if not found and kept:
        raise InputError(
            f"only= matches none of the {len(kept)} batch normalizations",
            hint=f"such as only='{kept[0].name}'",
        )
    if not found:
        raise ModelError(f"{type(module).__name__} has no batch normalization")
    return found, tuple(kept)


def _first_of(module: nn.Module) -> Inputs:
    """Return a function that takes as much of a sequence as ``forward`` needs."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(module.forward).parameters.values()
    needed = sum(each.kind in kinds and each.default is each.empty for each in parameters)

    def pick(batch: Any) -> Any:
        return tuple(batch[: max(needed, 1)]) if isinstance(batch, tuple | list) else batch

    return pick


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value).to(device)
    if isinstance(value, Mapping):
        return {name: _moved(each, device) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_moved(each, device) for each in value)
    return value


def _float64(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    return tensor.detach().cpu().double().numpy()
