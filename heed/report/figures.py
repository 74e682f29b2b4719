"""The report's drawings, whose colours come from the page's style, so that they are right in light and in dark.

A drawing scales with the page; on a phone, where it would be small, the style makes its text larger and its lines
thicker, and there is room left for that.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from heed.report.svg import Scale, box, drawing, element, line, log_ticks, mark, short, text, thinned, ticks

WIDE, HALF = 860, 470
HEIGHT, TALL = 310, 350
LEFT, RIGHT, TOP, BOTTOM = 60, 28, 14, 62
TICK, TITLE = 24, 54  # below the axis
MOST_POINTS = 600
LOG_FROM = 8
"""Losses that fall to less than an eighth are drawn on a log scale; else their end would be one flat line."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points with a name; `look` is a class of the style: ours, theirs, or other."""

    name: str
    points: Sequence[tuple[float, float]]
    look: str
    marks: bool = False


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A value with its interval; where there is none, `absent` says why."""

    look: str
    value: float | None
    ci95: tuple[float, float] | None
    absent: str = ""


def on_log_scale(series: Sequence[Series]) -> bool:
    values = [y for each in series for _, y in each.points]
    return min(values) > 0 and max(values) > LOG_FROM * min(values)


def curves(
    series: Sequence[Series], *, top: Callable[[float], str] | None, label: str, x_title: str = "epochs"
) -> Markup:
    """Losses over epochs or `x_title`; `top` gives the tokens that were seen at an epoch, for a second scale above."""
    values = [y for each in series for _, y in each.points]
    last = max(x for each in series for x, _ in each.points)
    log = on_log_scale(series)
    y_ticks = log_ticks(min(values), max(values)) if log else ticks(min(values), max(values), 5)

    x_ticks = [tick for tick in ticks(0, last, 6) if tick <= last * 1.0001]
    x = Scale(low=0, high=last or 1, start=LEFT, end=WIDE - 2 * RIGHT)  # the last tick's tokens reach further
    y = Scale(low=y_ticks[0], high=y_ticks[-1], start=TALL - BOTTOM, end=74 if top else TOP, log=log)
    parts = [*y_axis(y_ticks, x, y), *x_axis(x_ticks, x, y, x_title)]
    if top:
        parts += [text(x(tick), y.end - 12, top(tick), anchor="middle") for tick in x_ticks]
        parts.append(text((x.start + x.end) / 2, y.end - 44, "tokens seen, padding not counted", anchor="middle"))
    for each in series:
        kept = [(x(a), y(b)) for a, b in thinned(each.points, MOST_POINTS)]
        path = " ".join(f"{a:g},{b:g}" for a, b in kept)
        parts.append(element("polyline", points=path, class_=f"line {each.look}"))
        if each.marks and len(kept) <= 60:  # more would hide the line
            parts += [mark(a, b, each.look) for a, b in kept]
    return drawing(WIDE, TALL, *parts, label=label, class_="wide")


def y_axis(values: Sequence[float], x: Scale, y: Scale) -> list[Markup]:
    lines = [line(x.start, y(value), x.end, y(value), "grid") for value in values]
    return lines + [text(x.start - 8, y(value) + 4, short(value), anchor="end") for value in values]


def x_axis(values: Sequence[float], x: Scale, y: Scale, title: str) -> list[Markup]:
    return [
        line(x.start, y.start, x.end, y.start, "base"),
        *(text(x(value), y.start + TICK, short(value), anchor="middle") for value in values),
        text((x.start + x.end) / 2, y.start + TITLE, title, anchor="middle"),
    ]


def scatter(
    series: Sequence[Series],
    *,
    x_title: str,
    label: str,
    x_high: float | None = None,
    y_low: float = 0,
    y_high: float = 100,
    diagonal: bool = False,
) -> Markup:
    """Points whose y is a score; `diagonal` draws where x and y are equal."""
    high = x_high or max((x for each in series for x, _ in each.points), default=1)

    x_ticks = ticks(0, high, 4)
    x = Scale(low=0, high=x_ticks[-1], start=LEFT, end=HALF - RIGHT)
    y_ticks = ticks(y_low, y_high, 4)
    y = Scale(low=y_ticks[0], high=y_ticks[-1], start=HEIGHT - BOTTOM, end=TOP)
    parts = [*y_axis(y_ticks, x, y), *x_axis(x_ticks, x, y, x_title)]
    if diagonal:
        parts.append(line(x(0), y(0), x(100), y(100), "diagonal"))
    parts += [mark(x(a), y(b), each.look) for each in series for a, b in thinned(each.points, MOST_POINTS)]
    return drawing(HALF, HEIGHT, *parts, label=label, class_="cloud")


def histogram(
    scores: Mapping[str, Sequence[float]], failures: Mapping[str, int], looks: Mapping[str, str], *, label: str
) -> Markup:
    """Ten bins of scores from 0 to 100, side by side for each system, and failures as a separate bar."""
    bins = {name: binned(values) for name, values in scores.items()}
    highest = max([1, *failures.values(), *(count for counts in bins.values() for count in counts)])
    y_ticks = [tick for tick in ticks(0, highest, 5) if tick == int(tick)]

    gap = 28
    slot = (HALF - LEFT - RIGHT - gap) / 11
    bar = slot * 0.86 / max(1, len(scores))
    x = Scale(low=0, high=100, start=LEFT, end=LEFT + 10 * slot)
    y = Scale(low=0, high=y_ticks[-1], start=HEIGHT - BOTTOM, end=TOP + 8)
    parts = [*y_axis(y_ticks, Scale(low=0, high=1, start=LEFT, end=HALF - RIGHT), y)]
    parts += x_axis([0, 20, 40, 60, 80, 100], x, y, "judge's score")

    def column(start: float, count: int, look: str, what: str) -> Markup:
        top = y(count)
        return box(start, top, bar - 1, y.start - top, f"bar {look}", element("title", what))

    for place, name in enumerate(scores):
        inset = LEFT + slot * 0.07 + place * bar
        for number, count in enumerate(bins[name]):
            if count:
                what = f"{name}: {count} from {number * 10} to {number * 10 + 10}"
                parts.append(column(inset + number * slot, count, looks[name], what))
        start, failed = inset + 10 * slot + gap, failures[name]
        if failed:
            parts.append(column(start, failed, "failed", f"{name}: {failed} failed"))
        parts.append(text(round(start + bar / 2, 1), y(failed) - 4, failed, anchor="middle", class_="small"))
    middle = round(LEFT + 10.5 * slot + gap, 1)
    parts.append(text(middle, y.start + TICK, "failed", anchor="middle", class_="failed"))
    return drawing(HALF, HEIGHT, *parts, label=label)


def binned(values: Sequence[float]) -> list[int]:
    bins = [0] * 10
    for value in values:
        bins[min(9, int(value // 10))] += 1
    return bins


def strip(
    measures: Sequence[Measure], *, low: float, high: float, label: str, chance: float | None = None, bars: bool = True
) -> Markup:
    """Values with their intervals one below the other on one scale; a dashed line where guessing would be.

    `bars` is False for a scale on which 0 means nothing, such as ratings.
    """
    width, row = 200, 14
    height = row * len(measures) + 6
    x = Scale(low=low, high=high, start=4, end=width - 4)
    zero = x.inside(0)
    parts = [line(zero, 0, zero, height, "base")]
    if chance is not None:
        parts.append(line(x(chance), 0, x(chance), height, "chance"))
    for number, each in enumerate(measures):
        drawn = bar_with_interval(each, x, y=3 + row * number + row / 2, thickness=8)
        parts += drawn if bars or each.value is None else drawn[1:]
    return drawing(width, height, *parts, label=label, class_="strip")


def bar_with_interval(measure: Measure, x: Scale, *, y: float, thickness: float) -> list[Markup]:
    zero = x.inside(0)
    if measure.value is None:
        return [text(zero + 8, y + 4, measure.absent, class_="failed small")]
    place = x.inside(measure.value)
    parts = [box(min(zero, place), y - thickness / 2, abs(place - zero), thickness, f"bar soft {measure.look}", rx=1)]
    if measure.ci95 is not None:
        a, b = (x.inside(end) for end in measure.ci95)
        look, cap = f"whisker {measure.look}", thickness * 0.4
        parts += [line(a, y, b, y, look), *(line(end, y - cap, end, y + cap, look) for end in (a, b))]
    return [*parts, mark(place, y, measure.look)]


def bars(measures: Sequence[tuple[str, str, Measure]], *, low: float, high: float, label: str) -> Markup:
    """A bar with its interval for each (name, figure, measure), large: the drawing of the headline."""
    ends = ticks(low, high, 4)

    start, pitch = max(110, *(15 * len(name) for name, _, _ in measures)), 40  # on a phone a letter takes 15
    x = Scale(low=ends[0], high=ends[-1], start=start, end=WIDE - 96)
    bottom = pitch * len(measures) + 4
    parts = [text(x(end), bottom + 22, short(end), anchor="middle") for end in ends]
    for place, (name, figure, each) in enumerate(measures):
        y = place * pitch + 20
        parts.append(text(0, y + 6, name, class_="name"))
        parts.append(box(start, y - 11, x.end - start, 22, "track", rx=2))
        parts += bar_with_interval(each, x, y=y, thickness=22)
        parts.append(text(WIDE, y + 6, figure, anchor="end", class_="figure"))
    return drawing(WIDE, bottom + 30, *parts, label=label, class_="wide")


def shares(counts: Sequence[tuple[str, int]], *, label: str) -> Markup:
    """Parts of a whole as one bar: (look, count) from left to right."""
    width, height, start = 320, 18, 0.0
    total = sum(count for _, count in counts) or 1
    parts = []
    for look, count in counts:
        size = count / total * width
        if count:
            parts.append(box(start, 0, max(0.5, size - 1), height, f"bar {look}"))
        start += size
    return drawing(width, height, *parts, label=label, class_="shares")
