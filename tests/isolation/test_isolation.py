"""The child process: a runtime that crashes, hangs or is killed costs a report, not the program."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import onnx
import pytest

from bnfold.check import check
from bnfold.errors import InputError, ModelError, ProviderError
from bnfold.isolation import process as isolation
from bnfold.progress import Step


def text(graph: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{graph}')


IDENTITY = text("g (float[N] x) => (float[N] y) { y = Identity (x) }")
NEGATED = text("g (float[N] x) => (float[N] y) { y = Neg (x) }")
PAIR = IDENTITY, text("g (float[N] x) => (float[N] y) { z = Neg (x) y = Neg (z) }")

# A runtime that does something to its process at the second optimization level.
SPOILT = """
import importlib.util, os, pathlib, sys, time
here = str(pathlib.Path(__file__).parent)
sys.path.remove(here)
del sys.modules["onnxruntime"]
import onnxruntime as real
sys.path.insert(0, here)
def is_pipe(fd):
    try:
        return os.readlink("/proc/self/fd/" + str(fd)).startswith("pipe:")
    except OSError:
        return False
class Session(real.InferenceSession):
    def __init__(self, source, options, **more):
        if options.graph_optimization_level == real.GraphOptimizationLevel.ORT_ENABLE_ALL:
            os.write(2, b"a last word\\n")
            {deed}
        super().__init__(source, options, **more)
real.InferenceSession = Session
sys.modules["onnxruntime"] = real
"""


def spoil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str) -> None:
    (tmp_path / "onnxruntime.py").write_text(SPOILT.format(deed=deed))
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("os.abort()", r"ended with SIGABRT at: .*\(a last word\)"),
        ("import ctypes; ctypes.string_at(0)", r"ended with SIGSEGV at: .*\(a last word\)"),
        ("os._exit(7)", r"ended with exit code 7 at: .*\(a last word\)"),
        ("os.kill(os.getpid(), 9)", r"ended with SIGKILL at: .*may have run out of memory"),
    ],
)
def test_crash_is_an_error_of_the_provider(
    deed: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(tmp_path, monkeypatch, deed)
    with pytest.raises(ProviderError, match=said) as caught:
        check(*PAIR)
    assert caught.value.exit_code == 4
    assert caught.value.hint
    monkeypatch.undo()
    assert all(report.equivalent for report in check(*PAIR)), "the next check has a new process"


def test_runtime_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(tmp_path, monkeypatch, "time.sleep(600)")
    with pytest.raises(ProviderError, match=r"than 4 seconds and was given up at: CPU.*loading"):
        check(*PAIR, timeout=4)


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("os.fork() or time.sleep(60); os._exit(3)", "ended with exit code 3"),
        ("os.closerange(0, 64); time.sleep(60)", "stopped answering"),
        (
            "[os.write(n, b'x' * 999) for n in range(3, 64) if is_pipe(n)]; time.sleep(60)",
            "stopped answering",
        ),
    ],
    ids=["a-fork-holds-the-pipe", "closes-everything", "garbage"],
)
def test_runtime_that_spoils_the_pipe_is_given_up(
    deed: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(tmp_path, monkeypatch, deed)
    with pytest.raises(ProviderError, match=said):
        check(*PAIR)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs Unix")
def test_what_a_runtime_starts_is_ended_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "process"
    start = f"pathlib.Path({str(note)!r}).write_text(str(os.fork() or time.sleep(600)))"
    spoil(tmp_path, monkeypatch, f"{start}; time.sleep(600)")
    with pytest.raises(ProviderError, match="longer than 4 seconds"):
        check(*PAIR, timeout=4)
    started = int(note.read_text())
    for _ in range(100):
        if not Path(f"/proc/{started}/stat").exists() or _state(started) == "Z":
            return
        threading.Event().wait(0.05)
    pytest.fail("it outlives the process that started it")


def test_internal_error_carries_the_other_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(tmp_path, monkeypatch, "raise KeyboardInterrupt('oops')")
    with pytest.raises(RuntimeError, match="oops"):
        check(*PAIR)


def test_process_is_kept_and_follows_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def process() -> int:
        assert isolation._worker is not None
        return isolation._worker._process.pid

    check(*PAIR)
    first = process()
    (tmp_path / "a.onnx").write_bytes(IDENTITY.SerializeToString())
    monkeypatch.chdir(tmp_path)
    assert all(report.equivalent for report in check("a.onnx", Path("a.onnx")))
    with pytest.raises(ModelError):
        check("a.onnx", "b.onnx")
    with pytest.raises(InputError):
        check("a.onnx", "a.onnx", dims={"M": 3})
    check(*PAIR)
    assert process() == first


def test_process_ends_with_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal, sys\n"
        "from bnfold.check import check\n"
        "from bnfold.isolation import process as isolation\n"
        f"model = {IDENTITY.SerializeToString()!r}\n"
        "check(model, model)\n"
        "print(isolation._worker._process.pid, flush=True)\n"
        "if sys.argv[1:]: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for arguments in ([], ["killed"]):
        run = subprocess.run(
            [sys.executable, script, *arguments], capture_output=True, text=True, check=False
        )
        assert run.stderr == ""
        child = int(run.stdout)
        for _ in range(100):
            if not Path(f"/proc/{child}/stat").exists() or _state(child) == "Z":
                break
            threading.Event().wait(0.05)
        else:
            pytest.fail("the child outlives its parent")


def _state(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def test_interrupt_ends_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(*PAIR, progress=interrupt)
    assert isolation._worker is not None
    assert isolation._worker._process.returncode == -signal.SIGKILL
    assert not isolation._worker._log.exists()


def test_checks_of_several_threads_take_turns() -> None:
    found: dict[int, bool] = {}

    def one(number: int) -> None:
        candidate = PAIR[1] if number % 2 else NEGATED
        found[number] = all(report.equivalent for report in check(PAIR[0], candidate))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: False, 1: True, 2: False, 3: True}


def test_environment_reaches_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(*PAIR)
    spoil(tmp_path, monkeypatch, "sys.exit(os.environ['BNFOLD_TEST_WORD'])")
    monkeypatch.setenv("BNFOLD_TEST_WORD", "heard")
    with pytest.raises(RuntimeError, match="heard"):
        check(*PAIR)
    monkeypatch.setenv("BNFOLD_TEST_WORD", "again")
    with pytest.raises(RuntimeError, match="again"):
        check(*PAIR)


def test_program_with_its_own_interpreter_checks_in_its_own_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(isolation, "_ready_worker", lambda: pytest.fail("started a process"))
    steps: list[str] = []
    assert all(report.equivalent for report in check(*PAIR, progress=steps.append))
    assert steps


def test_step_survives_its_way() -> None:
    step = pickle.loads(pickle.dumps(Step("reading", 3, 7)))  # noqa: S301
    assert (step, step.done, step.total) == ("reading", 3, 7)
    assert os.fsdecode(step) == "reading"
