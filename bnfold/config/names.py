"""What options are called in a file and in the environment.

An option is called in a file what it is called on the command line: ``--output-dir`` is
``output-dir``, or ``output_dir``. One that may be repeated has a plural too: ``--input`` is
``input`` or ``inputs``. In the environment ``--output-dir`` of
``optimize`` is ``BNFOLD_OPTIMIZE_OUTPUT_DIR``, or ``BNFOLD_OUTPUT_DIR`` for every verb.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import click

__all__ = [
    "COMMAND_LINE_ONLY",
    "WHOLE_RUN",
    "configurable",
    "environment_names",
    "key_of",
    "keys_of",
    "nearest",
    "normalized",
    "unknown_variables",
]

COMMAND_LINE_ONLY: Mapping[str, str] = {
    "help": "it is an answer to one command",
    "config": "it says which file to read",
    "no_config": "it says which file to read",
    "output": "it names one file, for one model",
    "in_place": "a model is replaced only where the command itself says so",
    "trust_pickle": "code in a model file runs only where the command itself allows it",
}
"""Parameters that neither a file nor the environment can set, and why."""

WHOLE_RUN = frozenset(
    {"output_dir", "report_files", "output_format", "as_json", "verbose", "quiet", "statistics"}
    | {"up_to_date", "require_folded", "jobs", "resume", "scheduler"}
)
"""Parameters that mean all models of a run together: no table of single models can set them."""

_PREFIX = "BNFOLD"
_FILE_VARIABLE = f"{_PREFIX}_CONFIG"


def configurable(command: click.Command) -> list[click.Option]:
    """Return the options of a command that a file or the environment can set."""
    return [
        parameter
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name not in COMMAND_LINE_ONLY
    ]


def key_of(option: click.Option) -> str:
    """Return what an option is called in a file: its long name without the dashes."""
    return max(option.opts, key=len).lstrip("-")


def keys_of(option: click.Option) -> frozenset[str]:
    """Return everything that an option may be called in a file, normalized."""
    key = key_of(option)
    plural = f"{key}es" if key.endswith("ch") else f"{key}s"
    return frozenset({key, plural} if option.multiple else {key})


def normalized(key: str) -> str:
    """Return a key of a file with dashes for underscores."""
    return key.replace("_", "-")


def environment_names(verb: str, option: click.Option) -> list[str]:
    """Return the environment variables of an option, the one that counts first."""
    name = key_of(option).replace("-", "_").upper()
    return [f"{_PREFIX}_{verb.upper()}_{name}", f"{_PREFIX}_{name}"]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like another one, or None if none is like it."""
    import difflib  # noqa: PLC0415 - only where something is wrong

    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.5)), None)


def unknown_variables(
    environment: Mapping[str, str], commands: Mapping[str, click.Command]
) -> list[str]:
    """Return one sentence on each variable of the environment that means nothing.

    Args:
        environment: Variables; those that do not begin with ``BNFOLD_`` are not ours.
        commands: The commands that can be configured, by name.
    """
    ours = sorted(name for name in environment if name.startswith(f"{_PREFIX}_"))
    if not ours:
        return []
    known = {_FILE_VARIABLE}
    for verb, command in commands.items():
        for option in configurable(command):
            known.update(environment_names(verb, option))
    sentences = []
    for name in ours:
        if name not in known:
            like = nearest(name, known)
            advice = f"; did you mean {like}?" if like else ""
            sentences.append(f"environment variable {name} sets no option{advice}")
    return sentences
