"""A fold as a pass of ``onnx_ir``, for anyone's ``PassManager`` or ``Sequential``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnfold.errors import MissingPackageError

try:
    import onnx_ir
except ModuleNotFoundError as error:
    raise MissingPackageError(
        "FoldBatchNormPass is a pass of the package 'onnx_ir', which is not installed",
        hint="pip install onnx_ir",
    ) from error

from bnfold.graph.fold import FoldOptions, fold_model
from bnfold.ir_models import open_ir, replace_contents, to_ir

if TYPE_CHECKING:
    from bnfold.report import FoldReport

__all__ = ["FoldBatchNormPass"]


class FoldBatchNormPass(onnx_ir.passes.InPlacePass):
    """Fold every batch normalization of a model that can be folded exactly, without a proof.

    The model stays the same object and its graph is a new one, in which every tensor that has not
    changed is the object that it was, be it in memory, external or lazy. A model in which nothing
    folds is not touched.

    Attributes:
        report: What the last call has folded, and what it has kept and why; None before.
    """

    def __init__(
        self,
        *,
        keep: Sequence[str] = (),
        freeze_initializers: bool = False,
        merge: bool = True,
        ones_channel: bool = False,
    ) -> None:
        """Choose what to fold; the arguments are those of :func:`bnfold.fold`."""
        keep = (keep,) if isinstance(keep, str) else tuple(keep)
        self._options = FoldOptions(keep, freeze_initializers, merge, ones_channel)
        self.report: FoldReport | None = None

    def call(self, model: onnx_ir.Model) -> onnx_ir.passes.PassResult:
        """Fold ``model`` in place.

        Raises:
            ModelError: It is not valid ONNX, for example has two values of one name.
        """
        loaded = open_ir(model)
        self.report, changed = fold_model(loaded, self._options)
        if changed:
            replace_contents(model, to_ir(loaded))
        return onnx_ir.passes.PassResult(model, modified=changed)
