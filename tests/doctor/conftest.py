from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bnfold.doctor import examine as examination
from bnfold.doctor.needs import Need
from bnfold.doctor.trials import Runtime, Tried

CPU = "CPUExecutionProvider"

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a package, or what looks like one, first on the path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def put(
        name: str,
        version: str | None = None,
        *,
        module: str | None = None,
        code: str = "",
        requires: tuple[str, ...] = (),
    ) -> Path:
        if version is not None:
            metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
            metadata.mkdir()
            lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
            lines += (f"Requires-Dist: {requirement}" for requirement in requires)
            (metadata / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
            (metadata / "RECORD").write_text(f"{module or name}/__init__.py,,\n", encoding="utf-8")
        if module is not None:
            package = folder / module
            package.mkdir(exist_ok=True)
            (package / "__init__.py").write_text(code, encoding="utf-8")
        return folder

    return put


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let bnfold need nothing but these packages, and the runtime work unless it is tried."""

    def limit(*needs: Need, runtime: bool = False) -> None:
        monkeypatch.setattr(examination, "needs", lambda: list(needs))
        if not runtime:
            monkeypatch.setattr(examination, "find_runtime", lambda: Runtime("1.0", (CPU,)))
            monkeypatch.setattr(examination, "try_provider", lambda _: Tried(CPU))

    return limit
