"""One node of a model as a model of its own, and the order of nodes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx

from bnfold.check.models.model import Array, Model
from bnfold.check.runtimes.evaluator_ops import evaluator_class
from bnfold.check.runtimes.installed import require_runtime
from bnfold.check.runtimes.providers import CUDA_CHECKED
from bnfold.check.runtimes.sessions import (
    REFERENCE_EVALUATOR,
    UNOPTIMIZED,
    Value,
    run_error,
    start_session,
)
from bnfold.check.runtimes.threads import limit_threads

__all__ = ["EvaluatedNode", "SessionNode", "in_order", "names_used"]


class SessionNode:
    """One node in ONNX Runtime; a :class:`bnfold.check.runtimes.sessions.Runner`.

    Args:
        model: The node as a model.
        provider: From :func:`bnfold.check.runtimes.providers.resolve_provider`.
        weights: Values of the initializers that the model calls external.

    Raises:
        RunError: The runtime has no kernel for it.
        ProviderError: The provider does not take it.
    """

    def __init__(self, model: Model, provider: str, weights: Mapping[str, Array]) -> None:
        ort = require_runtime()
        options = ort.SessionOptions()
        limit_threads(options)
        options.use_deterministic_compute = True
        self.provider = provider
        # The session may read these without a copy: they have to live as long as it does.
        self._weights = {
            name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
            for name, value in weights.items()
        }
        if self._weights:
            options.add_external_initializers(list(self._weights), list(self._weights.values()))
        self._session = start_session(model, provider, UNOPTIMIZED, options, CUDA_CHECKED)
        self._run_options = ort.RunOptions()
        self._run_options.log_severity_level = 4

    def run(self, arrays: Mapping[str, Value]) -> list[Value]:
        """See :class:`bnfold.check.runtimes.sessions.Runner`."""
        try:
            return list(self._session.run(None, dict(arrays), self._run_options))
        except Exception as error:  # its classes share no other base
            raise run_error(error) from error


class EvaluatedNode:
    """One node in the ONNX reference evaluator; a :class:`bnfold.check.runtimes.sessions.Runner`.

    Args:
        proto: The node as a model, all that it reads an input.
        constants: Values of some of the inputs.

    Raises:
        RunError: The evaluator does not know the operator.
    """

    def __init__(self, proto: onnx.ModelProto, constants: Mapping[str, Array]) -> None:
        self.provider = REFERENCE_EVALUATOR
        self._constants = constants
        try:
            self._evaluator = evaluator_class()(proto)
        except Exception as error:  # any operator's own code runs here
            raise run_error(error) from error

    def run(self, arrays: Mapping[str, Value]) -> list[Value]:
        """See :class:`bnfold.check.runtimes.sessions.Runner`."""
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                return list(self._evaluator.run(None, {**self._constants, **arrays}))
        except Exception as error:  # any operator's own code runs here
            raise run_error(error) from error


def in_order(
    nodes: Sequence[tuple[int, onnx.NodeProto]], known: set[str]
) -> list[tuple[int, onnx.NodeProto]]:
    """Put nodes behind those that they read from, in the order of the file as far as possible."""
    made = {name for _, node in nodes for name in node.output if name}
    done, found, waiting = set(known), [], list(nodes)
    while waiting:
        later = []
        for position, node in waiting:
            if all(n in done or n not in made for n in names_used(node)):
                done.update(node.output)
                found.append((position, node))
            else:
                later.append((position, node))
        if len(later) == len(waiting):
            return found
        waiting = later
    return found


def names_used(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what a node reads, in its bodies too; the names of their own values are left out."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs) if attribute.type in {5, 10} else ():
            yield from _captured(body)


def _captured(body: onnx.GraphProto) -> set[str]:
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    own |= {sparse.values.name for sparse in body.sparse_initializer}
    own |= {name for node in body.node for name in node.output}
    used: set[str] = set().union(
        *(names_used(node) for node in body.node), (v.name for v in body.output)
    )
    return used - own
