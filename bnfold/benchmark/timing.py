"""Sessions timed in turns, in one process, on the same inputs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bnfold.benchmark.interval import Floats
from bnfold.benchmark.report import Setting
from bnfold.check.models.model import Model
from bnfold.check.runtimes.installed import require_runtime
from bnfold.check.runtimes.providers import CPU, provider_name
from bnfold.check.runtimes.sessions import Value, run_error, start_session

__all__ = ["TimedSession", "time_in_turns"]

_WARM_RUNS = 3
_WARM_SECONDS = 0.3
_FEWEST_ROUNDS = 5
_MOST_ROUNDS = 2000


class TimedSession:
    """A model as it is deployed: at its level, with the provider's own options.

    Args:
        model: What to run.
        setting: The conditions.
        arrays: The inputs; on another device than the CPU they are copied there once.

    Raises:
        RunError: The model does not load, or does not run.
        ProviderError: It would not run on the provider.
    """

    def __init__(self, model: Model, setting: Setting, arrays: Mapping[str, Value]) -> None:
        ort = require_runtime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = setting.threads
        # Idle threads of one session would spin on the cores that the other one is timed on.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = start_session(model, setting.provider, setting.level, options)
        self._arrays = dict(arrays)
        self._binding: Any = None
        if provider_name(setting.provider) != CPU and _all_tensors(arrays):
            self._binding = self._session.io_binding()
            for name, value in arrays.items():
                self._binding.bind_cpu_input(name, value)
            for output in self._session.get_outputs():
                self._binding.bind_output(output.name)
        try:
            self.run()
        except Exception as error:  # its classes share no other base
            raise run_error(error) from error

    def run(self) -> float:
        """Run once; return the milliseconds that it took, results on their device."""
        start = time.perf_counter_ns()
        if self._binding is None:
            self._session.run(None, self._arrays)
        else:
            self._session.run_with_iobinding(self._binding)
            self._binding.synchronize_outputs()
        return (time.perf_counter_ns() - start) / 1e6


def _all_tensors(arrays: Mapping[str, Value]) -> bool:
    return all(isinstance(value, np.ndarray) for value in arrays.values())


def time_in_turns(
    sessions: Sequence[TimedSession],
    seconds: float,
    seed: int,
    tell: Callable[[int, int], None],
) -> Floats:
    """Time sessions round by round: in each round each of them once, in random order.

    Args:
        sessions: What to time.
        seconds: How long to go on, for each session.
        seed: Where the random numbers start.
        tell: Called now and then with the rounds that are done and their number, as it looks now.

    Returns:
        Milliseconds, shape (rounds, sessions).
    """
    for session in sessions:
        start = time.perf_counter()
        runs = 0
        while runs < _WARM_RUNS or time.perf_counter() - start < min(_WARM_SECONDS, seconds / 2):
            session.run()
            runs += 1
    rng = np.random.default_rng(seed)
    rounds: list[list[float]] = []
    start = told = time.perf_counter()
    collecting = gc.isenabled()
    gc.disable()
    try:
        while True:
            row = [0.0] * len(sessions)
            for at in rng.permutation(len(sessions)):
                row[at] = sessions[at].run()
            rounds.append(row)
            now = time.perf_counter()
            spent = (now - start) / (seconds * len(sessions))
            if len(rounds) >= _MOST_ROUNDS or (len(rounds) >= _FEWEST_ROUNDS and spent >= 1.0):
                return np.array(rounds)
            if now - told > 0.2:
                told = now
                tell(len(rounds), max(_FEWEST_ROUNDS, round(len(rounds) / spent)))
    finally:
        if collecting:
            gc.enable()
