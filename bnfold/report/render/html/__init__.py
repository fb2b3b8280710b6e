"""Reports as one HTML file that needs nothing beside it: no network, no JavaScript to be read.

Everything that a model names is escaped, and a policy in the page itself (Content-Security-Policy)
forbids all scripts and styles but those that it was made with.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from bnfold.report.folds import REASONS
from bnfold.report.render.html import plots
from bnfold.report.render.html.views import page_of
from bnfold.report.render.text import counted, number, provider_name, readable, size

__all__ = ["to_html"]

MANY = 1000
"""Of more sites or models than this, the browser lays out those alone that are seen."""

_HERE = Path(__file__).parent / "templates"


def to_html(report: Mapping[str, Any]) -> str:
    """Return a report as one HTML page.

    Args:
        report: The object of a run, of any verb and of any number of models.
    """
    page = page_of(readable(report))
    return _environment().get_template("page.html").render(page=page)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (_HERE.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    environment.globals.update(
        MANY=MANY,
        plots=plots,
        meanings={reason.value: meaning for reason, meaning in REASONS.items()},
        # Both are files of this package, and have no end tag in them.
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        policy=(
            f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
            f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
        ),
    )
    environment.filters.update(
        number=number,
        size=size,
        provider=provider_name,
        counted=counted,
        rate=_rate,
        breakable=_breakable,
    )
    return environment


def _breakable(name: str) -> Markup:
    """Return a name, escaped, that may be broken behind its slashes."""
    return Markup("/<wbr>").join(map(escape, name.split("/")))


def _rate(value: float) -> str:
    """Return a number per second; a large one without decimals."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
