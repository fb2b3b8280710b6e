"""A working copy of a model that gives the statistics of its normalizations for one batch.

In front of a BatchNormalization with input x, of any rank, stands then::

    x3     = Reshape(x, [0, 0, -1])                  (N, C, L): the same values
    centre = ReduceMean(x3, axes [0, 2])             (1, C, 1), in the type of x: near the mean
    d      = x3 - centre                             exact, or rounded relative to d
    shift  = ReduceMean(Cast(d, float64))            (C,)
    square = ReduceSumSquare(Cast(d, float64)) / n   (C,)
    mean   = centre + shift      variance = |square - shift^2|

The centre takes a large mean off before anything is squared, so that float32 data of mean 1e4 and
variance 1 keeps its digits; the sums are float64. The normalization by the statistics of the batch
itself is the node as it was, at the float64 of d instead of x, with ``shift`` for its mean and
``variance`` for its variance, rounded once behind it. It needs no training mode, so that every
opset that the runtime knows will do.

float16 is widened to float32 first. Nodes that no statistic depends on are left out, so that no
tensor outlives its use: memory is that of one run of the model, and a few tensors of float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bnfold.graph.index import Graph
from bnfold.recalibrate.norms import Norm, reads

__all__ = ["Probe", "instrument"]

_DOUBLE, _FLOAT = TensorProto.DOUBLE, TensorProto.FLOAT
_WIDE: dict[int, int] = {TensorProto.FLOAT16: _FLOAT, _FLOAT: _FLOAT, _DOUBLE: _DOUBLE}


@dataclass(frozen=True)
class Probe:
    """The outputs that tell of one use of a normalization.

    Attributes:
        norm: Which normalization.
        centre: Name of the output of shape (1, C, 1).
        shift: Name of the output (C,): the mean less the centre.
        variance: Name of the output (C,), the population variance.
        count: Name of the output (): values of each channel.
    """

    norm: int
    centre: str
    shift: str
    variance: str
    count: str

    @property
    def outputs(self) -> tuple[str, str, str, str]:
        """All names, in the order of `read`."""
        return self.centre, self.shift, self.variance, self.count


def instrument(
    model: ModelProto,
    norms: list[Norm],
    gathered: Iterable[int],
    known: Mapping[int, tuple[NDArray[np.generic], NDArray[np.generic]]],
) -> list[Probe]:
    """Turn a copy of a model into one that gives statistics in place of its outputs.

    Args:
        model: Changed in place. Its main graph has the nodes of ``norms`` at their positions.
        norms: All normalizations that are renewed.
        gathered: Indices of those whose statistics the copy gives.
        known: New mean and variance of those that are renewed already, in their storage type. All
            others normalize by the statistics of the batch.

    Returns:
        The outputs of the copy: one probe for each use of each gathered normalization.
    """
    graph = model.graph
    writer = _Writer(Graph(model))
    uses = {node.position: index for index, norm in enumerate(norms) for node in norm.nodes}
    wanted = set(gathered)
    probes: list[Probe] = []
    nodes: list[NodeProto] = []
    for position, node in enumerate(graph.node):
        index = uses.get(position)
        if index is None:
            nodes.append(node)
        elif index in known and index not in wanted:
            nodes += writer.with_statistics(node, *known[index])
        else:
            made, probe = writer.by_its_batch(node, index, norms[index].kind)
            nodes += made
            if index in wanted:
                probes.append(probe)
    names = [name for probe in probes for name in probe.outputs]
    nodes = _needed(nodes, set(names))
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    _drop_initializers(graph)
    return probes


class _Writer:
    """Makes nodes with names that the model does not have."""

    def __init__(self, graph: Graph) -> None:
        self._fresh = graph.fresh
        self._opset = graph.main.opsets.get("", 0)

    def with_statistics(
        self, node: NodeProto, mean: NDArray[np.generic], var: NDArray[np.generic]
    ) -> Iterator[NodeProto]:
        """The node with other statistics."""
        for index, array in ((3, mean), (4, var)):
            constant = self._constant(array)
            yield constant
            node.input[index] = constant.output[0]
        yield node

    def by_its_batch(self, node: NodeProto, norm: int, kind: int) -> tuple[list[NodeProto], Probe]:
        """The node with the statistics of the batch, and what gives these."""
        made: list[NodeProto] = []

        def add(op: str, *inputs: str, **attributes: Any) -> str:
            output = self._fresh(f"bnfold_{op}")
            made.append(helper.make_node(op, inputs, [output], **attributes))
            return output

        def constant(*numbers: int) -> str:
            made.append(self._constant(np.array(numbers, np.int64)))
            return str(made[-1].output[0])

        def cast(name: str, source: int, target: int) -> str:
            return name if source == target else add("Cast", name, to=target)

        def reduce(op: str, name: str, keepdims: int) -> str:
            if self._opset >= 18:
                return add(op, name, constant(0, 2), keepdims=keepdims)
            return add(op, name, axes=[0, 2], keepdims=keepdims)

        wide = _WIDE[kind]
        x, gamma, beta = node.input[:3]
        flat = cast(add("Reshape", x, constant(0, 0, -1)), kind, wide)
        centre = reduce("ReduceMean", flat, 1)
        distance = add("Sub", flat, centre)
        double = cast(distance, wide, _DOUBLE)
        shift = reduce("ReduceMean", double, 0)
        sizes = [cast(add("Size", name), TensorProto.INT64, _DOUBLE) for name in (flat, shift)]
        count = add("Div", *sizes)
        square = add("Div", reduce("ReduceSumSquare", double, 0), count)
        # Rounding can leave a variance of zero a little below it.
        variance = add("Abs", add("Sub", square, add("Mul", shift, shift)))

        # The parameters may have a type of their own from opset 15 on; one that is right already
        # is passed through.
        parameters = [add("Cast", name, to=_DOUBLE) for name in (gamma, beta)]
        normalized = self._fresh("bnfold_normalized")
        inner = NodeProto()
        inner.CopyFrom(node)
        inner.input[:] = [double, *parameters, shift, variance]
        inner.output[:] = [normalized]
        made.append(inner)
        shape = add("Shape", x)
        made.append(
            helper.make_node("Reshape", [cast(normalized, _DOUBLE, kind), shape], node.output[:1])
        )
        return made, Probe(norm, centre, shift, variance, count)

    def _constant(self, array: NDArray[np.generic]) -> NodeProto:
        return helper.make_node(
            "Constant", [], [self._fresh("bnfold_constant")], value=numpy_helper.from_array(array)
        )


def _needed(nodes: list[NodeProto], names: set[str]) -> list[NodeProto]:
    """Return the nodes that any of the names depends on."""
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if names & set(node.output):
            kept.append(node)
            names.update(reads(node))
    return kept[::-1]


def _drop_initializers(graph: GraphProto) -> None:
    """Take out what only the nodes read that are gone; inputs stay, for a caller feeds them."""
    used = {name for node in graph.node for name in reads(node)}
    used.update(value.name for value in graph.input)
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    if len(kept) < len(graph.initializer):
        copies = [TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del graph.initializer[:]
        graph.initializer.extend(copies)
