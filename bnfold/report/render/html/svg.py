"""Elements of inline SVG. Colours are classes, so that the style of the page chooses them."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

__all__ = ["element", "path", "picture", "polyline"]


def element(tag: str, *inside: str | Markup, **attributes: object) -> Markup:
    """Return one element, everything in it escaped.

    Args:
        tag: Its name.
        inside: Text, or elements.
        attributes: Underscores in names stand for hyphens; ``class_`` is ``class``. Numbers are
            rounded to hundredths.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    content = "".join(map(str, map(escape, inside)))
    return Markup(f"<{tag}{written}>{content}</{tag}>")  # noqa: S704 - escaped above


def picture(label: str, width: float, height: float, *inside: Markup, class_: str) -> Markup:
    """Return an image that readers of the screen know by its label."""
    return element(
        "svg",
        *inside,
        class_=class_,
        viewBox=f"0 0 {_plain(width)} {_plain(height)}",
        role="img",
        aria_label=label,
    )


def polyline(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """Return a line through points."""
    places = " ".join(f"{_plain(x)},{_plain(y)}" for x, y in points)
    return element("polyline", points=places, class_=class_)


def path(steps: Sequence[str], class_: str) -> Markup:
    """Return a path of SVG commands."""
    return element("path", d="".join(steps), class_=class_)


def _plain(value: object) -> str:
    return f"{round(value, 2):g}" if isinstance(value, float) else str(value)
