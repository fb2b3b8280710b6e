"""Reports as JSON: the dictionary itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["to_json"]


def to_json(report: Mapping[str, Any]) -> str:
    """Return the JSON text of an object, indented, with a line break at its end."""
    return json.dumps(report, indent=2, allow_nan=False) + "\n"
