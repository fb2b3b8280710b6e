"""Which normalizations every tool leaves, pattern by pattern, written into docs/comparison.md.

    python -m benchmarks.comparison

Small models, built here; each tool runs in a process of its own with its defaults. It takes some
minutes. Tools that are not installed have no column.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx

import bnfold
from benchmarks.comparison_modules import module_table
from benchmarks.peers import OURS, run_tool, versions
from benchmarks.report import replace_part
from tests.support import build

__all__ = ["CASES", "PAGE", "Case", "remaining"]

PAGE = Path(__file__).parents[1] / "docs" / "comparison.md"

_BN = "float[8] s, float[8] t, float[8] m, float[8] var"
_BN2 = "float[8] s2, float[8] t2, float[8] m2, float[8] var2"
_BN3 = "float[8] s3, float[8] t3, float[8] m3, float[8] var3"
_OUT = "(float[A,B,C,D] y)"
_IMAGE = f"(float[2,8,9,9] x) => {_OUT}"


@dataclass(frozen=True)
class Case:
    """A pattern.

    Attributes:
        what: Its name in the table.
        text: The graph in ONNX's own notation.
        counted: The operators that should go.
        must_stay: True if no fold of it is right.
        ir: Version of the format.
    """

    what: str
    text: str
    counted: tuple[str, ...] = ("BatchNormalization",)
    must_stay: bool = False
    ir: int = 8

    def model(self) -> onnx.ModelProto:
        """Build it; weights depend on their names alone."""
        return build(self.text, ir=self.ir)


def _image(what: str, weights: str, body: str, **rest: bool | tuple[str, ...] | int) -> Case:
    return Case(what, f"g {_IMAGE} <{weights}> {{ {body} }}", **rest)  # type: ignore[arg-type]


CASES = (
    _image(
        "Conv, BN",
        f"float[8,8,3,3] w, {_BN}",
        "c = Conv<pads=[1,1,1,1]>(x, w)  y = BatchNormalization(c, s, t, m, var)",
    ),
    _image(
        "Conv with 4 groups, BN",
        f"float[8,2,3,3] w, float[8] b, {_BN}",
        "c = Conv<group=4>(x, w, b)  y = BatchNormalization(c, s, t, m, var)",
    ),
    _image(
        "ConvTranspose, BN",
        f"float[8,8,2,2] w, {_BN}",
        "c = ConvTranspose<strides=[2,2]>(x, w)  y = BatchNormalization(c, s, t, m, var)",
    ),
    _image(
        "ConvTranspose with 2 groups, BN",
        f"float[8,4,2,2] w, {_BN}",
        "c = ConvTranspose<strides=[2,2], group=2>(x, w)  y = BatchNormalization(c, s, t, m, var)",
    ),
    Case(
        "Gemm, BN",
        f"g (float[2,8] x) => (float[2,8] y) <float[8,8] w, float[8] b, {_BN}>"
        "{ c = Gemm<transB=1>(x, w, b)  y = BatchNormalization(c, s, t, m, var) }",
    ),
    Case(
        "MatMul, Add, BN",
        f"g (float[2,8] x) => (float[2,8] y) <float[8,8] w, float[8] b, {_BN}>"
        "{ c = MatMul(x, w)  a = Add(c, b)  y = BatchNormalization(a, s, t, m, var) }",
    ),
    _image(
        "Conv, BN, BN",
        f"float[8,8,3,3] w, {_BN}, {_BN2}",
        "c = Conv(x, w)  n = BatchNormalization(c, s, t, m, var)"
        "  y = BatchNormalization(n, s2, t2, m2, var2)",
    ),
    _image(
        "Conv, Mul and Add per channel",
        "float[8,8,3,3] w, float[1,8,1,1] k, float[1,8,1,1] a",
        "c = Conv(x, w)  z = Mul(c, k)  y = Add(z, a)",
        counted=("Mul", "Add"),
    ),
    _image(
        "BN, Conv without padding",
        f"float[8,8,3,3] w, {_BN}",
        "n = BatchNormalization(x, s, t, m, var)  y = Conv(n, w)",
    ),
    Case(
        "BN, Gemm",
        f"g (float[2,8] x) => (float[2,8] y) <float[8,8] w, float[8] b, {_BN}>"
        "{ n = BatchNormalization(x, s, t, m, var)  y = Gemm(n, w, b) }",
    ),
    _image(
        "Conv, AveragePool, BN",
        f"float[8,8,3,3] w, {_BN}",
        "c = Conv(x, w)  p = AveragePool<kernel_shape=[2,2]>(c)"
        "  y = BatchNormalization(p, s, t, m, var)",
    ),
    _image(
        "Conv, channel shuffle, BN",
        f"float[8,8,3,3] w, {_BN}",
        "c = Conv(x, w)  i = Constant<value_ints=[2,2,4,7,7]>()  r = Reshape(c, i)"
        "  p = Transpose<perm=[0,2,1,3,4]>(r)  j = Constant<value_ints=[2,8,7,7]>()"
        "  q = Reshape(p, j)  y = BatchNormalization(q, s, t, m, var)",
    ),
    _image(
        "Concat of two Conv, BN",
        f"float[4,8,3,3] w, float[4,8,3,3] v, {_BN}",
        "c = Conv(x, w)  d = Conv(x, v)  k = Concat<axis=1>(c, d)"
        "  y = BatchNormalization(k, s, t, m, var)",
    ),
    _image(
        "Sum of two Conv, BN",
        f"float[8,8,3,3] w, float[8,8,3,3] v, {_BN}",
        "c = Conv(x, w)  r = Relu(x)  d = Conv(r, v)  k = Add(c, d)"
        "  y = BatchNormalization(k, s, t, m, var)",
    ),
    _image(
        "RepVGG block: 3 x 3, 1 x 1 and identity, each with BN, added",
        f"float[8,8,3,3] w, float[8,8,1,1] v, {_BN}, {_BN2}, {_BN3}",
        "c = Conv<pads=[1,1,1,1]>(x, w)  d = Conv(x, v)"
        "  e = BatchNormalization(c, s, t, m, var)  f = BatchNormalization(d, s2, t2, m2, var2)"
        "  h = BatchNormalization(x, s3, t3, m3, var3)  a = Add(e, f)  y = Add(a, h)",
    ),
    _image(
        "Conv, InstanceNormalization, BN",
        f"float[8,8,3,3] w, float[8] k, float[8] a, {_BN}",
        "c = Conv(x, w)  i = InstanceNormalization(c, k, a)"
        "  y = BatchNormalization(i, s, t, m, var)",
    ),
    _image(
        "Conv with 8-bit weights (DequantizeLinear), BN",
        f"int8[8,8,3,3] q, float[8] varq, int8[8] z, {_BN}",
        "w = DequantizeLinear<axis=0>(q, varq, z)  c = Conv(x, w)"
        "  y = BatchNormalization(c, s, t, m, var)",
    ),
    Case(
        "GRU behind BN",
        f"g (float[5,2,8] x) => {_OUT} <float[1,12,8] w, float[1,12,4] r, float[1,24] b,"
        f" {_BN}> {{ p = Transpose<perm=[0,2,1]>(x)  n = BatchNormalization(p, s, t, m, var)"
        "  q = Transpose<perm=[0,2,1]>(n)  y = GRU<hidden_size=4>(q, w, r, b) }",
    ),
    _image(
        "BN, Conv with zero padding",
        f"float[8,8,3,3] w, {_BN}",
        "n = BatchNormalization(x, s, t, m, var)  y = Conv<pads=[1,1,1,1]>(n, w)",
        must_stay=True,
    ),
    _image(
        "Conv, Relu, BN",
        f"float[8,8,3,3] w, {_BN}",
        "c = Conv(x, w)  r = Relu(c)  y = BatchNormalization(r, s, t, m, var)",
        must_stay=True,
    ),
    _image(
        "Conv that somebody else reads too, BN",
        f"float[8,8,3,3] w, {_BN}",
        "c = Conv(x, w)  n = BatchNormalization(c, s, t, m, var)  r = Relu(c)  y = Add(n, r)",
        must_stay=True,
    ),
    Case(
        "Conv whose weight a caller may replace, BN",
        f"g (float[2,8,9,9] x, float[8,8,3,3] w = {{{','.join(['0.5'] * 576)}}}) => {_OUT}"
        f" <{_BN}> {{ c = Conv(x, w)  y = BatchNormalization(c, s, t, m, var) }}",
        must_stay=True,
    ),
)


def remaining(case: Case, model: onnx.ModelProto) -> int:
    """Count what should have gone."""
    found = Counter(node.op_type for node in model.graph.node)
    return sum(found[operator] for operator in case.counted)


def _cell(case: Case, tool: str, folder: Path) -> str:
    source, target = folder / "source.onnx", folder / "target.onnx"
    target.unlink(missing_ok=True)
    onnx.save(case.model(), source)
    cost = run_tool(tool, source, target)
    if cost.error is not None or not target.exists():
        return "fails"
    left = remaining(case, onnx.load(target))
    try:
        checks = bnfold.check(source, target)
    except bnfold.ModelError:
        return "**invalid**"
    return str(left) if all(each.equivalent for each in checks) else f"{left}, **wrong**"


def _short(tool: str) -> str:
    return tool.partition(",")[0]


def onnx_table() -> str:
    """Run all tools on all patterns."""
    tools = [OURS, *(tool for tool in versions() if tool != OURS)]
    titles = " | ".join(_short(tool) for tool in tools)
    lines = [f"| pattern | before | {titles} |", "|---|---|" + "---|" * len(tools)]
    with tempfile.TemporaryDirectory() as temporary:
        for case in CASES:
            cells = [_cell(case, tool, Path(temporary)) for tool in tools]
            what = f"{case.what} (has to stay)" if case.must_stay else case.what
            lines.append(f"| {what} | {remaining(case, case.model())} | {' | '.join(cells)} |")
            print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


def main() -> None:
    """Replace the tables of the page."""
    page = PAGE.read_text(encoding="utf-8")
    tools = ", ".join(f"{_short(tool)} {version}" for tool, version in versions().items())
    for name, text in (
        ("versions", f"With {tools}."),
        ("patterns", onnx_table()),
        ("modules", module_table()),
    ):
        page = replace_part(page, name, text)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
