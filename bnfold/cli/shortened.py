"""A file that another process shortens while it is mapped: an error instead of a crash.

Reading what is no longer there is a SIGBUS, which ends a process with a core dump. Python's own
handlers run between two instructions of the interpreter, so never; one of the C library runs in
the place of the instruction that failed, from where there is no way back.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

__all__ = ["shortened_files_are_an_error"]

_MAPS = Path("/proc/self/maps")
# Start, end and offset of what is mapped as models are, read-only and shared.
_MAPPING = re.compile(r"(\w+)-(\w+) r--s (\w+) \S+ \d+ +(/.*)")


@contextlib.contextmanager
def shortened_files_are_an_error() -> Iterator[None]:
    """Let a file that becomes shorter end the process with one line and the exit code 2."""
    if not hasattr(signal, "SIGBUS"):
        yield
        return
    import ctypes

    library = ctypes.CDLL(None)
    library.signal.restype = ctypes.c_void_p
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(_end)
    before = library.signal(signal.SIGBUS, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        library.signal(signal.SIGBUS, before)


def _end(_: int) -> None:
    from bnfold.errors import InputError

    names = ", ".join(_shortened()) or "a file"
    text = (
        f"error: {names}: another process made it shorter while it was read\n"
        "hint: run again when nobody writes to it\n"
    )
    with contextlib.suppress(OSError):
        os.write(2, text.encode(errors="backslashreplace"))
    os._exit(InputError.exit_code)


def _shortened() -> list[str]:
    """Return the mapped files that end before their mapping does, where the system tells."""
    found = []
    with contextlib.suppress(OSError), _MAPS.open(encoding="utf-8") as maps:
        for first, last, offset, path in filter(None, map(_parts, maps)):
            with contextlib.suppress(OSError):
                if offset + last - first - Path(path).stat().st_size >= os.sysconf("SC_PAGE_SIZE"):
                    found.append(path)
    return list(dict.fromkeys(found))


def _parts(line: str) -> tuple[int, int, int, str] | None:
    match = _MAPPING.fullmatch(line.rstrip("\n"))
    if match is None:
        return None
    first, last, offset, path = match.groups()
    return int(first, 16), int(last, 16), int(offset, 16), path
