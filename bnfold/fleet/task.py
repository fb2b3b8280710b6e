"""The work on one model as plain data, so that it can be done here, in a child or elsewhere."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnfold.errors import InputError
from bnfold.fleet.outcome import Outcome
from bnfold.fleet.places import is_url
from bnfold.progress import Progress
from bnfold.report import FoldReport

__all__ = ["FoldTask", "PytorchSettings"]


@dataclass(frozen=True)
class PytorchSettings:
    """What only PyTorch files need; see :func:`bnfold.torch.optimize`.

    Attributes:
        arch: What a state dict belongs to, or None.
        arch_args: Arguments of ``arch``, each as ``key=value``.
        ema: True to take the averaged weights.
        trust_pickle: True to load pickled modules.
    """

    arch: str | None = None
    arch_args: tuple[str, ...] = ()
    ema: bool = False
    trust_pickle: bool = False


@dataclass(frozen=True)
class FoldTask:
    """A model to fold, prove and write.

    Attributes:
        model: Path or URL of the model.
        target: Path or URL to write, or None to replace the model itself.
        options: Keyword arguments of :func:`bnfold.optimize` beyond these.
        pytorch: Settings for PyTorch files.
        record: Where the record of the result is kept, or None to keep none.
        resume: True to do nothing where the record says that the result is up to date.
        mark: Marks the unfinished files of this task.
    """

    model: str
    target: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    pytorch: PytorchSettings = PytorchSettings()
    record: str | None = None
    resume: bool = False
    mark: str = field(default_factory=lambda: f"{secrets.token_hex(6)}-")

    def run(self, *, progress: Progress, learned: Callable[[Outcome], None]) -> None:
        """Do it as the job of a child process; see :class:`bnfold.isolation.Job`."""
        learned(self.work(progress))

    def work(self, progress: Progress | None = None) -> Outcome:
        """Do it in this process, unless the result is there and up to date.

        Raises:
            BnfoldError: See :func:`bnfold.optimize`.
        """
        from bnfold.fleet.work import work_on  # noqa: PLC0415 - heavy
        from bnfold.store.temporaries import marked  # noqa: PLC0415

        with marked(self.mark):
            return work_on(self, progress)

    def clear_up(self, directory: Path | None = None) -> None:
        """Remove what a process that died has left unfinished.

        Args:
            directory: What relative paths are relative to.
        """
        from bnfold.store.temporaries import remove_marked  # noqa: PLC0415 - heavy

        if not is_url(self.place):
            remove_marked((directory or Path()) / Path(self.place).parent, self.mark)

    @property
    def place(self) -> str:
        """Path or URL that is written."""
        return self.model if self.target is None else self.target

    def fold(self, progress: Progress | None = None) -> FoldReport:
        """Fold a file of this machine into another one, in this process.

        Raises:
            BnfoldError: See :func:`bnfold.optimize`.
        """
        from bnfold import pipeline  # noqa: PLC0415 - heavy
        from bnfold.torch.files import kind_of  # noqa: PLC0415

        if kind_of(Path(self.model)) is not None:
            return self._fold_pytorch(progress)
        if self.pytorch != PytorchSettings():
            raise InputError(
                f"{self.model}: --arch, --arch-args, --ema and --trust-pickle are for PyTorch "
                "files",
                hint="this is none: leave them away",
            )
        return pipeline.optimize(
            self.model,
            self.target,
            in_place=self.target is None,
            progress=progress,
            **self.options,
        )

    def _fold_pytorch(self, progress: Progress | None) -> FoldReport:
        from bnfold import torch  # noqa: PLC0415 - heavy
        from bnfold.torch.arch_args import parse_arch_args  # noqa: PLC0415

        options = dict(self.options)
        options.pop("freeze_initializers", None)  # an exported model has none to freeze
        own = ("inputs", "dims", "check", "keep")
        return torch.optimize(
            self.model,
            self.target,
            arch=self.pytorch.arch,
            arch_args=parse_arch_args(self.pytorch.arch_args),
            ema=self.pytorch.ema,
            trust_pickle=self.pytorch.trust_pickle,
            in_place=self.target is None,
            progress=progress,
            **{name: options.pop(name) for name in own if name in options},
            options=options,
        )
