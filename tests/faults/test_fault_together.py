"""Two runs on one output, files that change under a run, folders that cannot be written to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from bnfold import store
from bnfold.errors import InputError, ModelError
from bnfold.store.claims import Claim

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model with its weights beside it, alone in a folder."""
    path = tmp_path / "m.onnx"
    onnx.save(
        onnx.load(DIGITS),
        path,
        save_as_external_data=True,
        location="m.onnx.data",
        size_threshold=0,
    )
    return path


def edited(path: Path, factor: float = 2.0) -> store.LoadedModel:
    loaded = store.load(path)
    tensor = loaded.proto.graph.initializer[0]
    values = (loaded.tensors.array(tensor) * np.float32(factor)).astype(np.float32)
    loaded.tensors.attach(tensor, store.ArraySource(values))
    return loaded


def weight(path: Path) -> np.ndarray:
    return onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0])


def names(path: Path) -> set[str]:
    return {each.name for each in path.parent.iterdir()}


# --- two runs that stage the same bytes for one output


def test_a_run_that_gives_up_leaves_the_data_that_another_uses(model: Path) -> None:
    first, second = store.stage(edited(model), model), store.stage(edited(model), model)
    first.discard()
    second.commit()
    assert np.array_equal(weight(model), weight(DIGITS) * 2)
    assert len(names(model)) == 2


def test_a_run_that_gives_up_leaves_the_data_of_a_committed_one(model: Path) -> None:
    first, second = store.stage(edited(model), model), store.stage(edited(model), model)
    second.commit()
    first.discard()
    assert np.array_equal(weight(model), weight(DIGITS) * 2)
    assert len(names(model)) == 2


def test_both_are_done(model: Path) -> None:
    first, second = store.stage(edited(model), model), store.stage(edited(model), model)
    first.commit()
    second.commit()
    assert np.array_equal(weight(model), weight(DIGITS) * 2)
    assert len(names(model)) == 2


def test_the_last_of_two_different_ones_stays(model: Path) -> None:
    first, second = store.stage(edited(model, 2), model), store.stage(edited(model, 3), model)
    third = store.stage(edited(model, 2), model)
    first.commit()
    second.commit()  # replaces what the third shares with the first
    third.commit()
    assert np.array_equal(weight(model), weight(DIGITS) * 2)
    assert len(names(model)) == 2


def test_data_that_appears_meanwhile_is_not_replaced(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.onnx"
    real = os.link

    def raced(source: Path, name: Path) -> None:
        monkeypatch.undo()
        Path(name).write_text("of somebody else")
        real(source, name)

    monkeypatch.setattr(os, "link", raced)
    store.save(edited(model), target)
    assert (tmp_path / "out.onnx.data").read_text() == "of somebody else"
    assert np.array_equal(weight(target), weight(DIGITS) * 2)


def test_without_hard_links(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unsupported)
    store.save(edited(model), model)
    assert np.array_equal(weight(model), weight(DIGITS) * 2)
    assert len(names(model)) == 2


def test_a_claim_ends_with_its_process(model: Path) -> None:
    data = model.with_name("m.onnx.data")
    script = (
        "import sys, pathlib; from bnfold.store.claims import Claim\n"
        "claim = Claim(pathlib.Path(sys.argv[1])); print('claimed', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, data]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        claim = Claim(data)
        assert not claim.is_sole()
        process.kill()
        process.wait()
        assert claim.is_sole()
        with pytest.raises(BlockingIOError):
            Claim(data)
        claim.release()
    Claim(data).release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs Unix")
def test_processes_on_one_output(model: Path) -> None:
    out = model.with_name("out.onnx")
    command = [sys.executable, "-m", "bnfold", "optimize", model, "-o", out, "--no-check", "-q"]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for run in runs:
        _, said = run.communicate()
        assert (run.returncode, said) == (0, "")
    assert names(model) == {"m.onnx", "m.onnx.data", "out.onnx", "out.onnx.data"}
    onnx.checker.check_model(out)


# --- what changes under a run


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_the_source_is_replaced_while_it_is_read(how: str, model: Path, tmp_path: Path) -> None:
    loaded = edited(model)
    loaded.tensors.array(loaded.proto.graph.initializer[1])
    for path in (model, tmp_path / "m.onnx.data"):
        if how == "replaced":
            other = tmp_path / "other"
            other.write_bytes(b"x" * path.stat().st_size)
            other.replace(path)
        else:
            path.unlink()
    before = names(model)
    target = tmp_path / "out.onnx"
    try:
        store.save(loaded, target)
    except ModelError as error:
        said = error.message
        assert names(model) == before
    else:
        said = None
        assert np.array_equal(weight(target), weight(DIGITS) * 2)
    assert said is None or "changed while it was in use" in said


def test_permission_is_lost_on_the_way(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.replace

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    before = {path: path.read_bytes() for path in model.parent.iterdir()}
    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(InputError, match="cannot be written: permission denied"):
        store.save(edited(model), model)
    monkeypatch.setattr(os, "replace", real)
    assert {path: path.read_bytes() for path in model.parent.iterdir()} == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_read_only_folder(model: Path) -> None:
    model.parent.chmod(0o555)
    try:
        with pytest.raises(InputError, match="cannot be written: permission denied"):
            store.save(edited(model), model)
    finally:
        model.parent.chmod(0o755)
    assert names(model) == {"m.onnx", "m.onnx.data"}


# --- a terminal that closes


@pytest.mark.skipif(not hasattr(os, "login_tty"), reason="needs Unix")
@pytest.mark.parametrize("end", ["close", "interrupt", "terminate"])
def test_the_program_is_ended_while_the_proof_runs(end: str, tmp_path: Path) -> None:
    import pty  # noqa: PLC0415 - only there on Unix

    shutil.copy(DIGITS, tmp_path / "m.onnx")
    parent, child = pty.openpty()

    def on_terminal() -> None:
        os.login_tty(child)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell ignores it in the background

    process = subprocess.Popen(
        [sys.executable, "-m", "bnfold", "optimize", "m.onnx"],
        cwd=tmp_path,
        preexec_fn=on_terminal,  # noqa: PLW1509 - one thread here
    )
    os.close(child)
    _wait(lambda: any(tmp_path.glob(".bnfold-*")) or process.poll() is not None)
    time.sleep(0.3)
    if end == "close":
        os.close(parent)
    elif end == "interrupt":
        os.write(parent, b"\x03")
    else:
        process.terminate()
    assert process.wait(30) in {130, -signal.SIGHUP}
    if end != "close":
        os.close(parent)
    assert names(tmp_path / "m.onnx") == {"m.onnx"}


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)
