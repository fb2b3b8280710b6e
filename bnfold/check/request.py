"""What a check is asked to do, as plain data that another process can take over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnfold.progress import Progress
    from bnfold.report import CheckReport

__all__ = ["Request"]


@dataclass(frozen=True)
class Request:
    """The arguments of :func:`bnfold.check`.

    Attributes:
        reference: Path, or the serialized model.
        candidate: Path, or the serialized model.
        providers: As a user names them.
        level: Optimization level of the deployment.
        inputs: Shapes by input name.
        dims: Sizes by symbol.
        data: Files and folders with inputs.
        loader: ``file.py:function`` that yields inputs, or None.
        samples: At most this many feeds, a caller's own first; None for all of them and the plan.
        rtol: With ``atol``, a caller's rule for every output in place of the noise rule.
        atol: See ``rtol``.
        tolerances: Rules by output name, or a file with them, or None.
        seed: Where the random numbers start.
        oracle: True to ask which model is nearer to the truth.
        localize: True to look for the first tensor where the models part.
        tf32: True to measure what TF32 does.
        failing_feed: Where the feed that decided against the candidate is saved, or None.
    """

    reference: str | bytes
    candidate: str | bytes
    providers: tuple[str, ...] = ("cpu",)
    level: str = "default"
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    loader: str | None = None
    samples: int | None = None
    rtol: float | None = None
    atol: float | None = None
    tolerances: str | Mapping[str, Any] | None = None
    seed: int = 0
    oracle: bool = False
    localize: bool = False
    tf32: bool = False
    failing_feed: str | None = None

    def run(self, *, progress: Progress, learned: Callable[[CheckReport], None]) -> None:
        """Make the check in this process; see :func:`bnfold.check.inprocess.run_check`."""
        from bnfold.check.inprocess import run_check  # noqa: PLC0415 - heavy: for the child only

        run_check(self, progress=progress, learned=learned)
