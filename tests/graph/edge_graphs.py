"""What the graphs of the edges are made of, and the assertion on those that no runtime takes."""

from __future__ import annotations

from tests.support import build, fold

__all__ = [
    "ALIKE",
    "LIN",
    "N4",
    "P4",
    "POS",
    "V1",
    "Y4",
    "V",
    "W",
    "assert_left_alone",
    "behind",
    "in_front",
]  # fmt: skip

P4 = "float[4] gamma, float[4] beta, float[4] mean, float[4] var"
POS = "float[4] gamma={1,2,0.5,3}, float[4] beta, float[4] mean, float[4] var"
LIN = "float[4] gamma={1,2,0.5,3}, float[4] beta={0,0,0,0}, float[4] mean={0,0,0,0}, float[4] var"
ALIKE = (
    "float[4] gamma={2,2,2,2}, float[4] beta={1,1,1,1}, float[4] mean={1,1,1,1}, "
    "float[4] var={1,1,1,1}"
)
V = "float[2,4,1,1] v"
V1 = "float[2,4,1] v"
W = "float[4,3,1] w"
N4 = "n = BatchNormalization(x, gamma, beta, mean, var)"
Y4 = "y = BatchNormalization(p, gamma, beta, mean, var)"


def in_front(node: str, constants: str = "", parameters: str = P4) -> str:
    """A convolution, ``node`` that reads it as c, and a batch normalization y."""
    more = f", {constants}" if constants else ""
    return f"""g (float[N,3,5,6] x) => (float[?,4,?,?] y) <float[4,3,1,1] w, {parameters}{more}>
        {{ c = Conv(x, w)  p = {node}  {Y4} }}"""


def behind(node: str, constants: str = V, parameters: str = P4, shape: str = "4,5,6") -> str:
    """A batch normalization n, and what reads it."""
    return f"""g (float[N,{shape}] x) => (float[?,?,?,?] y) <{parameters}, {constants}>
        {{ {N4}  {node} }}"""


def assert_left_alone(text: str, opset: int, reason: str) -> None:
    """The model is not changed, and its only site is kept for this reason."""
    model = build(text, opset=opset)
    result, report = fold(model)
    assert result is model
    assert [str(verdict.reason) for verdict in report.sites] == [reason]
