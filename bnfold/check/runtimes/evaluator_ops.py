"""The ONNX reference evaluator, with operators that do what the specification says.

The evaluator's own BatchNormalization (onnx 1.23) recomputes the statistics from the batch in
opsets 6 to 13, where the specification says inference, and reads ``spatial=0`` as ``spatial=1``.
Its ConvTranspose mixes groups up, weights and biases. And operators that it is given are not those
of the functions of a model.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from bnfold.check.models.model import Array

__all__ = ["evaluator_class"]


@cache
def evaluator_class(operators: tuple[Any, ...] = ()) -> Any:
    """Return the class of evaluators that know more operators, in functions and bodies too.

    Args:
        operators: Their classes, beside that of BatchNormalization.
    """
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - slow import, rarely needed

    class Evaluator(ReferenceEvaluator):
        def __init__(
            self,
            proto: Any,
            opsets: dict[str, int] | None = None,
            functions: Any = None,
            verbose: int = 0,
            new_ops: Any = None,
            **options: Any,
        ) -> None:
            versions = opsets or {each.domain: each.version for each in proto.opset_import}
            own = batch_normalization(versions.get("", versions.get("ai.onnx", 1)))
            given = (_conv_transpose(), *(new_ops or ()), *operators, own)
            known = {each.__name__: each for each in given}
            super().__init__(proto, opsets, functions, verbose, list(known.values()), **options)

    return Evaluator


@cache
def _conv_transpose() -> Any:
    from onnx.reference.ops import op_conv_transpose  # noqa: PLC0415 - slow import

    base: Any = op_conv_transpose.ConvTranspose

    class ConvTranspose(base):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, w: Array, b: Array | None = None, **options: Any) -> Any:
            groups = options.pop("group", None) or 1
            parts = [
                base._run(self, *part, group=1, **options)[0]  # noqa: SLF001 - its own group
                for part in zip(np.split(x, groups, axis=1), np.split(w, groups), strict=True)
            ]
            y = np.concatenate(parts, axis=1)
            return (y if b is None else (y + b.reshape(-1, *(1,) * (y.ndim - 2))).astype(x.dtype),)

    return ConvTranspose


def batch_normalization(opset: int) -> Any:
    """Return the operator's class for one version of the default domain.

    With x of shape (N, C, D1, ...), statistics of shape (C,), or (C, D1, ...) for ``spatial=0``::

        y = scale * (x - mean) / sqrt(var + epsilon) + bias

    in float64, rounded once to the type of x. In training form mean and variance (of the
    population) are those of the batch, and the running statistics are outputs.
    """
    from onnx.reference.op_run import OpRun  # noqa: PLC0415 - slow import, rarely needed

    class BatchNormalization(OpRun):
        op_domain = ""

        def _run(  # noqa: PLR0913 - the operator has these inputs and attributes
            self,
            x: Array,
            scale: Array,
            bias: Array,
            mean: Array,
            var: Array,
            *,
            epsilon: float = 1e-5,
            momentum: float = 0.9,
            is_test: int = 0,
            training_mode: int = 0,
            spatial: int = 1,
            **_: object,
        ) -> tuple[Array, ...]:
            count = len(self.onnx_node.output)
            if opset < 7:
                training = not is_test
            elif opset < 14:
                training = count > 1
            else:
                training = bool(training_mode)
            per_channel = spatial or opset >= 9
            shape = (-1,) + (1,) * (x.ndim - 2) if per_channel else x.shape[1:]
            axes = (0, *range(2, x.ndim)) if per_channel else (0,)
            used_mean, used_var = mean.astype(np.float64), var.astype(np.float64)
            running = used_mean, used_var
            values = x.astype(np.float64)
            if training:
                used_mean, used_var = values.mean(axis=axes), values.var(axis=axes)
                running = (
                    running[0] * momentum + used_mean * (1 - momentum),
                    running[1] * momentum + used_var * (1 - momentum),
                )
            factor = scale.astype(np.float64).ravel() / np.sqrt(used_var.ravel() + epsilon)
            centred = values - used_mean.reshape(shape)
            y = centred * factor.reshape(shape) + bias.astype(np.float64).reshape(shape)
            outputs = (
                y.astype(x.dtype),
                running[0].astype(mean.dtype),
                running[1].astype(var.dtype),
                used_mean.astype(mean.dtype),
                used_var.astype(var.dtype),
            )
            return outputs[:count]

    return BatchNormalization
