"""Small SVG drawings whose colours come from the page's style, so that they are right in light and in dark.

A drawing that is wider than a phone is made twice, and the style shows the one that fits: text keeps its size that way,
which scaling would not let it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

WIDE, NARROW = 720, 340
HEIGHT = 280
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 44

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points with a name; `look` is a class of the style: ours, theirs, or other."""

    name: str
    points: Sequence[Point]
    look: str
    line: bool = False
    marks: bool = False


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Where a value lies on the page."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1)
        return round(self.start + share * (self.end - self.start), 1)


def element(name: str, *children: object, **attributes: object) -> Markup:
    """An SVG element with everything in it escaped; `class_` is written class, and `stroke_width` stroke-width."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value)
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(escape(child) for child in children)
    return Markup("<{}{}>{}</{}>").format(Markup(name), written, inside, Markup(name))


def drawing(width: float, height: float, *children: object, label: str, class_: str | None = None) -> Markup:
    return element(
        "svg",
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        width=f"{width:g}",
        height=f"{height:g}",
        role="img",
        aria_label=label,
        class_=class_,
    )


def both(draw: Callable[[float, str], Markup]) -> Markup:
    return draw(WIDE, "wide") + draw(NARROW, "narrow")


def text(x: float, y: float, words: object, *, anchor: str = "start", class_: str | None = None) -> Markup:
    return element("text", words, x=x, y=y, text_anchor=anchor, class_=class_)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, about `count` of them."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / max(1, count)))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if span / (size * power) <= count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


def short(value: float) -> str:
    """A tick's number: 1500000 -> 1.5M."""
    for size, sign in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if sign == 'k' else size):.3g}{sign}"
    return f"{value:g}"


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` of the points, evenly taken, the last among them."""
    step = math.ceil(len(points) / most) if points else 1
    return [*points[:-1:step], *points[-1:]]


def curves(
    series: Sequence[Series],
    *,
    x_title: str,
    y_title: str,
    label: str,
    top: Callable[[float], str] | None,
    top_title: str,
) -> Markup:
    """Lines over a shared x axis; `top` gives what the second scale above says at a place of the first."""
    points = [point for each in series for point in each.points]
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points), 5)
    last = max(x for x, _ in points)

    def draw(width: float, class_: str) -> Markup:
        x_ticks = [tick for tick in ticks(0, last, 6 if width == WIDE else 4) if tick <= last * 1.0001]
        head = 54 if top else TOP
        x = Scale(low=0, high=last or 1, start=LEFT, end=width - RIGHT - 8)
        y = Scale(low=y_ticks[0], high=y_ticks[-1], start=HEIGHT - BOTTOM, end=head)
        parts = [*y_grid(y_ticks, x, y), *x_axis(x_ticks, x, y, x_title)]
        if top:
            parts += [text(x(tick), head - 10, top(tick), anchor="middle") for tick in x_ticks]
            parts.append(text((x.start + x.end) / 2, head - 30, top_title, anchor="middle", class_="axis"))
        for each in series:
            kept = [(x(a), y(b)) for a, b in thinned(each.points, 500)]
            if each.line:
                path = " ".join(f"{a:g},{b:g}" for a, b in kept)
                parts.append(element("polyline", points=path, class_=f"line {each.look}"))
            if each.marks:
                parts += [mark(a, b, each.look) for a, b in kept[-60:]]
        parts.append(
            text(4, head - 30 if top else 8, y_title, class_="axis") if width == NARROW and not top else Markup("")
        )
        return drawing(width, HEIGHT, *parts, label=label, class_=class_)

    return both(draw)


def y_grid(values: Sequence[float], x: Scale, y: Scale) -> list[Markup]:
    lines = [element("line", x1=x.start, x2=x.end, y1=y(value), y2=y(value), class_="grid") for value in values]
    return lines + [text(x.start - 8, y(value) + 4, short(value), anchor="end") for value in values]


def x_axis(values: Sequence[float], x: Scale, y: Scale, title: str) -> list[Markup]:
    bottom = y.start
    return [
        element("line", x1=x.start, x2=x.end, y1=bottom, y2=bottom, class_="base"),
        *(text(x(value), bottom + 18, short(value), anchor="middle") for value in values),
        text((x.start + x.end) / 2, bottom + 38, title, anchor="middle", class_="axis"),
    ]


def mark(x: float, y: float, look: str) -> Markup:
    """A circle for ours, a square for theirs: the two differ without their colours."""
    if look == "theirs":
        return element("rect", x=round(x - 3, 1), y=round(y - 3, 1), width=6, height=6, class_="mark theirs")
    return element("circle", cx=x, cy=y, r=3.2, class_=f"mark {look}")


def scatter(
    series: Sequence[Series], *, x_title: str, label: str, x_high: float | None = None, diagonal: bool = False
) -> Markup:
    """Points over scores from 0 to 100."""
    xs = [x for each in series for x, _ in each.points]
    high = x_high or max(xs, default=1)

    def draw(width: float, class_: str) -> Markup:
        x_ticks = ticks(0, high, 6 if width == WIDE else 4)
        x = Scale(low=0, high=x_ticks[-1], start=LEFT, end=width - RIGHT - 8)
        y = Scale(low=0, high=100, start=HEIGHT - BOTTOM, end=TOP)
        parts = [*y_grid([0, 25, 50, 75, 100], x, y), *x_axis(x_ticks, x, y, x_title)]
        if diagonal:
            parts.append(element("line", x1=x(0), y1=y(0), x2=x(100), y2=y(100), class_="diagonal"))
        parts += [mark(x(a), y(b), each.look) for each in series for a, b in thinned(each.points, 600)]
        return drawing(width, HEIGHT, *parts, label=label, class_=class_ + " cloud")

    return both(draw)


def histogram(
    scores: dict[str, Sequence[float]], failures: dict[str, int], looks: dict[str, str], *, label: str
) -> Markup:
    """Ten bins of scores from 0 to 100, side by side for each system, and failures as a bar of their own."""
    bins = {name: [0] * 10 for name in scores}
    for name, values in scores.items():
        for value in values:
            bins[name][min(9, int(value // 10))] += 1
    highest = max([count for counts in bins.values() for count in counts] + list(failures.values()) + [1])
    y_ticks = [tick for tick in ticks(0, highest, 5) if tick == int(tick)]

    def draw(width: float, class_: str) -> Markup:
        gap = 26 if width == NARROW else 44
        slot = (width - LEFT - RIGHT - gap) / 11
        x = Scale(low=0, high=100, start=LEFT, end=LEFT + 10 * slot)
        y = Scale(low=0, high=y_ticks[-1], start=HEIGHT - BOTTOM, end=TOP + 8)
        parts = [*y_grid(y_ticks, Scale(low=0, high=1, start=LEFT, end=width - RIGHT), y)]
        parts += x_axis([0, 20, 40, 60, 80, 100], x, y, "judge's score")
        bar = slot * 0.86 / max(1, len(scores))
        for place, name in enumerate(scores):
            columns = [*enumerate(bins[name]), (10, failures.get(name, 0))]
            for number, count in columns:
                start = LEFT + number * slot + slot * 0.07 + place * bar + (gap if number == 10 else 0)
                what = (
                    f"{name}: {count} failed"
                    if number == 10
                    else f"{name}: {count} from {number * 10} to {number * 10 + 10}"
                )
                look = "failed" if number == 10 else looks[name]
                if count:
                    parts.append(
                        element(
                            "rect",
                            element("title", what),
                            x=round(start, 1),
                            y=y(count),
                            width=round(max(1, bar - 1), 1),
                            height=round(y.start - y(count), 1),
                            class_=f"bar {look}",
                        )
                    )
                if number == 10:
                    parts.append(text(round(start + bar / 2, 1), y(count) - 4, count, anchor="middle", class_="small"))
        middle = LEFT + 10.5 * slot + gap
        parts.append(text(min(middle, width - 22), y.start + 18, "failed", anchor="middle", class_="failed"))
        return drawing(width, HEIGHT, *parts, label=label, class_=class_)

    return both(draw)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A value with its interval, to be drawn on a strip."""

    look: str
    value: float | None
    ci95: tuple[float, float] | None


def strip(measures: Sequence[Measure], *, low: float, high: float, chance: float | None = None, label: str) -> Markup:
    """Values with their intervals one below the other on one scale; a dashed line where guessing would be."""
    width, row = 200, 14
    height = row * len(measures) + 6
    x = Scale(low=low, high=high, start=4, end=width - 4)
    parts: list[Any] = [element("line", x1=4, x2=4, y1=0, y2=height, class_="base")]
    if chance is not None:
        parts.append(
            element(
                "line",
                element("title", f"guessing: {chance:g}"),
                x1=x(chance),
                x2=x(chance),
                y1=0,
                y2=height,
                class_="chance",
            )
        )
    for number, each in enumerate(measures):
        y = 3 + row * number + row / 2
        if each.value is None:
            parts.append(text(10, y + 4, "withheld", class_="failed small"))
            continue
        parts.append(
            element(
                "rect",
                x=4,
                y=y - 4,
                width=max(0, round(x(each.value) - 4, 1)),
                height=8,
                class_=f"bar soft {each.look}",
            )
        )
        parts += whisker(x, y, each, cap=3)
        parts.append(mark(x(each.value), y, each.look))
    return drawing(width, height, *parts, label=label, class_="strip")


def shares(counts: Sequence[tuple[str, int]], *, label: str) -> Markup:
    """Parts of a whole as one bar: (look, count) from left to right."""
    width, height = 320, 18
    total = sum(count for _, count in counts) or 1
    parts, start = [], 0.0
    for look, count in counts:
        size = count / total * width
        if count:
            parts.append(
                element(
                    "rect",
                    x=round(start, 1),
                    y=0,
                    width=round(max(0.5, size - 1), 1),
                    height=height,
                    class_=f"bar {look}",
                )
            )
        start += size
    return drawing(width, height, *parts, label=label, class_="shares")


def bars(measures: Sequence[tuple[str, str, Measure]], *, low: float, high: float, label: str) -> Markup:
    """A bar with its interval for each (name, figure, measure), large: the drawing of the headline."""
    row, ends = 34, ticks(low, high, 4)

    def draw(width: float, class_: str) -> Markup:
        beside = width == WIDE
        start = 110 if beside else 2
        pitch = row if beside else row + 16
        x = Scale(low=ends[0], high=ends[-1], start=start, end=width - 64)
        bottom = pitch * len(measures) + 4
        parts: list[Any] = [text(x(end), bottom + 18, short(end), anchor="middle" if end else "start") for end in ends]
        for number, (name, figure, each) in enumerate(measures):
            y = number * pitch + (row / 2 if beside else row)
            parts.append(text(0, y + 5 if beside else y - 16, name, class_="name"))
            parts.append(element("rect", x=start, y=y - 9, width=x.end - start, height=18, rx=3, class_="track"))
            if each.value is None:
                parts.append(text(start + 8, y + 5, "withheld", class_="failed"))
                continue
            length = round(max(0, x(each.value) - start), 1)
            parts.append(
                element("rect", x=start, y=y - 9, width=length, height=18, rx=3, class_=f"bar soft {each.look}")
            )
            parts += whisker(x, y, each, cap=5)
            parts.append(mark(x(each.value), y, each.look))
            parts.append(text(width, y + 5, figure, anchor="end", class_="figure"))
        return drawing(width, bottom + 24, *parts, label=label, class_=class_)

    return both(draw)


def whisker(x: Scale, y: float, measure: Measure, *, cap: float) -> list[Markup]:
    """The interval as a line with two ends, kept inside the scale."""
    if measure.ci95 is None:
        return []
    a, b = (x(max(x.low, min(x.high, end))) for end in measure.ci95)
    look = f"whisker {measure.look}"
    upright = [element("line", x1=end, x2=end, y1=y - cap, y2=y + cap, class_=look) for end in (a, b)]
    return [element("line", x1=a, x2=b, y1=y, y2=y, class_=look), *upright]
