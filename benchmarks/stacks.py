"""Models of any size: what it costs to fold them does not depend on what they compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.external_data_helper import set_external_data

__all__ = ["write_chain", "write_stack"]

_STATISTICS = {"s": (0.8, 1.2), "b": (-1.0, 1.0), "m": (-1.0, 1.0), "v": (0.5, 2.0)}


def write_stack(path: Path, layers: int, channels: int, *, external: bool = False) -> None:
    """Write a stack of Conv, BN and ReLU: 36 * channels ** 2 bytes for each layer.

    External data goes to ``<name>.data``, layer by layer.
    """
    rng = np.random.default_rng(0)
    nodes, tensors, at = [], [], "x"
    data = path.with_name(f"{path.name}.data")
    data.unlink(missing_ok=True)
    for layer in range(layers):
        weight = rng.standard_normal((channels, channels, 3, 3), dtype=np.float32)
        weight /= np.float32(3 * channels**0.5)
        tensor = onnx.numpy_helper.from_array(weight, f"w{layer}")
        if external:
            _move(tensor, data)
        tensors.append(tensor)
        for name, (low, high) in _STATISTICS.items():
            values = rng.uniform(low, high, channels).astype(np.float32)
            tensors.append(onnx.numpy_helper.from_array(values, f"{name}{layer}"))
        nodes += [
            helper.make_node("Conv", [at, f"w{layer}"], [f"c{layer}"], pads=[1] * 4),
            helper.make_node(
                "BatchNormalization",
                [f"c{layer}", *(f"{name}{layer}" for name in _STATISTICS)],
                [f"n{layer}"],
            ),
            helper.make_node("Relu", [f"n{layer}"], [f"r{layer}"]),
        ]
        at = f"r{layer}"
    _save(nodes, tensors, at, ["N", channels, "H", "W"], path)


def write_chain(path: Path, count: int) -> None:
    """Write a chain of ``count`` nodes: Conv, BN and ReLU of two channels, in turns."""
    tensors = [
        helper.make_tensor("w", TensorProto.FLOAT, [2, 2, 1, 1], [0.9, 0.1, -0.1, 0.9]),
        *(
            helper.make_tensor(name, TensorProto.FLOAT, [2], values)
            for name, values in {"s": [1, 1.1], "b": [0, 0.1], "m": [0.1, 0], "v": [1, 2]}.items()
        ),
    ]
    nodes, at = [], "x"
    for layer in range(count // 3):
        nodes += [
            helper.make_node("Conv", [at, "w"], [f"c{layer}"]),
            helper.make_node("BatchNormalization", [f"c{layer}", *"sbmv"], [f"n{layer}"]),
            helper.make_node("Relu", [f"n{layer}"], [f"r{layer}"]),
        ]
        at = f"r{layer}"
    _save(nodes, tensors, at, [1, 2, 8, 8], path)


def _move(tensor: TensorProto, data: Path) -> None:
    """Append the bytes of a tensor to a data file, and refer to them there."""
    with data.open("ab") as file:
        set_external_data(tensor, data.name, file.tell(), len(tensor.raw_data))
        file.write(tensor.raw_data)
    tensor.ClearField("raw_data")


def _save(
    nodes: list[onnx.NodeProto],
    tensors: list[TensorProto],
    output: str,
    shape: list[int | str],
    path: Path,
) -> None:
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, shape) for end in ("x", output)]
    graph = helper.make_graph(nodes, "stack", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
