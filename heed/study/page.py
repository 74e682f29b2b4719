"""compared.html: what a comparison of runs shows, in the report's style."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from heed import __version__
from heed.files import run_folder
from heed.pages import render_page, write_page
from heed.report import words
from heed.report.controls import KINDS
from heed.report.facts import duration
from heed.report.figures import Measure, Series, bars, curves, scatter
from heed.report.svg import short
from heed.saying import count
from heed.study.curve import Curve
from heed.study.runs import Run
from heed.study.standings import Standing, Study
from heed.study.terminal import conclusion, curve_text, gain_text, told, wide_of

FOLDER = Path(__file__).parent
REPORT = FOLDER.parent / "report"
LOOKS = 6
"""As many recipes have a colour each; the others are grey."""
ROWS_SHOWN = 50
LONGEST_NAME = 14
LOSSES_OVER = (("num_input_tokens_seen", "tokens seen"), ("seconds", "seconds of training"))


def write_page_of(study: Study, curve: Curve | None, path: Path) -> None:
    html = render_page(
        FOLDER / "page.jinja",
        styles=[REPORT / "style.css", FOLDER / "style.css"],
        **page_values(study, curve, path.parent),
    )
    write_page(path, html)


def page_values(study: Study, curve: Curve | None, folder: Path) -> dict[str, Any]:
    """What the template shows, under the names it uses."""
    looks = {each.recipe.name: f"n{place}" if place < LOOKS else "other" for place, each in enumerate(study.standings)}
    return {
        "study": study,
        "wide": wide_of(study),
        "title": f"{count(sum(len(each.recipe.runs) for each in study.standings), 'run')} side by side",
        "conclusion": conclusion(study),
        "hero": hero(study, looks),
        "looks": looks,
        "settings": list(study.standings[0].recipe.settings),
        "measures": measures(study),
        "costs": [cost(each) for each in study.standings],
        "losses": list(filter(None, (loss_curves(study, looks, *each) for each in LOSSES_OVER))),
        "score_against_cost": score_against_cost(study, looks),
        "disagreements": disagreements(study),
        "curve": curve_text(curve, study) if curve else None,
        "curve_chart": curve_chart(curve, study) if curve else None,
        "link": lambda run: link(run, folder),
        "told": told,
        "gain_text": gain_text,
        "label": words.label,
        "in_sentence": words.in_sentence,
        "number": words.number,
        "signed": words.signed,
        "interval_text": words.interval_text,
        "count": count,
        "version": __version__,
        "now": run_folder.now(),
    }


def link(run: Run, folder: Path) -> str | None:
    """The path from the page to the run's report, if there is one below the page's folder."""
    report = run.folder / run_folder.REPORT_FILE
    inside = report.is_file() and report.is_relative_to(folder.absolute())
    return report.relative_to(folder.absolute()).as_posix() if inside else None


def hero(study: Study, looks: dict[str, str]) -> Markup:
    wide = wide_of(study)
    drawn = [
        (
            shortened(each.recipe.name),
            words.number(each.rows.value, wide=wide),
            Measure(look=looks[each.recipe.name], value=each.rows.value, ci95=each.rows.ci95),
        )
        for each in study.standings[: 2 * LOOKS]
    ]
    low, high = scale_of(study)
    label = f"{words.label(study.metric)}: " + ", ".join(f"{name} {figure}" for name, figure, _ in drawn)
    return bars(drawn, low=low, high=high, label=label)


def shortened(name: str) -> str:
    """What fits beside a bar; names of runs differ at their ends."""
    return name if len(name) <= LONGEST_NAME else "\N{HORIZONTAL ELLIPSIS}" + name[1 - LONGEST_NAME :]


def scale_of(study: Study) -> tuple[float, float]:
    """The metric's own range; where it has no end, what the recipes span."""
    if np.isfinite(study.within).all():
        return study.within
    ends = [end for each in study.standings for end in (each.rows.value, *(each.rows.ci95 or ()))]
    return min(0.0, *ends), max(ends)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A measure of all recipes, as text; a dash where a recipe has no value."""

    name: str
    note: str
    values: list[str]


def measures(study: Study) -> list[Line]:
    """All that the runs measured themselves, on all rows that a run answered: each recipe's mean over its seeds."""
    tables = [[known_values(run) for run in each.recipe.runs] for each in study.standings]
    names = dict.fromkeys(name for runs in tables for known in runs for name in known)
    lines = []
    for name in names:
        means = [mean([known.get(name) for known in runs]) for runs in tables]
        wide = words.is_wide(*means)
        values = [words.number(value, wide=wide, absent="\N{EN DASH}") for value in means]
        lines.append(Line(name=words.label(name[1]), note=name[0], values=values))
    return lines


def known_values(run: Run) -> dict[tuple[str, str], float | None]:
    """(what it belongs to, metric) -> the value of the run's model."""
    found = run.found
    groups = (
        ("", found.metrics),
        ("how answers end", found.stops),
        ("plain text", found.plain),
        ("by a judge", found.judged),
    )
    known: dict[tuple[str, str], float | None] = {("", "Validation loss"): run.last_eval.get("eval_loss")}
    for group, findings in (*groups, *((each.task, [each]) for each in found.benchmarks)):
        for each in findings:
            value = each.of(run.evidence.ours)
            known[group, each.metric] = value.value if value is not None else None
    controls = [row for row in run.evidence.rows if row.system == "controls"]
    return known | {(f"controls, {words.label(row.metric)}", KINDS[row.task][0]): row.value for row in controls}


def mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a recipe took: the mean of its runs. Empty where nothing counted it."""

    name: str
    seconds: str
    tokens: str
    memory: str
    parameters: str


def cost(standing: Standing) -> Cost:
    runs = standing.recipe.runs
    seconds, tokens, memory, trained = (
        mean([run.facts.get(name) for run in runs])
        for name in ("seconds_of_all_starts", "num_input_tokens_seen", "peak_memory_bytes", "trained_parameters")
    )
    return Cost(
        name=standing.recipe.name,
        seconds=duration(seconds) if seconds is not None else "",
        tokens=f"{tokens:,.0f}" if tokens is not None else "",
        memory=f"{memory / 2**30:.2f} GiB" if memory is not None else "",
        parameters=f"{trained:,.0f}" if trained is not None else "",
    )


def loss_curves(study: Study, looks: dict[str, str], field: str, x_title: str) -> tuple[str, Markup] | None:
    """Over a field of the logs, a line for each run in its recipe's colour; None where no run has it."""
    series = []
    for standing in reversed(study.standings):  # the best is drawn last, over the others
        for run in standing.recipe.runs:
            logs = [log for log in run.evidence.losses if "eval_loss" in log and field in log]
            known = [(float(log[field]), float(log["eval_loss"])) for log in logs if np.isfinite(log["eval_loss"])]
            if len(known) > 1:
                series.append(Series(name=run.name, points=known, look=looks[standing.recipe.name]))
    if not series:
        return None
    label = f"Validation loss over {x_title}: " + ", ".join(
        f"{each.name} ends at {each.points[-1][1]:.3f}" for each in reversed(series)
    )
    return x_title, curves(series, top=None, x_title=x_title, label=label)


def score_against_cost(study: Study, looks: dict[str, str]) -> Markup | None:
    """The headline metric against the seconds of training, a point for each recipe."""
    series = []
    for each in study.standings:
        seconds = mean([run.facts.get("seconds_of_all_starts") for run in each.recipe.runs])
        if seconds is not None:
            points = [(seconds, each.rows.value)]
            series.append(Series(name=each.recipe.name, points=points, look=looks[each.recipe.name]))
    if not series:
        return None
    label = f"{words.label(study.metric)} against seconds of training: " + ", ".join(
        f"{each.name} {each.points[0][1]:.3f} in {short(each.points[0][0])} s" for each in series
    )
    low, high = scale_of(study)
    return scatter(series, x_title="seconds of training", y_low=low, y_high=high, label=label)


def curve_chart(curve: Curve, study: Study) -> Markup:
    """Scores with their intervals, one share below the other, at equal steps of the logarithm."""
    wide = wide_of(study)
    last = curve.points[-1].rows
    lines = [(f"{each.rows:,} rows", each.score, "n0") for each in curve.points]
    lines.append((f"{2 * last:,} rows?", curve.doubled, "other"))
    drawn = [
        (name, words.number(each.value, wide=wide), Measure(look=look, value=each.value, ci95=each.ci95))
        for name, each, look in lines
    ]
    low, high = scale_of(study)
    told = ", ".join(f"{name} {figure}" for name, figure, _ in drawn)
    return bars(drawn, low=low, high=high, label=f"{words.label(study.metric)} by training rows: {told}")


@dataclass(frozen=True, kw_only=True)
class Said:
    """An answer, the recipes' runs that gave it, and what the headline metric says of it."""

    names: list[str]
    text: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """A row on which recipes do not agree."""

    instruction: str
    input: str
    output: str
    answers: list[Said]


def disagreements(study: Study) -> list[Disagreement]:
    """The rows whose values differ most between recipes, 50 at most."""
    means = np.array([study.means(each.recipe) for each in study.standings])
    spread = means.max(axis=0) - means.min(axis=0)
    order = np.argsort(-spread, kind="stable")[:ROWS_SHOWN]
    return [disagreement(study, place) for place in order.tolist() if spread[place] > 0]


def disagreement(study: Study, place: int) -> Disagreement:
    """Of the common row at `place`. Equal answers are together, the better ones first."""
    question = study.questions[place]
    given = [(run, run.answers[run.questions[question]]) for each in study.standings for run in each.recipe.runs]
    said: dict[tuple[float, str], list[str]] = {}
    for run, answer in given:
        said.setdefault((float(study.values[run.name][place]), answer.model_response), []).append(run.name)
    sign = -1 if study.better == "higher" else 1
    asked = given[0][1]
    return Disagreement(
        instruction=asked.instruction,
        input=asked.input,
        output=asked.output,
        answers=[
            Said(names=names, text=text, value=words.number(value, wide=wide_of(study)))
            for (value, text), names in sorted(said.items(), key=lambda item: sign * item[0][0])
        ],
    )
