"""Models straight from ``torch.onnx.export(..., dynamo=True)``: an ``ONNXProgram`` in and out."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, cast, overload

from bnfold.errors import InputError, NotEquivalentError
from bnfold.memory import is_program
from bnfold.report import FoldReport

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

    from bnfold.targets import StrPath

__all__ = ["accepts_programs"]

P = ParamSpec("P")


class _Optimize(Protocol[P]):
    """A function on model files that takes an ``ONNXProgram`` as well."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # P takes none
        self, src: ONNXProgram, dst: None = None, **options: Any
    ) -> ONNXProgram: ...

    @overload
    def __call__(self, src: ONNXProgram, dst: StrPath, **options: Any) -> FoldReport: ...

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> FoldReport: ...


def accepts_programs(optimize: Callable[P, FoldReport]) -> _Optimize[P]:
    """Let a function ``(src, dst=None, **options)`` on files take an ``ONNXProgram`` as ``src``.

    With ``dst`` the folded program is written there, and what comes back is the report; without it
    a new ``ONNXProgram`` does.
    """

    @functools.wraps(optimize)
    def with_programs(src: Any, dst: StrPath | None = None, **options: Any) -> Any:
        if not is_program(src):
            return optimize(src, dst, **options)  # type: ignore[arg-type]
        if options.get("in_place"):
            raise InputError("a program in memory cannot be replaced", hint="name a file to write")
        return _optimize_program(optimize, src, dst, options)

    return cast("_Optimize[P]", with_programs)


def _optimize_program(
    optimize: Callable[..., FoldReport],
    program: ONNXProgram,
    dst: StrPath | None,
    options: dict[str, Any],
) -> FoldReport | ONNXProgram:
    folder = Path(tempfile.mkdtemp(prefix="bnfold-"))
    keep = False
    try:
        source, target = folder / "program.onnx", folder / "folded.onnx"
        program.save(source)
        report = optimize(source, dst or target, **options)
        if dst is not None:
            return dataclasses.replace(report, model=None)
        return _load(program, target)
    except NotEquivalentError:
        keep = True  # the program and the inputs that show the difference
        raise
    finally:
        if not keep:
            shutil.rmtree(folder)


def _load(program: ONNXProgram, file: Path) -> ONNXProgram:
    import onnx_ir  # noqa: PLC0415 - the type of its model

    model = onnx_ir.external_data.load_to_model(onnx_ir.load(file))
    return type(program)(model, program.exported_program)
