"""A caller's own tolerances for single outputs, from a file or as they are.

A file is JSON or TOML, the rules by output name or pattern::

    {"logits": {"rtol": 1e-3, "atol": 1e-5}, "boxes_*": {"rtol": 0, "atol": 0.5}, "*": {...}}

An output takes the rule under its own name, else the first pattern in the file that matches it. An
output without a rule is judged as if there were no file.
"""

from __future__ import annotations

import fnmatch
import json
import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnfold.check.verdict.compare import Tolerance
from bnfold.errors import InputError

__all__ = ["load_tolerances"]

_KEYS = ("rtol", "atol")
_EXAMPLE = 'write {"output": {"rtol": 1e-3, "atol": 1e-5}}'


def load_tolerances(
    source: str | os.PathLike[str] | Mapping[str, Any], outputs: Sequence[str]
) -> dict[str, Tolerance]:
    """Read the rules, and find the one for each output.

    Args:
        source: A ``.json`` or ``.toml`` file, or the rules themselves.
        outputs: Names of the model's outputs.

    Returns:
        A tolerance by output name; outputs without a rule are left out.

    Raises:
        InputError: The file cannot be read, a rule is not one, or a name is no output's.
    """
    if isinstance(source, Mapping):
        label, content = "tolerances", source
    else:
        label, content = str(Path(source)), _read(Path(source))
    rules = {name: _tolerance(label, name, rule) for name, rule in content.items()}
    for name in rules:
        if name not in outputs and name != "*" and not fnmatch.filter(outputs, name):
            listed = ", ".join(f"'{output}'" for output in outputs) or "none"
            raise InputError(
                f"{label}: the model has no output '{name}'", hint=f"outputs of the model: {listed}"
            )
    found = {}
    for output in outputs:
        rule = rules.get(output) or next(
            (rule for name, rule in rules.items() if fnmatch.fnmatchcase(output, name)), None
        )
        if rule is not None:
            found[output] = rule
    return found


def _read(file: Path) -> Mapping[str, Any]:
    suffix = file.suffix.lower()
    if suffix not in {".json", ".toml"}:
        raise InputError(f"{file}: unknown kind of tolerances", hint="give a .json or .toml file")
    try:
        content = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file", hint="give a .json or .toml file") from error
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise InputError(f"{file}: cannot be read: {why.lower()}") from error
    try:
        rules = tomllib.loads(content) if suffix == ".toml" else _parse_json(content)
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise InputError(
            f"{file}: not valid {suffix[1:].upper()} ({why})", hint=_EXAMPLE
        ) from error
    if not isinstance(rules, dict):
        raise InputError(f"{file}: no rules by output name", hint=_EXAMPLE)
    return rules


def _parse_json(content: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise ValueError(f"'{name}' is there twice")
            found[name] = value
        return found

    return json.loads(content, object_pairs_hook=unique)


def _tolerance(label: str, name: str, rule: object) -> Tolerance:
    where = f"{label}: '{name}'"
    if not isinstance(rule, dict) or not rule:
        raise InputError(f"{where} has no rtol and atol", hint=_EXAMPLE)
    unknown = next((key for key in rule if key not in _KEYS), None)
    if unknown is not None:
        raise InputError(f"{where} has an unknown entry '{unknown}'", hint="use rtol and atol")
    missing = next((key for key in _KEYS if key not in rule), None)
    if missing is not None:
        raise InputError(f"{where} has no {missing}", hint="give both; 0 where one does not count")
    rtol, atol = (_number(where, key, rule[key]) for key in _KEYS)
    return Tolerance(rtol, atol)


def _number(where: str, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}: {key} is {value!r}, not a number", hint=_EXAMPLE)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and number >= 0):
        raise InputError(f"{where}: {key} is {number}", hint="tolerances are finite, 0 or more")
    return number
