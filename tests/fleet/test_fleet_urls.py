"""Models at URLs: read, written, resumed; what is missing is told."""

from __future__ import annotations

import functools
import http.server
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from click.testing import Result
from fsspec.registry import _registry as REGISTRY  # noqa: N812 - to be emptied

from bnfold.errors import InputError, MissingPackageError, ModelError
from bnfold.fleet import places
from bnfold.fleet.record import place_of_record
from bnfold.fleet.sources import find_sources
from bnfold.fleet.task import FoldTask
from bnfold.fleet.work import work_on
from tests.fleet.zoo import assert_folded, make_model

Run = Callable[..., Result]
OPTIONS = {"check": False, "keep": ()}


@pytest.fixture
def memory() -> Iterator[Any]:
    """The filesystem of memory:// URLs, empty."""
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def upload(system: Any, path: Path, url: str) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        system.put_file(str(file), f"{places.parent_of(url)}/{file.name}")


def download(system: Any, url: str, folder: Path) -> Path:
    folder.mkdir()
    for name in system.ls(places.parent_of(url), detail=False):
        if system.isfile(name):
            system.get_file(name, str(folder / places.name_of(name)))
    return folder / places.name_of(url)


@pytest.mark.parametrize("external", [False, True])
def test_from_url_to_url(memory: Any, tmp_path: Path, external: bool) -> None:
    upload(memory, make_model(tmp_path / "a b.onnx", external=external), "memory://in/a b.onnx")
    report = work_on(
        FoldTask("memory://in/a b.onnx", "memory://out/a b.onnx", OPTIONS), None
    ).report
    assert report is not None
    assert (report.model, report.output) == ("memory://in/a b.onnx", "memory://out/a b.onnx")
    assert_folded(download(memory, "memory://out/a b.onnx", tmp_path / "back"))
    local = FoldTask(str(tmp_path / "a b.onnx"), str(tmp_path / "c.onnx"), OPTIONS)
    work_on(local, None)
    back = tmp_path / "back" / "a b.onnx"
    assert external or back.read_bytes() == (tmp_path / "c.onnx").read_bytes()


def test_between_a_path_and_a_url(memory: Any, tmp_path: Path) -> None:
    model = make_model(tmp_path / "a.onnx")
    work_on(FoldTask(str(model), "memory://out/a.onnx", OPTIONS), None)
    work_on(FoldTask("memory://out/a.onnx", str(tmp_path / "b.onnx"), OPTIONS), None)
    assert_folded(tmp_path / "b.onnx")


def test_data_of_another_result_is_not_replaced(memory: Any, tmp_path: Path) -> None:
    memory.pipe_file("/out/a.onnx.data", b"of somebody else")
    model = make_model(tmp_path / "a.onnx", external=True)
    for _ in range(2):
        work_on(FoldTask(str(model), "memory://out/a.onnx", OPTIONS), None)
        names = {places.name_of(name) for name in memory.ls("/out", detail=False)}
        assert len(names) == 3
    assert memory.cat_file("/out/a.onnx.data") == b"of somebody else"
    assert_folded(download(memory, "memory://out/a.onnx", tmp_path / "back"))


def test_errors_name_the_url(memory: Any, tmp_path: Path) -> None:
    memory.pipe_file("/in/a.onnx", b"hello, world\n" * 9)
    for name, said in (("a", "memory://in/a.onnx: this is text"), ("b", "b.onnx: no such file")):
        with pytest.raises(ModelError, match=said) as caught:
            work_on(FoldTask(f"memory://in/{name}.onnx", "memory://out/a.onnx", OPTIONS), None)
        assert "/tmp" not in caught.value.message  # noqa: S108
    assert not memory.exists("/out")


def test_nothing_half_written_where_a_file_can_be_renamed(
    memory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(places, "_CAN_RENAME", {"memory"})
    seen: list[set[str]] = []
    real = type(memory).mv

    def move(self: Any, *arguments: Any, **more: Any) -> Any:
        seen.append({places.name_of(name) for name in self.ls("/out", detail=False)})
        return real(self, *arguments, **more)

    monkeypatch.setattr(type(memory), "mv", move)
    model = make_model(tmp_path / "a.onnx", external=True)
    work_on(FoldTask(str(model), "memory://out/a.onnx", OPTIONS), None)
    first, second = seen
    assert [name.startswith(".bnfold-") for name in first] == [True]
    assert "a.onnx" not in second
    assert "a.onnx.data" in second
    assert len(memory.ls("/out")) == 2


def test_resume(memory: Any, tmp_path: Path) -> None:
    upload(memory, make_model(tmp_path / "a.onnx", external=True), "memory://in/a.onnx")
    record = place_of_record("memory://out", "a.onnx")
    task = FoldTask(
        "memory://in/a.onnx", "memory://out/a.onnx", OPTIONS, record=record, resume=True
    )
    assert work_on(task, None).report
    stored = work_on(task, None).stored
    assert stored is not None
    assert stored["output"] == "memory://out/a.onnx"
    memory.pipe_file("/out/a.onnx.data", b"x")
    assert work_on(task, None).report
    upload(memory, make_model(tmp_path / "a.onnx", 1, external=True), "memory://in/a.onnx")
    assert work_on(task, None).report
    assert work_on(task, None).stored


def test_directories(memory: Any) -> None:
    for name in ("b.onnx", "a/c.onnx", "a/c.onnx.data", "out/b.onnx", ".hidden/d.onnx"):
        memory.pipe_file(f"/zoo/{name}", b"x")
    sources = find_sources(["memory://zoo"], "memory://zoo/out")
    assert [source.relative for source in sources] == ["a/c.onnx", "b.onnx"]
    assert [source.model for source in sources] == ["memory://zoo/a/c.onnx", "memory://zoo/b.onnx"]
    with pytest.raises(InputError, match=r"memory://none: no \.onnx file"):
        find_sources(["memory://none"])


def test_file_urls_are_paths(run: Run, tmp_path: Path) -> None:
    make_model(tmp_path / "zoo" / "a b.onnx")
    out = f"file://{tmp_path}/out%20put"
    command = ("optimize", f"file://{tmp_path}/zoo", "--output-dir", out, "--no-check", "--json")
    (model,) = json.loads(run(*command).stdout)["models"]
    assert model["output"] == str(tmp_path / "out put" / "a b.onnx")
    assert_folded(tmp_path / "out put" / "a b.onnx")


def test_read_by_http(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    pytest.importorskip("requests")
    make_model(tmp_path / "a.onnx", external=True)
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.onnx"
        command = ("optimize", url, "--output-dir", tmp_path / "out", "--no-check")
        result = run(*command)
        refused = run("optimize", url, "--no-check")
        server.shutdown()
    assert result.exit_code == 0, result.stderr
    assert_folded(tmp_path / "out" / "a.onnx")
    assert refused.exit_code == 2
    assert "cannot be written: 501" in refused.stderr


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("url", "module", "package"),
    [
        ("s3://bucket/a.onnx", "s3fs", "s3fs"),
        ("gs://bucket/a.onnx", "gcsfs", "gcsfs"),
        ("hf://some/model/a.onnx", "huggingface_hub", "huggingface_hub"),
        ("https://example.invalid/a.onnx", "aiohttp", "aiohttp"),
    ],
)
def test_a_missing_package_is_named(
    url: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for name in [name for name in sys.modules if name.startswith("fsspec.implementations.http")]:
        monkeypatch.delitem(sys.modules, name)
    REGISTRY.pop(url.partition("://")[0], None)
    with pytest.raises(MissingPackageError, match=f"needs the package '{package}'") as caught:
        places.read_bytes(url)
    assert caught.value.hint == f"pip install {package}"
    assert caught.value.exit_code == 4


def test_without_fsspec(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    result = run("inspect", "s3://bucket/zoo")
    assert result.exit_code == 4
    assert result.stderr.splitlines() == [
        "error: s3://bucket/zoo: URLs need the package 'fsspec', which is not installed",
        "hint: pip install 'bnfold[fleet]'",
    ]


def test_an_unknown_protocol(run: Run, tmp_path: Path) -> None:
    result = run("optimize", "nonsense://a/b.onnx", "--output-dir", tmp_path, "--no-check")
    assert result.exit_code == 2
    assert "nonsense://a/b.onnx: cannot be read: Protocol not known: nonsense" in result.stderr


def test_in_place_is_for_files(run: Run) -> None:
    result = run("optimize", "memory://a.onnx", "--in-place")
    assert result.exit_code == 2
    assert "--in-place replaces files" in result.stderr
