"""The pytest plugin: the fixture ``bnfold_check``, and ``pytest --bnfold`` for model files.

With ``--bnfold`` every collected ``.onnx`` file becomes two tests:

- ``model.onnx::folded``: nothing is left in it that bnfold would fold or merge;
- ``model.onnx::equivalent``: what bnfold makes of it computes the same. A ``model.folded.onnx``
  beside a ``model.onnx`` is compared with that.

Without it, the plugin does nothing; it imports nothing but pytest until a test asks for more.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bnfold.report import CheckReport

__all__ = ["bnfold_check"]

_FOLDED = ".folded"
_WIDTH = 120

_LISTS = {
    "provider": ("providers", "NAME", "where models run: cpu, cuda, cuda:1, ... (default: cpu)"),
    "dim": ("dims", "NAME=SIZE", "size of a symbolic dimension, for models that have it"),
    "keep": ("keep", "GLOB", "sites that may stay as they are"),
}
"""Options: by name, the setting of the ini file, what a value looks like, and what it means."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, and a setting of the ini file for each."""
    group = parser.getgroup("bnfold", "models in ONNX files")
    group.addoption(
        "--bnfold",
        action="store_true",
        help="collect .onnx files: is each folded, and is its fold equivalent?",
    )
    for name, (setting, metavar, meaning) in _LISTS.items():
        group.addoption(
            f"--bnfold-{name}",
            action="append",
            metavar=metavar,
            help=f"{meaning}; repeatable, in place of the setting bnfold_{setting}",
        )
        parser.addini(f"bnfold_{setting}", f"{meaning}, one in a line", type="linelist")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse sizes that cannot be read, before anything is collected."""
    if config.getoption("--bnfold"):
        for value in _values(config, "dim"):
            _dimension(value)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect model files, where ``--bnfold`` asks for them."""
    if file_path.suffix == ".onnx" and parent.config.getoption("--bnfold"):
        collector: pytest.Collector = _ModelFile.from_parent(parent, path=file_path)
        return collector
    return None


@pytest.fixture(scope="session")
def bnfold_check(pytestconfig: pytest.Config) -> Callable[..., tuple[CheckReport, ...]]:
    """Return ``check(reference, candidate, **options)``: an assertion that two models are equal.

    It takes what :func:`bnfold.check` takes and returns the reports; ``--bnfold-provider`` and the
    setting ``bnfold_providers`` say where models run, unless ``providers`` does.
    """

    def check(reference: Any, candidate: Any, **options: Any) -> tuple[CheckReport, ...]:
        __tracebackhide__ = True
        import bnfold  # noqa: PLC0415 - costs nothing where no test asks for it

        options.setdefault("providers", _values(pytestconfig, "provider") or ("cpu",))
        try:
            checks = bnfold.check(reference, candidate, **options)
        except bnfold.BnfoldError as error:
            if error.hint:
                error.add_note(f"hint: {error.hint}")
            raise error.with_traceback(None) from None
        if not all(report.equivalent for report in checks):
            table = _table(f"{_name(reference)} and {_name(candidate)}", checks)
            raise AssertionError(table)
        return checks

    return check


class _ModelFile(pytest.File):
    """A model file: the two things that can be asked of it."""

    def collect(self) -> Iterable[pytest.Item]:
        yield _Folded.from_parent(self, name="folded")
        yield _Equivalent.from_parent(self, name="equivalent")


class _ModelItem(pytest.Item):
    """A test of one model file. What it raises on purpose is told without a traceback."""

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        from bnfold.errors import BnfoldError  # noqa: PLC0415 - only where a test has failed

        error = excinfo.value
        if isinstance(error, BnfoldError):
            hint = f"\nhint: {error.hint}" if error.hint else ""
            return f"error: {error.message}{hint}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, f"{self.name}: {self.path.name}"

    def values(self, name: str) -> tuple[str, ...]:
        return _values(self.config, name)

    def skip_original(self) -> None:
        """Skip a model whose folded form lies beside it."""
        folded = self.path.with_name(f"{self.path.stem}{_FOLDED}{self.path.suffix}")
        if folded.exists():
            pytest.skip(f"{folded.name} is its folded form")


class _Folded(_ModelItem):
    """Nothing is left that bnfold would fold or merge."""

    def runtest(self) -> None:
        import bnfold  # noqa: PLC0415 - costs nothing where no test asks for it

        self.skip_original()
        report = bnfold.inspect(self.path, keep=self.values("keep"))
        left = [*report.folded, *report.merged]
        if left:
            names = "".join(f"\n  {site.name} ({site.kind})" for site in left)
            pytest.fail(
                f"{self.path.name}: {len(left)} site(s) would fold:{names}\n"
                f"hint: bnfold optimize '{self.path}' --in-place",
                pytrace=False,
            )


class _Equivalent(_ModelItem):
    """The folded form computes the same, and runs where it is to run."""

    def runtest(self) -> None:
        import bnfold  # noqa: PLC0415 - costs nothing where no test asks for it

        self.skip_original()
        with tempfile.TemporaryDirectory(prefix="bnfold-") as folder:
            reference, candidate = self._original(), self.path
            if reference is None:
                reference, candidate = self.path, Path(folder, self.path.name)
                bnfold.optimize(reference, candidate, check=False, keep=self.values("keep"))
            checks = bnfold.check(
                reference,
                candidate,
                providers=self.values("provider") or ("cpu",),
                dims=self._dims(),
            )
        if not all(report.equivalent for report in checks):
            pytest.fail(_table(f"{reference.name} and its folded form", checks), pytrace=False)

    def _original(self) -> Path | None:
        """Return the model whose folded form this is, if that lies beside it."""
        stem = self.path.stem
        original = self.path.with_name(f"{stem.removesuffix(_FOLDED)}{self.path.suffix}")
        return original if stem.endswith(_FOLDED) and original.exists() else None

    def _dims(self) -> dict[str, int]:
        """Return the sizes of those symbolic dimensions that the model has."""
        sizes = dict(_dimension(value) for value in self.values("dim"))
        if not sizes:
            return {}
        from bnfold.store import load  # noqa: PLC0415 - onnx, only where it is needed

        shapes = [info.type.tensor_type.shape for info in load(self.path).proto.graph.input]
        known = {dim.dim_param for shape in shapes for dim in shape.dim}
        return {name: size for name, size in sizes.items() if name in known}


def _values(config: pytest.Config, name: str) -> tuple[str, ...]:
    """Return what the command line says, or else the ini file."""
    given = config.getoption(f"--bnfold-{name}") or config.getini(f"bnfold_{_LISTS[name][0]}")
    return tuple(given)


def _dimension(value: str) -> tuple[str, int]:
    name, _, size = value.rpartition("=")
    if not name or not size.isdecimal():
        raise pytest.UsageError(f"bnfold: {value!r} is not a dimension such as 'N=4'")
    return name, int(size)


def _name(model: object) -> str:
    return str(model) if isinstance(model, str | Path) else f"a {type(model).__name__}"


def _table(title: str, checks: tuple[CheckReport, ...]) -> str:
    """Return the verdict as the command line shows it."""
    from rich.console import Console  # noqa: PLC0415 - only where a test has failed

    from bnfold.cli.check_tables import check_tables  # noqa: PLC0415

    text = io.StringIO()
    console = Console(file=text, width=_WIDTH, markup=False, highlight=False, emoji=False)
    for part in check_tables(title, checks):
        console.print(part)
    return text.getvalue()
