"""The child process of a check: it reads requests, and writes what it finds.

Requests come in through the standard input, with the folder that paths are relative to and the
environment. Answers leave through what was the standard output: ``("step", str)`` and
``("learned", CheckReport)`` while it works, then one of ``("done", None)``,
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
from typing import IO, cast

from bnfold.check.inprocess import run_check
from bnfold.check.messages import read_message, write_message
from bnfold.check.request import Request
from bnfold.errors import BnfoldError

__all__ = ["main"]


def main(native_log: str) -> None:
    """Serve requests until the other side hangs up.

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
    requests: queue.SimpleQueue[object] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests,), daemon=True).start()
    while True:
        directory, environment, request = cast(
            "tuple[str, dict[str, str], Request]", requests.get()
        )
        os.chdir(directory)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        write_message(answers, _serve(request, answers))


def _receive(requests: queue.SimpleQueue[object]) -> None:
    """Queue the requests; when the other side is gone, nobody waits for what is being done."""
    while (request := read_message(sys.stdin.buffer)) is not None:
        requests.put(request)
    os._exit(0)


def _serve(request: Request, answers: IO[bytes]) -> tuple[str, object]:
    try:
        run_check(
            request,
            progress=lambda step: write_message(answers, ("step", step)),
            learned=lambda report: write_message(answers, ("learned", report)),
        )
    except BnfoldError as error:
        return "failed", error
    except BaseException:  # noqa: BLE001 - whatever it is, the other side has to hear of it
        return "bug", traceback.format_exc()
    return "done", None
