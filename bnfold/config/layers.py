"""A file with options, read and found right: what it sets for each verb and each model.

::

    keep = ["stem/*"]                     # for every verb that has the option
    [optimize]                            # for one verb
    [models."resnet*.onnx"]               # for some models
    [models."resnet*.onnx".recalibrate]   # for one verb with these models

In ``pyproject.toml`` all of it stands under ``tool.bnfold``. The narrower table wins; among the
tables of models that fit one model, the later one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bnfold.config.find import read_document
from bnfold.config.models import matches
from bnfold.config.names import (
    COMMAND_LINE_ONLY,
    WHOLE_RUN,
    configurable,
    key_of,
    keys_of,
    nearest,
    normalized,
)
from bnfold.config.values import parameter_value
from bnfold.errors import InputError

__all__ = ["Configuration", "Setting", "read_configuration"]

_MODELS = "models"


@dataclass(frozen=True)
class Setting:
    """A value that a file gives to an option.

    Attributes:
        value: As click takes it from the command line.
        origin: The file and the table.
    """

    value: Any
    origin: str


# By verb, then by the name of the parameter. A value that a verb cannot take, but another one can,
# is an error only if nothing narrower stands in its place when that verb runs.
_Layer = dict[str, dict[str, Setting | InputError]]


@dataclass(frozen=True)
class Configuration:
    """What a file sets.

    Attributes:
        file: The file, or None where there is none and nothing is set.
    """

    file: Path | None
    _shared: _Layer
    _models: tuple[tuple[str, _Layer], ...]

    def for_verb(self, verb: str) -> dict[str, Setting]:
        """Return what is set for a verb, by the name of the parameter.

        Raises:
            InputError: A value for all verbs is none that this one can take.
        """
        return _usable(self._shared.get(verb, {}))

    def for_model(self, verb: str, model: str) -> dict[str, Setting]:
        """Return what the tables of models set for one model, by the name of the parameter.

        Args:
            verb: The command that runs.
            model: Path of the model, as given.

        Raises:
            InputError: See :meth:`for_verb`.
        """
        folder = self.file.absolute().parent if self.file else Path()
        found: dict[str, Setting | InputError] = {}
        for pattern, layer in self._models:
            if matches(pattern, model, folder):
                found |= layer.get(verb, {})
        return _usable(found)


def read_configuration(file: Path | None, commands: Mapping[str, click.Command]) -> Configuration:
    """Read a file and check all of it, whichever verb runs.

    Args:
        file: The file, or None.
        commands: The commands that can be configured, by name.

    Raises:
        InputError: The file cannot be read, has an unknown key, or a value of the wrong type.
    """
    if file is None:
        return Configuration(None, {}, ())
    document, table = read_document(file)
    reader = _Reader(file, commands, _folder(file))
    models = document.pop(_MODELS, {})
    shared = reader.layer(document, table, per_model=False)
    return Configuration(file, shared, tuple(reader.models(models, _joined(table, _MODELS))))


@dataclass(frozen=True)
class _Reader:
    """Reads the tables of one file.

    Attributes:
        file: For messages.
        commands: The commands that can be configured, by name.
        folder: What paths in the file are relative to.
    """

    file: Path
    commands: Mapping[str, click.Command]
    folder: str

    def models(self, tables: object, table: str) -> Iterator[tuple[str, _Layer]]:
        """Yield the pattern and the layer of each table of models."""
        if not isinstance(tables, dict):
            raise self._error(table, "is not a table", 'write [models."resnet*.onnx"]')
        for pattern, content in tables.items():
            name = _joined(table, f'"{pattern}"')
            if not isinstance(content, dict):
                raise self._error(
                    name, "is not a table", f'a table of models is [{table}."resnet*.onnx"]'
                )
            yield pattern, self.layer(content, name, per_model=True)

    def layer(self, content: dict[str, Any], table: str, *, per_model: bool) -> _Layer:
        """Return what a table and its tables of verbs set."""
        layer: _Layer = {verb: {} for verb in self.commands}
        verbs = {
            key: value
            for key, value in content.items()
            if key in self.commands and isinstance(value, dict)
        }
        options = {key: value for key, value in content.items() if key not in verbs}
        self._read(options, table, layer, list(self.commands), per_model=per_model)
        for verb, inner in verbs.items():
            self._read(inner, _joined(table, verb), layer, [verb], per_model=per_model)
        return layer

    def _read(
        self,
        options: dict[str, Any],
        table: str,
        layer: _Layer,
        verbs: list[str],
        *,
        per_model: bool,
    ) -> None:
        """Put the options of one table into a layer, for those of the verbs that have them."""
        seen: set[str] = set()
        for key, value in options.items():
            takers = dict(self._takers(normalized(key), verbs))
            if not takers:
                raise self._unknown(key, table, verbs)
            option = next(iter(takers.values()))
            if per_model and option.name in WHOLE_RUN:
                raise self._error(
                    table, f"'{key}' is for a run as a whole", "set it outside the tables of models"
                )
            if key_of(option) in seen:
                raise self._error(table, f"'{key_of(option)}' is set twice", "write it once")
            seen.add(key_of(option))
            problems = []
            for verb, each in takers.items():
                setting = self._setting(verb, each, key, value, table)
                layer[verb][each.name or ""] = setting
                if isinstance(setting, InputError):
                    problems.append(setting)
            if len(problems) == len(takers):
                raise problems[0]

    def _setting(
        self, verb: str, option: click.Option, key: str, value: object, table: str
    ) -> Setting | InputError:
        try:
            ready = parameter_value(self.commands[verb], option, value, self.folder)
        except ValueError as error:
            path = f"`bnfold {verb} --help`"
            return self._error(table, f"{key}: {error}", f"see --{key_of(option)} in {path}")
        return Setting(ready, self._place(table))

    def _takers(self, key: str, verbs: list[str]) -> Iterator[tuple[str, click.Option]]:
        for verb in verbs:
            for option in configurable(self.commands[verb]):
                if key in keys_of(option):
                    yield verb, option

    def _unknown(self, key: str, table: str, verbs: list[str]) -> InputError:
        """Return the error for a key that none of the verbs takes."""
        for verb in verbs:
            for option in self.commands[verb].params:
                why = COMMAND_LINE_ONLY.get(option.name or "")
                if isinstance(option, click.Option) and normalized(key) == key_of(option) and why:
                    return self._error(
                        table, f"'{key}' cannot be set in a file: {why}", "give it as an option"
                    )
        elsewhere = [verb for verb, _ in self._takers(normalized(key), list(self.commands))]
        if elsewhere:
            return self._error(
                table, f"unknown key '{key}'", f"it is an option of {', '.join(elsewhere)}"
            )
        whole = len(verbs) > 1
        if whole and key in self.commands:
            return self._error(table, f"'{key}' is a command", f"write [{_joined(table, key)}]")
        known = {key_of(option) for verb in verbs for option in configurable(self.commands[verb])}
        like = nearest(normalized(key), known | ({*self.commands, _MODELS} if whole else set()))
        if whole and key == "tool":
            advice = "only in pyproject.toml do the tables begin with tool.bnfold"
        elif like:
            advice = f"did you mean '{like}'?"
        else:
            advice = "see `bnfold config` for all of them"
        return self._error(table, f"unknown key '{key}'", advice)

    def _error(self, table: str, problem: str, hint: str) -> InputError:
        return InputError(f"{self._place(table)}: {problem}", hint=hint)

    def _place(self, table: str) -> str:
        return f"{self.file} [{table}]" if table else str(self.file)


def _usable(settings: Mapping[str, Setting | InputError]) -> dict[str, Setting]:
    found = {}
    for name, setting in settings.items():
        if isinstance(setting, InputError):
            raise setting
        found[name] = setting
    return found


def _joined(table: str, name: str) -> str:
    return f"{table}.{name}" if table else name


def _folder(file: Path) -> str:
    """Return the folder of a file as seen from here, so that messages show short paths."""
    try:
        return os.path.relpath(file.absolute().parent)
    except ValueError:  # another drive
        return str(file.absolute().parent)
