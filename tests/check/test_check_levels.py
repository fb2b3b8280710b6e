"""The runtime's own misfolds: neither blamed on the candidate, nor an excuse for it."""

from __future__ import annotations

import numpy as np
import onnx
from check_pairs import model
from onnx import TensorProto, helper

from bnfold.check import check


def transposed(*, direct: bool, shift: float = 0.0) -> onnx.ModelProto:
    """MatMul -> Transpose -> BN over the rows, which the runtime takes for the columns.

    Args:
        direct: True for the BN; False for a Mul and an Add in its place.
        shift: An error, added to the result.
    """
    rng = np.random.default_rng(0)
    gamma, beta, mean = (rng.normal(size=4) for _ in range(3))
    var = rng.uniform(0.5, 2, 4)
    scale = gamma / np.sqrt(var + np.float32(1e-5))
    weights = {"w": rng.normal(size=(6, 4))}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Transpose", ["a"], ["t"], perm=[1, 0]),
    ]
    if direct:
        nodes.append(helper.make_node("BatchNormalization", ["t", "s", "b", "m", "v"], ["y"]))
        weights |= {"s": gamma, "b": beta + shift, "m": mean, "v": var}
    else:
        nodes.append(helper.make_node("Mul", ["t", "s"], ["p"]))
        nodes.append(helper.make_node("Add", ["p", "b"], ["y"]))
        weights |= {"s": scale, "b": beta - mean * scale + shift}
    return model(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])],
        {name: value.astype(np.float32) for name, value in weights.items()},
    )


CHANGES = "itself changes output 'y' of the original at level default"


def test_same_misfold_is_the_runtime_s_own() -> None:
    first, second = check(transposed(direct=True), transposed(direct=True))
    assert first.equivalent
    assert first.warnings == ()
    assert second.equivalent
    (warning,) = second.warnings
    assert CHANGES in warning
    assert warning.startswith("ONNX Runtime ")


def test_candidate_that_escapes_the_misfold_is_right() -> None:
    first, second = check(transposed(direct=True), transposed(direct=False))
    assert (first.equivalent, second.equivalent) == (True, True)
    assert CHANGES in second.warnings[0]


def test_candidate_that_brings_the_misfold_is_wrong() -> None:
    first, second = check(transposed(direct=False), transposed(direct=True))
    assert (first.equivalent, second.equivalent) == (True, False)
    assert second.warnings == ()


def test_misfold_excuses_no_other_error() -> None:
    first, second = check(transposed(direct=True), transposed(direct=True, shift=0.01))
    assert (first.equivalent, second.equivalent) == (False, False)
