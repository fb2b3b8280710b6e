"""The plots of a report, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from bnfold.report.render.html.svg import element, path, picture, polyline
from bnfold.report.render.text import counted, number

__all__ = ["LogScale", "bars", "error_curve", "gauge", "span", "sparkline", "whiskers"]

_FLOOR = 1e-300


@dataclass(frozen=True)
class LogScale:
    """Maps positive numbers to lengths; what is not finite lies at the end, zero at the start.

    Attributes:
        low: What is mapped to ``start``.
        high: What is mapped to ``stop``.
        start: A coordinate.
        stop: Another one, on either side of it.
    """

    low: float
    high: float
    start: float
    stop: float

    @classmethod
    def over(
        cls, values: Iterable[float | None], start: float, stop: float, margin: float = 2.0
    ) -> LogScale:
        """Return the scale on which all positive values have a place.

        Args:
            values: Numbers; None for what is not finite.
            start: Coordinate of the low end.
            stop: Coordinate of the high end.
            margin: Factor by which it goes on at both ends.
        """
        placed = [value for value in values if value is not None and value > _FLOOR]
        low, high = min(placed, default=1.0), max(placed, default=1.0)
        return cls(low / margin, high * margin, start, stop)

    def __call__(self, value: float | None) -> float:
        """Return the coordinate of a value."""
        if value is None:
            return self.stop
        if value <= self.low:
            return self.start
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + min(share, 1.0) * (self.stop - self.start)

    def decades(self, most: int = 8) -> list[int]:
        """Return the powers of ten on the scale, thinned out where there are many."""
        first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
        step = max(1, math.ceil((last - first + 1) / most))
        return list(range(first, last + 1, step))


def gauge(output: Mapping[str, Any], scale: LogScale) -> Markup:
    """Return how far an output is from the reference, beside its noise and what is allowed.

    Args:
        output: One of ``outputs`` of a check.
        scale: From 0 to 220.
    """
    difference, noise, allowed = output["difference"], output["noise"], output["allowed"]
    limit = scale(allowed)
    verdict = "good" if output["equivalent"] else "bad"
    label = f"D {number(difference)}, noise {number(noise)}, allowed {number(allowed)}"
    return picture(
        label,
        220.0,
        18.0,
        element("title", label),
        element("rect", x=0, y=6, width=limit, height=6, rx=3, class_="allowed"),
        element("rect", x=limit, y=6, width=220.0 - limit, height=6, rx=3, class_="beyond"),
        element("rect", x=scale(noise) - 1, y=2, width=2, height=14, class_="noise"),
        element("circle", cx=min(max(scale(difference), 5.0), 215.0), cy=9, r=5, class_=verdict),
        class_="gauge",
    )


def bars(values: Sequence[float], *, label: str, classes: Sequence[str]) -> Markup:
    """Return bars one below the other.

    Args:
        values: Lengths, from 0 to 1.
        label: What they show.
        classes: Of each bar.
    """
    height = 7.0
    return picture(
        label,
        180.0,
        height * len(values) + 2,
        *(
            element(
                "rect", x=0, y=1 + height * row, width=180 * value, height=5, rx=1.5, class_=class_
            )
            for row, (value, class_) in enumerate(zip(values, classes, strict=True))
        ),
        class_="bars",
    )


def sparkline(histogram: Mapping[str, Any], what: str) -> Markup:
    """Return a histogram the size of a word.

    Args:
        histogram: ``scale`` or ``variance`` of the histograms of a normalization.
        what: Its name.
    """
    width, height = 96.0, 26.0
    counts = histogram["counts"]
    step, most = width / len(counts), max(counts)
    low, high = span(histogram)
    label = f"{what} of {counted(sum(counts), 'channel')}: {low:.3g} to {high:.3g}"
    if histogram["others"]:
        label += f", {histogram['others']} without a place"
    steps = [
        f"M{step * at + 0.5:.1f} {height:g}v{-height * count / most:.1f}h{step - 1:.1f}V{height:g}z"
        for at, count in enumerate(counts)
        if count
    ]
    title = element("title", label)
    return picture(label, width, height, title, path(steps, "bin"), class_="sparkline")


def span(histogram: Mapping[str, Any]) -> tuple[float, float]:
    """Return the smallest and the largest value of a histogram."""
    ends = histogram["low"], histogram["high"]
    return (10.0 ** ends[0], 10.0 ** ends[1]) if histogram["log10"] else ends


def whiskers(latency: Mapping[str, Any], longest: float) -> Markup:
    """Return the median of a latency and its 5 % to 95 % range.

    Args:
        latency: ``latency_ms`` of a speed.
        longest: The latency at the right end; the left one is 0.
    """
    low, middle, high = (10 + 200 * latency[key] / longest for key in ("p5", "median", "p95"))
    label = f"{latency['median']:.3g} ms, from {latency['p5']:.3g} to {latency['p95']:.3g} ms"
    return picture(
        label,
        220.0,
        18.0,
        element("title", label),
        element("rect", x=10, y=8.5, width=200, height=1, class_="axis"),
        element("rect", x=low, y=6, width=max(high - low, 1.0), height=6, rx=3, class_="range"),
        element("circle", cx=middle, cy=9, r=5, class_="middle"),
        class_="gauge",
    )


def error_curve(layers: Sequence[Mapping[str, Any]], first: Mapping[str, Any] | None) -> Markup:
    """Return the difference and the noise of every layer, in the order of the model.

    Args:
        layers: ``layers`` of a localization, at least one.
        first: Its ``first``, or None.
    """
    width, height, left, bottom, top = 960.0, 300.0, 56.0, 268.0, 14.0
    keys = ("difference", "noise", "allowed")
    scale = LogScale.over((layer[key] for layer in layers for key in keys), bottom, top)
    step = (width - left - 16) / max(len(layers) - 1, 1)

    def at(position: int) -> float:
        return left + 4 + step * position

    parts = [*_grid(scale, left, width), *_positions(len(layers), at, bottom)]
    parts += [
        polyline([(at(i), scale(each[key])) for i, each in enumerate(layers)], key)
        for key in reversed(keys)
    ]
    for position, layer in enumerate(layers):
        if layer["beyond"]:
            text = f"{layer['tensor']}: D {number(layer['difference'])}, beyond noise"
            spot = {"cx": at(position), "cy": scale(layer["difference"])}
            parts.append(element("circle", element("title", text), **spot, r=3.5, class_="bad"))
    if first is not None and first in layers:
        place = at(layers.index(first))
        end = place > width / 2
        parts.append(element("line", x1=place, x2=place, y1=top, y2=bottom, class_="first"))
        parts.append(
            element(
                "text",
                "first difference",
                x=place + (-6 if end else 6),
                y=top + 10,
                text_anchor="end" if end else "start",
                class_="first",
            )
        )
    label = f"Difference and noise of {counted(len(layers), 'layer')}, logarithmic"
    return picture(label, width, height, *parts, class_="curve")


def _grid(scale: LogScale, left: float, width: float) -> Iterable[Markup]:
    for power in scale.decades():
        y = scale(10.0**power)
        yield element("line", x1=left, x2=width - 8, y1=y, y2=y, class_="grid")
        yield element("text", f"1e{power}", x=left - 6, y=y + 4, text_anchor="end")


def _positions(count: int, at: Any, bottom: float) -> Iterable[Markup]:
    for position in sorted({0, count // 4, count // 2, 3 * count // 4, count - 1}):
        yield element(
            "text", str(position + 1), x=at(position), y=bottom + 18, text_anchor="middle"
        )
