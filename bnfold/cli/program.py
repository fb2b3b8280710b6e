"""How every command ends: its exit code, and what stderr says when it fails."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import click

from bnfold.cli.console import print_bug, print_error, print_line
from bnfold.errors import BnfoldError, InputError

__all__ = ["INTERNAL_ERROR", "INTERRUPTED", "Program"]

INTERNAL_ERROR = 5
INTERRUPTED = 130


class Program(click.Group):
    """A group whose commands return their exit code, and whose errors look like bnfold's own."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command that the arguments name, and leave with its exit code."""
        kwargs["standalone_mode"] = False
        with _termination_is_an_interrupt():
            code = _run(super().main, *args, **kwargs)
        sys.exit(code)


@contextlib.contextmanager
def _termination_is_an_interrupt() -> Iterator[None]:
    """Let SIGTERM end the program as Ctrl-C does, so that it cleans up behind itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(command: Any, *args: Any, **kwargs: Any) -> int:
    """Return the exit code of ``command``, having said what went wrong if anything did."""
    try:
        return command(*args, **kwargs) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return InputError.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "bnfold"
        print_error(InputError(error.format_message(), hint=f"see `{path} --help`"))
        return InputError.exit_code
    except (click.Abort, KeyboardInterrupt):
        print_line("interrupted")
        return INTERRUPTED
    except BnfoldError as error:
        print_error(error)
        return error.exit_code
    except Exception:  # noqa: BLE001 - the last resort: say that it is our fault
        print_bug()
        return INTERNAL_ERROR
