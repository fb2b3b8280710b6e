"""A report in the forms that people and programs read, all made from the one dictionary.

The dictionary is what ``--json`` prints. Nothing here looks at anything else.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bnfold.errors import MissingPackageError

__all__ = ["FORMS", "Form", "render", "require"]


@dataclass(frozen=True)
class Form:
    """One form of a report.

    Attributes:
        home: The module of its function.
        function: Takes the dictionary, returns the text.
        package: What it is made with, where bnfold itself does not need that; or None.
    """

    home: str
    function: str
    package: str | None = None


FORMS = {
    ".json": Form("bnfold.report.render.json", "to_json"),
    ".md": Form("bnfold.report.render.markdown", "to_markdown"),
    ".xml": Form("bnfold.report.render.junit", "to_junit", "junitparser"),
    ".html": Form("bnfold.report.render.html", "to_html", "jinja2"),
}
"""Every form, by the suffix of its files."""


def require(suffix: str) -> None:
    """Make sure that reports of a form can be made.

    Args:
        suffix: A key of `FORMS`.

    Raises:
        MissingPackageError: A package is not installed.
    """
    package = FORMS[suffix].package
    if package is None:
        return
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise MissingPackageError(
            f"{suffix} reports need the package '{package}', which is not installed",
            hint="pip install 'bnfold[report]'",
        ) from error


def render(report: Mapping[str, Any], suffix: str) -> str:
    """Return a report as text.

    Args:
        report: The object of a run, of any verb and of any number of models.
        suffix: A key of `FORMS`.

    Raises:
        MissingPackageError: A package is not installed.
    """
    require(suffix)
    form = FORMS[suffix]
    text = getattr(importlib.import_module(form.home), form.function)(report)
    return str(text)
