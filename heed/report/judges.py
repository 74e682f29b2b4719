"""What judges say: their scores as results, and whether to believe them."""

from collections.abc import Sequence
from typing import Any

from heed.measure.comparison import Difference
from heed.measure.intervals import PERCENT, paired_difference
from heed.report.evidence import Evidence, Verdict
from heed.report.results import JudgeKey, Result, Value, pair


def judge_key(source: dict[str, Any]) -> JudgeKey:
    return (source["judge"], source["prompt"])


def judge_label(judge: JudgeKey, judges: Sequence[JudgeKey]) -> str:
    """The judge's model, and its prompt where one model was asked in several ways."""
    model, prompt = judge
    return model if sum(each[0] == model for each in judges) == 1 else f"{model}, {prompt}"


def scores(evidence: Evidence) -> list[Verdict]:
    """The verdicts with a score on answers, controls left out."""
    return [each for each in evidence.verdicts if each["kind"] == "score" and each["control"] is None]


def scoring_judges(evidence: Evidence) -> list[dict[str, Any]]:
    """Without those that only compared answers side by side."""
    return [judge for judge in evidence.judges if judge["scores"]]


def judge_results(evidence: Evidence) -> list[Result]:
    """A judge's mean score of each system, and the difference on the rows where it scored both."""
    judges = scoring_judges(evidence)
    keys = [judge_key(judge) for judge in judges]
    return [judge_result(evidence, judge, judge_label(key, keys)) for judge, key in zip(judges, keys, strict=True)]


def judge_result(evidence: Evidence, judge: dict[str, Any], name: str) -> Result:
    values = [
        Value(name=name, value=each["mean"], ci95=pair(each["ci95"]), n=each["n"], withheld=each["withheld"])
        for name, each in judge["scores"].items()
    ]
    others = [each for each in values if each.name != evidence.ours and each.value is not None]
    against = max(others, key=lambda each: (each.value, each.name == evidence.theirs)).name if others else None
    withheld = any(each.value is None for each in values if each.name == evidence.ours)
    return Result(
        system="judge",
        task="",
        metric=f"Score by {name}",
        values=values,
        difference=None if withheld or against is None else judge_difference(evidence, judge, against),
        higher_is_better=True,
        judge=judge_key(judge),
        against=against,
    )


def judge_difference(evidence: Evidence, judge: dict[str, Any], against: str) -> Difference | None:
    by_name: dict[str, dict[int, float]] = {}
    for verdict in scores(evidence):
        if judge_key(verdict) == judge_key(judge) and verdict["score"] is not None:
            by_name.setdefault(verdict["name"], {})[verdict["row_id"]] = verdict["score"]
    ours, theirs = by_name.get(evidence.ours or "", {}), by_name.get(against, {})
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        return None
    estimate = paired_difference([ours[row] for row in both], [theirs[row] for row in both], within=PERCENT)
    wins, losses = (sum(ours[row] > theirs[row] for row in both), sum(ours[row] < theirs[row] for row in both))
    return Difference(
        a=sum(theirs[row] for row in both) / len(both),
        b=sum(ours[row] for row in both) / len(both),
        difference=estimate.value,
        ci95=estimate.ci95,
        n=estimate.n,
        wins=wins,
        ties=len(both) - wins - losses,
        losses=losses,
        better="higher",
        p=estimate.p,
        p_adjusted=adjusted(evidence, judge, estimate.p),
    )


def adjusted(evidence: Evidence, judge: dict[str, Any], p: float | None) -> float | None:
    """For being one of all metrics and judges; None for the judge that the headline is about."""
    compared = (evidence.comparison or {}).get("metrics", {})
    decides = (evidence.evaluation or {}).get("headline_metric") not in compared
    judges = scoring_judges(evidence)
    if p is None or (decides and judge is judges[0]):
        return None
    return min(1.0, p * (len(compared) + len(judges)))


def trusted(judge: dict[str, Any], name: str | None) -> bool:
    """Whether a judge's score may be a headline: its controls passed and few of its verdicts failed."""
    return bool(judge["controls"]["passed"]) and not judge["scores"].get(name, {"withheld": True})["withheld"]


def controls_of(judge: dict[str, Any]) -> list[dict[str, Any]]:
    """Of its scores and of its comparisons, as far as it gave any."""
    return [check for check in (judge["controls"], judge["pair_controls"]) if check is not None]
