"""Running a model: ONNX Runtime on a provider, or the ONNX reference evaluator.

Everything that touches a runtime is here, behind :class:`Runner`; the rest of the check sees
feeds go in and values come out. A runtime's own log lines are silenced: what they say arrives as
:class:`RunError`.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import onnx

from bnfold.check.models.model import Model
from bnfold.check.runtimes.evaluator_ops import evaluator_class
from bnfold.check.runtimes.installed import require_runtime
from bnfold.check.runtimes.ortvalues import needs_memory, ort_value, run_by_memory
from bnfold.check.runtimes.placement import nodes_per_provider, prove_placement
from bnfold.check.runtimes.providers import (
    CPU,
    CUDA_CHECKED,
    native_messages,
    not_started,
    provider_name,
    session_providers,
    start_failure,
)
from bnfold.check.runtimes.threads import limit_threads
from bnfold.levels import LEVELS

__all__ = [
    "REFERENCE_EVALUATOR",
    "UNOPTIMIZED",
    "OrtRunner",
    "ReferenceRunner",
    "RunError",
    "Runner",
    "Value",
    "invalid",
    "refusal",
    "run_error",
    "start_session",
]

# A tensor, a sequence of values, a map, or None for an empty optional.
Value = Any

REFERENCE_EVALUATOR = "onnx.reference"
# The level at which a runtime runs a model as it is written.
UNOPTIMIZED = "disable_all"

_SILENT = 4  # ONNX Runtime's severity "fatal"
_NO_MEMORY = re.compile(r"failed to allocate memory|out of memory|bad_alloc", re.IGNORECASE)


class RunError(Exception):
    """A model could not be loaded by a runtime, or did not run; the message is one line.

    Attributes:
        out_of_memory: True if what was asked for is too large for the device.
    """

    def __init__(self, message: str, *, out_of_memory: bool = False) -> None:
        super().__init__(message)
        self.out_of_memory = out_of_memory


class Runner(Protocol):
    """A model made ready by a runtime.

    Attributes:
        provider: What runs it, such as ``CPUExecutionProvider`` or ``onnx.reference``.
    """

    provider: str

    def run(self, arrays: Mapping[str, Value]) -> list[Value]:
        """Return all outputs in graph order.

        Raises:
            RunError: The model does not run with these values.
        """
        ...


def refusal(runner: Runner, arrays: Mapping[str, Value]) -> str | None:
    """Return why a model does not run with these values, or None if it does."""
    try:
        runner.run(arrays)
    except RunError as error:
        return str(error)
    return None


def start_session(
    model: Model,
    provider: str,
    level: str,
    options: Any,
    cuda: Mapping[str, str] | None = None,
) -> Any:
    """Load a model into ONNX Runtime, on a provider and nowhere else.

    Args:
        model: What to load.
        provider: From :func:`bnfold.check.runtimes.providers.resolve_provider`.
        level: A key of :data:`bnfold.levels.LEVELS`.
        options: ``SessionOptions`` to start from.
        cuda: Options of the CUDA provider.

    Returns:
        The ``InferenceSession``.

    Raises:
        RunError: The runtime does not accept the model.
        ProviderError: The provider does not start, or compute nodes are not on it.
    """
    ort = require_runtime()
    options.log_severity_level = _SILENT
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[level])
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if model.data is not None and model.path is not None:
        # Without it the runtime looks for external data where the process was started.
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", model.directory
        )
    source = model.data if model.data is not None else str(model.path)
    elsewhere = provider_name(provider) != CPU
    # What the runtime logs tells why a provider does not start; on the CPU errors say it all.
    with native_messages() if elsewhere else contextlib.nullcontext(str) as messages:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # A run that fails is not to be repeated on the CPU behind our back.
                session = ort.InferenceSession(
                    source,
                    options,
                    providers=session_providers(provider, cuda or {}),
                    enable_fallback=0,
                )
        except Exception as error:  # its classes share no other base
            failed = start_failure(model.label, provider, f"{error} {messages()}")
            if elsewhere and failed is not None:
                raise failed from error
            raise run_error(error) from error
        if elsewhere and provider_name(provider) not in session.get_providers():
            raise not_started(model.label, provider, messages())
    prove_placement(session, provider, model.label, model.graph)
    return session


class OrtRunner:
    """A model in ONNX Runtime, on one provider at one optimization level.

    Args:
        model: What to run.
        provider: From :func:`bnfold.check.runtimes.providers.resolve_provider`.
        level: A key of :data:`bnfold.levels.LEVELS`.
        overrides: Values in place of the initializers and constants of these names.
        tf32: True to let CUDA round to TF32.

    Attributes:
        nodes: Number of nodes by provider, or None where the runtime does not tell.

    Raises:
        RunError: The runtime does not accept the model.
        ProviderError: The work would not run on the provider.
    """

    def __init__(
        self,
        model: Model,
        provider: str,
        level: str,
        overrides: Mapping[str, np.ndarray] | None = None,
        *,
        tf32: bool = False,
    ) -> None:
        ort = require_runtime()
        options = ort.SessionOptions()
        limit_threads(options)
        options.use_deterministic_compute = True
        # The session reads these without a copy: they have to live as long as it does.
        self._overrides = {name: ort_value(value) for name, value in (overrides or {}).items()}
        for name, value in self._overrides.items():
            options.add_initializer(name, value)
        self.provider = provider
        settings = CUDA_CHECKED | {"use_tf32": str(int(tf32))}
        self._session = start_session(model, provider, level, options, settings)
        self.nodes = nodes_per_provider(self._session)
        self._names = [output.name for output in self._session.get_outputs()]
        self._run_options = ort.RunOptions()
        self._run_options.log_severity_level = _SILENT

    def run(self, arrays: Mapping[str, Value]) -> list[Value]:
        """See :class:`Runner`."""
        try:
            if needs_memory(self._session, arrays):
                return run_by_memory(self._session, self._names, arrays, self._run_options)
            return list(self._session.run(self._names, dict(arrays), self._run_options))
        except Exception as error:  # its classes share no other base
            raise run_error(error) from error


class ReferenceRunner:
    """A model in the ONNX reference evaluator: slow, but it has every standard operator and type.

    Args:
        model: What to run.
        overrides: Values in place of the initializers of these names.

    Raises:
        RunError: The evaluator does not know an operator of the model.
    """

    def __init__(self, model: Model, overrides: Mapping[str, np.ndarray] | None = None) -> None:
        self.provider = REFERENCE_EVALUATOR
        try:
            self._evaluator = evaluator_class()(model.load())
        except Exception as error:  # any operator's own code runs here
            raise RunError(_one_line(error)) from error
        if overrides:
            known = self._evaluator.rt_inits_
            known.update({name: value for name, value in overrides.items() if name in known})

    def run(self, arrays: Mapping[str, Value]) -> list[Value]:
        """See :class:`Runner`."""
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                return list(self._evaluator.run(None, dict(arrays)))
        except Exception as error:  # any operator's own code runs here
            raise RunError(_one_line(error)) from error


def invalid(model: Model) -> str | None:
    """Return what the ONNX checker says against a model, or None."""
    try:
        onnx.checker.check_model(str(model.path) if model.data is None else model.data)
    except Exception as error:  # noqa: BLE001 - its own class is not the only one to come out
        return _one_line(error)
    return None


def run_error(error: BaseException) -> RunError:
    """Return what an exception of the runtime says, in one line."""
    return RunError(_one_line(error), out_of_memory=bool(_NO_MEMORY.search(str(error))))


def _one_line(error: BaseException) -> str:
    """Return an error's text without the runtime's error code, source file and signature."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"^Load model from .* failed:", "", text)
    text = re.sub(r"/\S+\.(?:cc|h):\d+ .*[)>] (?=[A-Z])", "", text)
    return text if len(text) <= 400 else f"{text[:400]} ..."
