"""Which drawing shows which part of the evidence."""

import math
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from heed.report.evidence import Evidence, Verdict
from heed.report.figures import (
    MOST_POINTS,
    Measure,
    Series,
    bars,
    curves,
    histogram,
    on_log_scale,
    scatter,
    shares,
    strip,
)
from heed.report.judges import controls_of, judge_key, scores
from heed.report.outcomes import Share
from heed.report.results import Result
from heed.report.svg import short
from heed.report.words import number
from heed.runs.plots import validation_sets
from heed.saying import count


def look(evidence: Evidence, name: str) -> str:
    """The colour of a system: the evaluated one and its counterpart look the same wherever they are."""
    return "ours" if name in (evidence.ours, "tuned", "model") else "theirs"


def arena(evidence: Evidence) -> list[dict[str, Any]]:
    """The leaderboards of arena.json: each model's standing with its drawing, on the scale that a board shares."""
    boards = []
    for board in (evidence.arena or {}).get("leaderboards", []):
        ends = [end for each in board["standings"] for end in (each["rating"], *each["ci95"])]
        low, high = min(ends, default=0) - 20, max(ends, default=1) + 20
        drawn = [each | {"drawn": rating_strip(evidence, each, low=low, high=high)} for each in board["standings"]]
        boards.append(board | {"standings": drawn})
    return boards


@dataclass(frozen=True, kw_only=True)
class LossView:
    """The loss curves, whether they are on a log scale, and how many points were not numbers and are not on them."""

    chart: Markup | None
    log: bool
    not_finite: int
    others: list[str]
    """What became of the loss on each validation set that did not steer."""


def losses(evidence: Evidence) -> LossView | None:
    """Training and validation loss over epochs (below) and tokens seen (above); None for a run without logs."""
    train = points(evidence, "initial_train_loss") + points(evidence, "loss")
    validation = points(evidence, "eval_loss")
    found = [
        Series(name="training", points=finite(train), look="ours"),
        Series(name="validation", points=finite(validation), look="theirs", marks=True),
    ]
    series = [each for each in found if each.points]
    lost = len(train) + len(validation) - sum(len(each.points) for each in series)
    if not series:
        return LossView(chart=None, log=False, not_finite=lost, others=[]) if lost else None
    seen = [log for log in evidence.losses if log.get("num_input_tokens_seen") and log.get("epoch")]
    rate = seen[-1]["num_input_tokens_seen"] / seen[-1]["epoch"] if seen else None
    ends = [f"{each.name} from {each.points[0][1]:.3f} to {each.points[-1][1]:.3f}" for each in series]
    chart = curves(
        series,
        top=(lambda epoch: short(float(f"{epoch * rate:.3g}"))) if rate else None,
        label="Loss over epochs and tokens: " + ", ".join(ends),
    )
    others = []
    for title, prefix in validation_sets(evidence.losses).items():
        if prefix != "eval":
            own = [log for log in evidence.losses if f"{prefix}_loss" in log]
            first, last = (number(log[f"{prefix}_loss"], wide=False) for log in (own[0], own[-1]))
            others.append(f"{title}: from {first} to {last} ({count(own[-1][f'{prefix}_rows'], 'row')})")
    return LossView(chart=chart, log=on_log_scale(series), not_finite=lost, others=others)


def points(evidence: Evidence, field: str) -> list[tuple[float, float]]:
    return [(log["epoch"], log[field]) for log in evidence.losses if field in log]


def finite(values: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in values if isinstance(y, int | float) and math.isfinite(y)]


@dataclass(frozen=True, kw_only=True)
class JudgeView:
    """All that is shown of one judge."""

    summary: dict[str, Any]
    histogram: Markup | None
    lengths: Markup | None
    thinned: bool
    """Whether there were more points than are drawn."""
    controls: list[tuple[str, float | None, Markup]]
    checks: list[dict[str, Any]]
    """Whether controls ranked as they should: in scores, side by side."""
    failed: dict[str, dict[str, int]]


def judge_view(evidence: Evidence, judge: dict[str, Any]) -> JudgeView:
    given = [each for each in scores(evidence) if judge_key(each) == judge_key(judge)]
    names = [name for name in judge["scores"] if any(each["name"] == name for each in given)]
    return JudgeView(
        summary=judge,
        histogram=score_histogram(evidence, given, names) if given else None,
        lengths=score_against_length(evidence, given, names),
        thinned=any(sum(each["name"] == name for each in given) > MOST_POINTS for name in names),
        controls=[
            (
                name,
                score,
                strip(
                    [Measure(look="ours" if name == "reference" else "other", value=score, ci95=None, absent="failed")],
                    low=0,
                    high=100,
                    label=f"{name}: {number(score, wide=True, absent='failed')}",
                ),
            )
            for name, score in (judge["controls"] or {"scores": {}})["scores"].items()
        ],
        checks=controls_of(judge),
        failed={name: each["failures"] for name, each in judge["scores"].items() if each["failures"]},
    )


def score_histogram(evidence: Evidence, given: list[Verdict], names: list[str]) -> Markup:
    of = {
        name: [each["score"] for each in given if each["name"] == name and each["score"] is not None] for name in names
    }
    failures = {name: sum(each["name"] == name and each["score"] is None for each in given) for name in names}
    told = [f"{name}: {len(of[name])} scores, {failures[name]} failed" for name in names]
    return histogram(
        of, failures, {name: look(evidence, name) for name in names}, label="Histogram of scores. " + "; ".join(told)
    )


def score_against_length(evidence: Evidence, given: list[Verdict], names: list[str]) -> Markup | None:
    """Tokens of each answer and the score it got; characters where tokens were not counted."""
    answers = evidence.responses
    counted = all(answer.response_tokens is not None for name in names for answer in answers.get(name, {}).values())
    unit = "tokens" if counted else "characters"

    def length(name: str, row: int) -> int:
        answer = answers[name][row]
        return answer.response_tokens or 0 if counted else len(answer.model_response)

    series = [
        Series(
            name=name,
            points=[
                (length(name, each["row_id"]), each["score"])
                for each in given
                if each["name"] == name and each["score"] is not None and each["row_id"] in answers.get(name, {})
            ],
            look=look(evidence, name),
        )
        for name in names
    ]
    if not any(each.points for each in series):
        return None
    return scatter(series, x_title=f"{unit} in the answer", label=f"Score against length in {unit}")


def agreement(evidence: Evidence) -> tuple[str, str, Markup] | None:
    """The scores of the first two judges on the same answers, one against the other."""
    by_judge: dict[tuple[str, str], dict[tuple[str, int], float]] = {}
    for each in scores(evidence):
        if each["score"] is not None:
            by_judge.setdefault(judge_key(each), {})[each["name"], each["row_id"]] = each["score"]
    if len(by_judge) < 2:
        return None
    (first, ours), (second, theirs) = list(by_judge.items())[:2]
    series = [
        Series(
            name=name,
            points=[(ours[key], theirs[key]) for key in ours.keys() & theirs.keys() if key[0] == name],
            look=look(evidence, name),
        )
        for name in evidence.names
    ]
    x_title, y_title = (" ".join(each) if first[0] == second[0] else each[0] for each in (first, second))
    chart = scatter(series, x_title=x_title, x_high=100, diagonal=True, label=f"Scores of {x_title} and {y_title}")
    return x_title, y_title, chart


def result_strip(evidence: Evidence, result: Result) -> Markup:
    return strip(
        measures_of(evidence, result),
        low=result.low,
        high=result.high,
        chance=result.chance,
        label=told(result),
    )


def measures_of(evidence: Evidence, result: Result) -> list[Measure]:
    return [
        Measure(look=look(evidence, each.name), value=each.value, ci95=each.ci95, absent=each.absent)
        for each in result.values
    ]


def told(result: Result) -> str:
    """How a drawing of it is read aloud."""
    return f"{result.label}: " + ", ".join(f"{each.name} {result.text(each)}" for each in result.values)


def outcome_shares(share: Share) -> Markup:
    counts = [("ours", share.wins), ("even", share.ties), ("theirs", share.losses), ("failed", share.failures)]
    label = f"{share.wins} better, {share.ties} equal, {share.losses} worse"
    return shares(counts, label=label + (f", {share.failures} failed" if share.failures else ""))


def hero(evidence: Evidence, primary: Result | None) -> Markup | None:
    """The measure of the headline, drawn large."""
    if primary is None:
        return None
    drawn = [
        (each.name, primary.text(each), measure)
        for each, measure in zip(primary.values, measures_of(evidence, primary), strict=True)
    ]
    return bars(drawn, low=primary.low, high=primary.high, label=told(primary))


def rating_strip(evidence: Evidence, rating: dict[str, Any], *, low: float, high: float) -> Markup:
    ci95 = (rating["ci95"][0], rating["ci95"][1])
    measure = Measure(look=look(evidence, rating["model"]), value=rating["rating"], ci95=ci95)
    label = f"{rating['model']}: {rating['rating']:.0f}"
    return strip([measure], low=low, high=high, label=label, bars=False)
