"""What is known of a graph once the sizes of its inputs are chosen.

An operator's parameters can be inputs of the model: the axes of a Squeeze, the sizes of a Split,
the indices of a Gather. Which values are valid hangs on the shape of what the operator works on.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from bnfold.check.feeds.hints import Graph, Use
from bnfold.check.models.model import Array

__all__ = ["Scene", "UseInScene"]

Dims = tuple[int, ...]


class Scene:
    """A graph, the shapes of its inputs, and those inputs that are drawn already.

    Args:
        model: The model; weights may be cut out of it.
        graph: Its index.
        shapes: Shape of each input.
        drawn: Inputs that have their values.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        graph: Graph,
        shapes: Mapping[str, Dims],
        drawn: Mapping[str, object],
    ) -> None:
        self._model = model
        self._graph = graph
        self._shapes = dict(shapes)
        self._drawn = drawn
        self._inferred: dict[str, Dims] | None = None
        self._declared: dict[str, Dims] | None = None

    def of(self, use: Use) -> UseInScene:
        """Return a use with what is known around it."""
        return UseInScene(self, use)

    def dims(self, node: onnx.NodeProto, position: int) -> Dims | None:
        """The shape of a node's input, or None where it is not known."""
        if position >= len(node.input) or not node.input[position]:
            return None
        name = node.input[position]
        if name in self._shapes:
            return self._shapes[name]
        constant = self._graph.dims(node, position)
        if constant is not None:
            return constant
        if self._inferred is None:
            self._inferred = self._infer()
        return self._inferred.get(name)

    def declared(self, name: str) -> Dims | None:
        """The shape that the model itself declares for a value, if that is all numbers."""
        if self._declared is None:
            graph = self._model.graph
            self._declared = _static((*graph.value_info, *graph.output))
        return self._declared.get(name)

    def value(self, node: onnx.NodeProto, position: int) -> Array | None:
        """The value of a node's input if it is constant, or an input that is drawn already."""
        if position < len(node.input) and node.input[position] in self._drawn:
            value = self._drawn[node.input[position]]
            return value if isinstance(value, np.ndarray) else None
        return self._graph.value(node, position)

    def _infer(self) -> dict[str, Dims]:
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        del model.graph.value_info[:]
        for value in model.graph.input:
            if value.name in self._shapes and value.type.HasField("tensor_type"):
                shape = value.type.tensor_type.shape
                del shape.dim[:]
                for size in self._shapes[value.name]:
                    shape.dim.add().dim_value = size
        try:
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        except Exception:  # noqa: BLE001 - whatever it is: then the shapes are not known
            return {}
        return _static(inferred.graph.value_info)


def _static(values: tuple[onnx.ValueInfoProto, ...] | list[onnx.ValueInfoProto]) -> dict[str, Dims]:
    found = {}
    for value in values:
        tensor = value.type.tensor_type
        if value.type.HasField("tensor_type") and tensor.HasField("shape"):
            dims = tensor.shape.dim
            if all(dim.HasField("dim_value") for dim in dims):
                found[value.name] = tuple(int(dim.dim_value) for dim in dims)
    return found


class UseInScene:
    """A use of an input, and what is known around it."""

    def __init__(self, scene: Scene, use: Use) -> None:
        self.node = use.node
        self.use = use
        self._scene = scene

    def dims(self, position: int) -> Dims | None:
        """The shape of the node's input at a position, or None."""
        return self._scene.dims(self.node, position)

    def value(self, position: int) -> Array | None:
        """The value of the node's input at a position, or None."""
        return self._scene.value(self.node, position)

    def declared(self) -> Dims | None:
        """The shape that the model declares for the node's first output, or None."""
        return self._scene.declared(self.node.output[0])

    def integer(self, name: str, default: int) -> int:
        """An attribute of the node."""
        return next((int(a.i) for a in self.node.attribute if a.name == name), default)

    def integers(self, name: str) -> Dims:
        """An attribute of the node; empty if it is not there."""
        return next((tuple(a.ints) for a in self.node.attribute if a.name == name), ())

    def axis(self, default: int) -> int | None:
        """The size of the first input's axis that the attribute ``axis`` names, or None."""
        dims, axis = self.dims(0), self.integer("axis", default)
        return dims[axis] if dims is not None and -len(dims) <= axis < len(dims) else None
