"""The child's side: it reads jobs, and writes what it finds.

Jobs come in through the standard input, with the folder that paths are relative to and the
environment. Answers leave through what was the standard output: ``("step", str)`` and
``("learned", result)`` while it works, then one of ``("done", None)``,
``("failed", BnfoldError)`` and ``("bug", str)``. What Python code prints, a data loader for
example, goes to stderr.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import signal
import sys
import threading
import traceback
from typing import IO, TYPE_CHECKING, cast

from bnfold.errors import BnfoldError
from bnfold.isolation.messages import read_message, write_message

if TYPE_CHECKING:
    from bnfold.isolation.process import Job

__all__ = ["main"]


def main(native_log: str) -> None:
    """Do jobs until the other side hangs up.

    Args:
        native_log: File for what native code writes to stderr: the log of a runtime, and the last
            words of a crash.
    """
    answers = os.fdopen(os.dup(1), "wb")
    spoken = os.fdopen(os.dup(2), "w", buffering=1, errors="replace")
    log = os.open(native_log, os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = sys.stderr = spoken
    faulthandler.enable(file=2)
    # Ctrl-C reaches both processes; the other one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jobs: queue.SimpleQueue[object] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(jobs,), daemon=True).start()
    while True:
        directory, environment, job = cast("tuple[str, dict[str, str], Job[object]]", jobs.get())
        os.chdir(directory)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        # Before NumPy is loaded: its BLAS threads wait for one another by spinning, which makes
        # small products ten times as slow where other programs want the processor too.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        write_message(answers, _serve(job, answers))


def _receive(jobs: queue.SimpleQueue[object]) -> None:
    """Queue the jobs; when the other side is gone, nobody waits for what is being done."""
    while (job := read_message(sys.stdin.buffer)) is not None:
        jobs.put(job)
    os._exit(0)


def _serve(job: Job[object], answers: IO[bytes]) -> tuple[str, object]:
    try:
        job.run(
            progress=lambda step: write_message(answers, ("step", step)),
            learned=lambda report: write_message(answers, ("learned", report)),
        )
    except BnfoldError as error:
        return "failed", error
    except BaseException:  # noqa: BLE001 - whatever it is, the other side has to hear of it
        return "bug", traceback.format_exc()
    return "done", None
