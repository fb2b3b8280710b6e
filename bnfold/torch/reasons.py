"""What went wrong, in one line."""

from __future__ import annotations

__all__ = ["reason_of"]

LONGEST = 200
TORCHSCRIPT = "The following operation failed in the TorchScript interpreter"


def reason_of(error: BaseException) -> str:
    """Type and first line of an error; the last line where TorchScript puts its traceback first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    line = lines[-1] if lines[0].startswith(TORCHSCRIPT) else lines[0]
    name = type(error).__name__
    return line[:LONGEST] if line.startswith(name) else f"{name}: {line[:LONGEST]}"
