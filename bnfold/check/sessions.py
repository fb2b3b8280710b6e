"""Running a model: ONNX Runtime on a provider, or the ONNX reference evaluator.

Everything that touches a runtime is here, behind :class:`Runner`; the rest of the check sees
feeds go in and values come out. A runtime's own log lines are silenced: what they say arrives as
:class:`RunError`.
"""

from __future__ import annotations

import importlib.metadata
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx

from bnfold.check.evaluator_ops import batch_normalization
from bnfold.check.model import Model
from bnfold.errors import InputError, MissingPackageError, ProviderError

__all__ = [
    "LEVELS",
    "REFERENCE_EVALUATOR",
    "OrtRunner",
    "ReferenceRunner",
    "RunError",
    "Runner",
    "Value",
    "invalid",
    "misplaced_nodes",
    "require_runtime",
    "resolve_provider",
    "runtime_name",
]

# A tensor, a sequence of values, a map, or None for an empty optional.
Value = Any

REFERENCE_EVALUATOR = "onnx.reference"
LEVELS = ("disable_all", "default")

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_SILENT = 4  # ONNX Runtime's severity "fatal"

# TF32 rounds the operands of every convolution to 10 bits, and the exhaustive algorithm search
# picks by time: neither lets two sessions be compared.
_CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "DEFAULT"}

# Operators that ONNX Runtime keeps on the CPU on purpose where they only compute shapes.
_SHAPE_ARITHMETIC = frozenset(
    {"Add", "And", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "Div", "Equal"}
    | {"Expand", "Floor", "Gather", "Greater", "Identity", "Less", "Max", "Min", "Mod", "Mul"}
    | {"Neg", "Not", "Or", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"}
    | {"Reshape", "ScatterElements", "ScatterND", "Shape", "Size", "Slice", "Split", "Squeeze"}
    | {"Sub", "Transpose", "Unsqueeze", "Where"}
)


class RunError(Exception):
    """A model could not be loaded by a runtime, or did not run; the message is one line.

    Attributes:
        missing_kernel: True if the runtime has no implementation for an operator or a type.
    """

    def __init__(self, message: str, *, missing_kernel: bool = False) -> None:
        super().__init__(message)
        self.missing_kernel = missing_kernel


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


def require_runtime() -> Any:
    """Import ONNX Runtime and return its module.

    Raises:
        MissingPackageError: It is not installed.
        ProviderError: Both builds are installed. They own the same directory, so that which of
            the two is imported depends on what was installed last.
    """
    builds = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    if len(builds) == 2:
        raise ProviderError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other",
            hint="pip uninstall -y onnxruntime onnxruntime-gpu, "
            'then pip install "bnfold[gpu]" or "bnfold[cpu]"',
        )
    hint = 'pip install "bnfold[cpu]"'
    try:
        import onnxruntime  # noqa: PLC0415 - only a check needs the runtime
    except ImportError as error:
        raise MissingPackageError(
            f"the check needs onnxruntime, which cannot be imported ({_one_line(error)})", hint=hint
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        # What uninstalling one of two builds leaves behind: a directory without its files.
        raise MissingPackageError(
            "the installation of onnxruntime is damaged: it has no InferenceSession",
            hint=f"pip uninstall -y onnxruntime onnxruntime-gpu, then {hint}",
        )
    return onnxruntime


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def runtime_name() -> str:
    """Name and version of the runtime, for messages."""
    return f"ONNX Runtime {require_runtime().__version__}"


def resolve_provider(name: str) -> str:
    """Return the execution provider that ``cpu`` or ``cuda`` stands for.

    Raises:
        InputError: Unknown name.
        ProviderError: The installed runtime has no such provider.
    """
    provider = _PROVIDERS.get(name.lower(), name)
    if provider not in _PROVIDERS.values():
        raise InputError(
            f"unknown provider '{name}'", hint=f"choose from {', '.join(sorted(_PROVIDERS))}"
        )
    available = require_runtime().get_available_providers()
    if provider not in available:
        raise ProviderError(
            f"{provider} is not available in {runtime_name()}, which has {', '.join(available)}",
            hint='on a machine with an NVIDIA GPU, pip install "bnfold[gpu]" instead of "[cpu]"',
        )
    return provider


class OrtRunner:
    """A model in ONNX Runtime, on one provider at one optimization level.

    Args:
        model: What to run.
        provider: Full name of an available execution provider.
        level: ``disable_all`` or ``default``.
        overrides: Values in place of the initializers and constants of these names.

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
    ) -> None:
        ort = require_runtime()
        options = ort.SessionOptions()
        options.log_severity_level = _SILENT
        if level == "disable_all":
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        # The session reads these without a copy: they have to live as long as it does.
        self._overrides = {
            name: ort.OrtValue.ortvalue_from_numpy(value)
            for name, value in (overrides or {}).items()
        }
        for name, value in self._overrides.items():
            options.add_initializer(name, value)
        if model.data is not None and model.path is not None:
            # Without it the runtime looks for external data where the process was started.
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", model.directory
            )
        on_cpu = provider == _PROVIDERS["cpu"]
        if not on_cpu:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        providers: list[Any] = [_PROVIDERS["cpu"]]
        if not on_cpu:
            providers.insert(0, (provider, _CUDA_OPTIONS))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                source = model.data if model.data is not None else str(model.path)
                self._session = ort.InferenceSession(source, options, providers=providers)
        except Exception as error:  # its classes share no other base
            missing = type(error).__name__ == "NotImplemented"
            raise RunError(_one_line(error), missing_kernel=missing) from error
        self.provider = provider
        if not on_cpu:
            _prove_placement(self._session, provider, model.label)
        self._names = [output.name for output in self._session.get_outputs()]
        self._run_options = ort.RunOptions()
        self._run_options.log_severity_level = _SILENT

    def run(self, arrays: Mapping[str, Value]) -> list[Value]:
        """See :class:`Runner`."""
        try:
            return list(self._session.run(self._names, dict(arrays), self._run_options))
        except Exception as error:  # its classes share no other base
            missing = type(error).__name__ == "NotImplemented"
            raise RunError(_one_line(error), missing_kernel=missing) from error


def _prove_placement(session: Any, provider: str, label: str) -> None:
    """Raise unless the session computes on the provider that was asked for.

    A runtime whose libraries do not load, or that has no kernel there, quietly takes the CPU.
    """
    if provider not in session.get_providers():
        raise ProviderError(
            f"{label}: {provider} did not start; {runtime_name()} took the CPU instead",
            hint="check the GPU driver and the CUDA and cuDNN libraries that the runtime asks for",
        )
    astray = misplaced_nodes(session.get_provider_graph_assignment_info(), provider)
    if astray:
        shown = ", ".join(astray[:8]) + (" ..." if len(astray) > 8 else "")
        raise ProviderError(
            f"{label}: {len(astray)} nodes are not on {provider}: {shown}",
            hint="the provider has no kernel for them; use --provider cpu for this model",
        )


def misplaced_nodes(assignment: Sequence[Any], provider: str) -> list[str]:
    """List the compute nodes that another provider got, as ``Operator 'name'``.

    Args:
        assignment: Subgraphs as ``get_provider_graph_assignment_info`` returns them.
        provider: Where the work should be.
    """
    return [
        f"{node.op_type} '{node.name}'"
        for subgraph in assignment
        if subgraph.ep_name != provider
        for node in subgraph.get_nodes()
        if node.op_type not in _SHAPE_ARITHMETIC
    ]


class ReferenceRunner:
    """A model in the ONNX reference evaluator: slow, but it has every standard operator and type.

    Args:
        model: What to run.
        overrides: Values in place of the initializers of these names.

    Raises:
        RunError: The evaluator does not know an operator of the model.
    """

    def __init__(self, model: Model, overrides: Mapping[str, np.ndarray] | None = None) -> None:
        from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - slow import, rarely needed

        self.provider = REFERENCE_EVALUATOR
        try:
            proto = model.load()
            opsets = {entry.domain: entry.version for entry in proto.opset_import}
            opset = opsets.get("", opsets.get("ai.onnx", 1))
            self._evaluator = ReferenceEvaluator(proto, new_ops=[batch_normalization(opset)])
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


def _one_line(error: BaseException) -> str:
    """Return an error's text without the runtime's error code, source file and signature."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"^Load model from .* failed:", "", text)
    text = re.sub(r"/\S+\.(?:cc|h):\d+ .*[)>] (?=[A-Z])", "", text)
    return text if len(text) <= 400 else f"{text[:400]} ..."
