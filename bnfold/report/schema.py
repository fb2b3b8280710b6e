"""The JSON form of reports: its version, and the schema that every one of them obeys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["SCHEMA_VERSION", "json_schema"]

SCHEMA_VERSION = 1
"""Within one version, keys are only ever added."""


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of everything that ``--json`` prints."""
    text = Path(__file__).with_name("schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
