"""SVG elements with everything in them escaped, and scales that say where a value is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Where a value is between two places of a drawing; `log` for values above 0 that span magnitudes."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        share = (at - low) / ((high - low) or 1)
        return round(self.start + share * (self.end - self.start), 1)

    def inside(self, value: float) -> float:
        """The place of the nearest value on the scale."""
        return self(max(self.low, min(self.high, value)))


def element(name: str, *children: object, **attributes: object) -> Markup:
    """`class_` is written class, `stroke_width` stroke-width; an attribute that is None is left out."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), f"{value:g}" if type(value) is float else value)
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(escape(child) for child in children)
    return Markup("<{}{}>{}</{}>").format(Markup(name), written, inside, Markup(name))


def drawing(width: float, height: float, *children: object, label: str, class_: str | None = None) -> Markup:
    """A whole drawing; `label` is how it is read aloud."""
    size = {"viewBox": f"0 0 {width:g} {height:g}", "width": f"{width:g}", "height": f"{height:g}"}
    return element("svg", *children, **size, role="img", aria_label=label, class_=class_)


def text(x: float, y: float, words: object, *, anchor: str = "start", class_: str | None = None) -> Markup:
    return element("text", words, x=x, y=y, text_anchor=anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def box(
    x: float, y: float, width: float, height: float, class_: str, *children: object, rx: int | None = None
) -> Markup:
    size = {"width": round(max(0.0, width), 1), "height": round(max(0.0, height), 1)}
    return element("rect", *children, x=round(x, 1), y=round(y, 1), **size, rx=rx, class_=class_)


def mark(x: float, y: float, look: str) -> Markup:
    """A circle for ours, a square for theirs: the two differ without their colours."""
    if look == "theirs":
        return box(x - 3, y - 3, 6, 6, "mark theirs")
    return element("circle", cx=x, cy=y, r=3.2, class_=f"mark {look}")


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, about `count` of them."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / count))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if span / (size * power) <= count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of every magnitude, from at or below `low` to at or above `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    round_ones = [round(size * 10.0**power, 12) for power in powers for size in (1, 2, 5)]
    first = max(each for each in round_ones if each <= low * 1.0001)
    last = min(each for each in round_ones if each >= high * 0.9999)
    return [each for each in round_ones if first <= each <= last]


def short(value: float) -> str:
    """A tick's number: 1500000 -> 1.5M."""
    for size, sign, unit in ((1e9, "B", 1e9), (1e6, "M", 1e6), (1e4, "k", 1e3)):
        if abs(value) >= size:
            return f"{value / unit:.3g}{sign}"
    return f"{value:g}"


def thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most about `most` of the points, evenly spaced, the last among them."""
    step = math.ceil(len(points) / most) if points else 1
    return [*points[:-1:step], *points[-1:]]
