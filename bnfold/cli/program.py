"""How every command ends: its exit code, and what stderr says when it fails."""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["ARGUMENTS", "COMPLETION_VARIABLE", "INTERNAL_ERROR", "INTERRUPTED", "Program"]

ARGUMENTS = "bnfold.arguments"
"""Where the context of click keeps the arguments of the command line."""

COMPLETION_VARIABLE = "_BNFOLD_COMPLETE"
"""The variable by which the script of a shell asks for completions."""

INTERNAL_ERROR = 5
INTERRUPTED = 130

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ENDINGS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Program(click.Group):
    """A group whose commands return their exit code, and whose errors look like bnfold's own.

    A command is imported when it is called, so that ``--help`` answers at once.

    Args:
        verbs: What each command does, in a few words, by its name. It is the function of that name
            in the module ``bnfold.cli.<name>``.
    """

    def __init__(self, *args: Any, verbs: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._verbs = dict(verbs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of their importance."""
        return list(self._verbs)

    def get_command(self, ctx: click.Context | None, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self._verbs:
            return None
        command = getattr(importlib.import_module(f"bnfold.cli.{cmd_name}"), cmd_name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands and what they do."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._verbs.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands, not imported, and the options that begin like this."""
        from click.shell_completion import CompletionItem

        verbs = [
            CompletionItem(name, help=what)
            for name, what in self._verbs.items()
            if name.startswith(incomplete)
        ]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Keep the arguments as they were given, for reports."""
        given = tuple(args)
        context = super().make_context(info_name, args, parent, **extra)
        context.meta[ARGUMENTS] = given
        return context

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command that the arguments name, and leave with its exit code."""
        kwargs["standalone_mode"] = False
        if COMPLETION_VARIABLE in os.environ:
            importlib.import_module("bnfold.cli.completion")  # it has the scripts' other half
        # At the end Python would look for garbage in all of numpy and onnx: a fifth of a short run.
        atexit.unregister(gc.freeze)
        atexit.register(gc.freeze)
        with _termination_is_an_interrupt():
            code = _run(super().main, *args, **kwargs)
        sys.exit(code)


@contextlib.contextmanager
def _termination_is_an_interrupt() -> Iterator[None]:
    """Let SIGTERM, or a terminal that closes, end the program as Ctrl-C does: it cleans up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDINGS}
    # What is ignored stays so: nohup asks for that.
    caught = [each for each, handler in before.items() if handler not in {signal.SIG_IGN, None}]
    try:
        for number in caught:
            signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])


def _run(command: Any, *args: Any, **kwargs: Any) -> int:
    """Return the exit code of ``command``, having said what went wrong if anything did."""
    try:
        return command(*args, **kwargs) or 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last resort
        try:
            return _tell(error)
        except OSError as unheard:
            # EIO: the terminal has closed. Otherwise the disk that stderr goes to is full.
            if unheard.errno == errno.EIO:
                return INTERRUPTED
            return getattr(error, "exit_code", INTERNAL_ERROR)


def _tell(error: BaseException) -> int:
    """Say what went wrong, while it is being handled; return the exit code."""
    from bnfold.cli.console import print_bug, print_error, print_line
    from bnfold.errors import BnfoldError, InputError

    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return InputError.exit_code
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "bnfold"
        error = InputError(error.format_message(), hint=f"see `{path} --help`")
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        what = (error.strerror or str(error)).lower()
        error = InputError(f"{error.filename or 'the output'}: {what}", hint="make room there")
    if isinstance(error, BnfoldError):
        print_error(error)
        return error.exit_code
    if isinstance(error, click.Abort | KeyboardInterrupt):
        print_line("interrupted")
        return INTERRUPTED
    print_bug()
    return INTERNAL_ERROR
