"""Optimization levels of ONNX Runtime, for commands that have not loaded it."""

from __future__ import annotations

__all__ = ["LEVELS"]

LEVELS = {
    "disable_all": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "default": "ORT_ENABLE_ALL",
}
"""What the runtime calls each level; ``default`` is the one that it takes unasked."""
