"""Run a command and print what it cost, as one JSON object.

    python -I -S benchmarks/launch.py SECONDS COMMAND...

After so many seconds the command is killed. Linux charges a process with the memory of the one that
started it, so this one is small.
"""

import json
import os
import subprocess
import sys
import threading
import time


def main() -> None:
    """Run, wait, print."""
    timeout, *command = sys.argv[1:]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    watch = threading.Timer(float(timeout), process.kill)
    watch.start()
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    watch.cancel()
    code = process.returncode = os.waitstatus_to_exitcode(status)
    lines = said.decode(errors="replace").strip().splitlines() or [f"exit code {code}"]
    error = lines[-1][:200] if code else None
    if code and seconds >= float(timeout):
        error = f"not done after {timeout} s"
    cost = {"seconds": seconds, "memory": usage.ru_maxrss * 1024, "error": error}
    print(json.dumps(cost))


if __name__ == "__main__":
    main()
