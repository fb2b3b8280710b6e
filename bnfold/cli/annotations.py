"""Reports where GitHub Actions shows them: annotations on stdout, the summary of the job in a file.

An annotation is a line ``::error file=...,title=...::message``, a *workflow command*, that the
runner takes out of the output of a step. Names out of models cannot become commands of their own:
in an annotation percent signs and line breaks are escaped, in its properties colons and commas
too; and stderr, which the runner reads as well, has no line that it would take for a command.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bnfold.cli.console import print_out, print_warning
from bnfold.report.render.alerts import ERROR, NOTE, WARNING, Alert, alerts_of, models_of
from bnfold.report.render.markdown import to_markdown
from bnfold.report.render.overview import elsewhere, title, verb_of
from bnfold.report.render.text import readable

__all__ = ["annotate", "annotations_of", "append_summary", "guard_stderr"]

PER_STEP = 10
"""Annotations of one kind that GitHub shows of a step."""

MOST_LINES = 10
"""Lines of one annotation."""

SUMMARY_BYTES = 1024 * 1024
"""Size from which GitHub refuses the summary of a step."""

_COMMANDS = {ERROR: "error", WARNING: "warning", NOTE: "notice"}
_COMMAND = re.compile(r"^(\s*):(?=:)", re.MULTILINE)
_CUT = "\nThe rest is longer than a summary may be.\n"


def annotate(report: Mapping[str, Any]) -> None:
    """Print the annotations of a report, and append it to the summary of the job.

    Args:
        report: The object of a run, as ``--json`` prints it.
    """
    print_out("".join(f"{line}\n" for line in annotations_of(report)))
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        try:
            append_summary(Path(summary), to_markdown(report))
        except OSError as error:
            print_warning(f"{summary}: cannot write the summary of the job: {error.strerror}")


def guard_stderr() -> None:
    """Let nothing on stderr, until the end of the program, be a command for the runner."""
    stderr = sys.stderr
    if isinstance(stderr, io.TextIOWrapper) and not isinstance(stderr, _Inert):
        sys.stderr = _Inert(stderr.buffer, "utf-8", "backslashreplace", line_buffering=True)


class _Inert(io.TextIOWrapper):
    """A stream on which ``::`` does not begin a line, and ``##[`` is nowhere."""

    def write(self, text: str) -> int:
        """Write text whose commands are spelled out."""
        return super().write(_COMMAND.sub(r"\1\\x3a", text).replace("##[", "#\\x23["))

    def __del__(self) -> None:
        """Leave the stream below open: it was there before."""
        try:  # contextlib may be gone when the interpreter ends
            self.detach()
        except ValueError:
            return


def annotations_of(report: Mapping[str, Any]) -> list[str]:
    """Return the workflow commands of a report.

    A model gets one annotation of each kind, whose lines are its alerts. Of more models than
    GitHub shows, the last annotation of a kind counts the others.
    """
    report = readable(report)
    models = models_of(report)
    folded_elsewhere = elsewhere(models)
    required = bool((report.get("run") or {}).get("require_folded"))
    heading = f"bnfold {verb_of(report)}".strip()
    lines: list[str] = []
    alerts = [
        alerts_of(model, require_folded=required, elsewhere=folded_elsewhere) for model in models
    ]
    for severity, command in _COMMANDS.items():
        of_kind = [
            (model, mine)
            for model, some in zip(models, alerts, strict=True)
            if (mine := [each for each in some if each.severity == severity])
        ]
        fits = len(of_kind) <= PER_STEP
        for model, mine in of_kind if fits else of_kind[: PER_STEP - 1]:
            lines.append(_command(command, _message(model, mine), _file(model), heading))
        if not fits:
            others = f"{len(of_kind) - PER_STEP + 1} more models; the summary of the job lists them"
            lines.append(_command(command, others, "", heading))
    return lines


def append_summary(file: Path, markdown: str) -> None:
    """Append to the summary of a step, as much as GitHub still takes.

    Raises:
        OSError: The file cannot be written.
    """
    before = file.read_bytes() if file.exists() else b""
    text = ("\n" if before and not before.endswith(b"\n") else "") + markdown
    room = SUMMARY_BYTES - len(before)
    encoded = text.encode()
    if len(encoded) > room:
        kept = encoded[: max(room - len(_CUT), 0)]
        encoded = kept[: kept.rfind(b"\n") + 1] + _CUT.encode()
    if len(encoded) <= room:
        with file.open("ab") as summary:
            summary.write(encoded)


def _message(model: Mapping[str, Any], alerts: Sequence[Alert]) -> str:
    lines = [each.message for each in alerts[:MOST_LINES]]
    if len(alerts) > MOST_LINES:
        lines.append(f"and {len(alerts) - MOST_LINES} more")
    heading = f"{title(model)}: "
    return heading + "\n".join(lines).removeprefix(heading)


def _file(model: Mapping[str, Any]) -> str:
    """Return the model's path as GitHub knows it, from the root of the repository."""
    path = model.get("candidate") or model.get("model") or ""
    root = os.environ.get("GITHUB_WORKSPACE")
    if path and root:
        absolute = Path(path).absolute()
        if absolute.is_relative_to(root):
            return absolute.relative_to(root).as_posix()
    return str(path)


def _command(name: str, message: str, file: str, heading: str) -> str:
    properties = ",".join(_properties(file=file, title=heading))
    return f"::{name} {properties}::{_escaped(message)}"


def _properties(**values: str) -> Iterator[str]:
    for key, value in values.items():
        if value:
            yield f"{key}={_escaped(value).replace(':', '%3A').replace(',', '%2C')}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
