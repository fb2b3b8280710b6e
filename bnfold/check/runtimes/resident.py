"""Sessions of large models: few of them in memory, the others made anew when they run again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import numpy as np

from bnfold.check.models.model import Model
from bnfold.check.runtimes.sessions import OrtRunner, Value

__all__ = ["LARGE", "RenewedRunner", "Residents"]

LARGE = 2**31
"""Bytes from which a model is not held in memory once for each session that a check has."""

_MOST = 2


class Residents:
    """The sessions that are in memory: those that ran last."""

    def __init__(self) -> None:
        self._open: OrderedDict[RenewedRunner, OrtRunner] = OrderedDict()

    def session_of(self, runner: RenewedRunner) -> OrtRunner:
        """Return the session of a runner; the one that has not run for longest makes room.

        Raises:
            RunError: The runtime does not accept the model.
        """
        if runner not in self._open:
            while len(self._open) >= _MOST:
                self._open.popitem(last=False)
            self._open[runner] = runner.load()
        self._open.move_to_end(runner)
        return self._open[runner]


class RenewedRunner:
    """A large model in ONNX Runtime, loaded again where others took its place in memory.

    Args:
        residents: The sessions that it shares memory with.
        model: What to run.
        provider: As for :class:`bnfold.check.runtimes.sessions.OrtRunner`.
        level: As there.
        overrides: As there.

    Attributes:
        nodes: Number of nodes by provider, or None where the runtime does not tell.

    Raises:
        RunError: The runtime does not accept the model.
        ProviderError: The work would not run on the provider.
    """

    def __init__(
        self,
        residents: Residents,
        model: Model,
        provider: str,
        level: str,
        overrides: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.provider = provider
        self._residents = residents
        self._model = model
        self._level = level
        self._overrides = overrides
        self.nodes = residents.session_of(self).nodes

    def load(self) -> OrtRunner:
        """Make a session."""
        return OrtRunner(self._model, self.provider, self._level, self._overrides)

    def run(self, arrays: Mapping[str, Value]) -> list[Value]:
        """See :class:`bnfold.check.runtimes.sessions.Runner`."""
        return self._residents.session_of(self).run(arrays)
