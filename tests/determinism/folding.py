"""Folds models of every kind and prints a hash of each result; run by the tests in other settings.

Usage: ``python -m tests.determinism.folding FOLDER SEEDS``. Many of the models are in float64,
where no rounding hides a sum that was added up in another order.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bnfold import optimize
from bnfold.errors import BnfoldError
from bnfold.recalibrate import recalibrate
from tests.generate.model import random_model

MODELS = Path(__file__).parents[2] / "models"


def large_sums() -> onnx.ModelProto:
    """Sums of a thousand products in float64, for each place where a fold makes some."""
    rng = np.random.default_rng(0)
    width, weights = 1024, []

    def weight(name: str, *shape: int) -> str:
        values = rng.normal(size=shape)
        positive = name.startswith("var")
        weights.append(numpy_helper.from_array(np.abs(values) if positive else values, name))
        return name

    def norm(index: int, source: str) -> onnx.NodeProto:
        vectors = [weight(f"{role}{index}", width) for role in ("scale", "bias", "mean", "var")]
        return helper.make_node("BatchNormalization", [source, *vectors], [f"n{index}"])

    nodes = [
        norm(0, "x"),
        helper.make_node("Gemm", ["n0", weight("w0", width, width)], ["g0"]),
        helper.make_node("Relu", ["g0"], ["r0"]),
        norm(1, "r0"),
        helper.make_node("Gemm", ["n1", weight("w1", width, width)], ["g1"], transB=1),
        helper.make_node("Relu", ["g1"], ["r1"]),
        norm(2, "r1"),
        helper.make_node("MatMul", ["n2", weight("w2", width, 64)], ["m"]),
        helper.make_node("Gemm", ["m", weight("w3", 64, 32), weight("b3", 32)], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "large",
        [value("x", TensorProto.DOUBLE, ["N", width])],
        [value("y", TensorProto.DOUBLE, ["N", 32])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main(folder: Path, seeds: int) -> None:
    """Fold everything into a folder, and print what came out."""
    onnx.save(large_sums(), folder / "large.onnx")
    for seed in range(seeds):
        case = random_model(random.Random(seed))  # noqa: S311 - a seed is wanted
        onnx.save(case.model, folder / f"random{seed}.onnx")
    sources = [MODELS / "digits.onnx", *sorted(folder.glob("*.onnx"))]
    found: dict[str, str] = {}
    for source in sources:
        target = folder / f"{source.stem}.out"
        with contextlib.suppress(BnfoldError):
            optimize(source, target, check=False)
            found[source.stem] = hashlib.sha256(target.read_bytes()).hexdigest()
    images = np.load(MODELS / "digits_heldout.npz")
    recalibrate(MODELS / "digits.onnx", folder / "renewed.out", data=[dict(images)])
    found["renewed"] = hashlib.sha256((folder / "renewed.out").read_bytes()).hexdigest()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
