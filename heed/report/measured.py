"""All that was measured, as results: made once, and read by the page's parts, the card's too."""

from dataclasses import dataclass

from heed.report.evidence import Evidence
from heed.report.judges import judge_results, scoring_judges, trusted
from heed.report.results import Result, benchmarks, results


@dataclass(frozen=True, kw_only=True)
class Measured:
    """`parts` are metrics and stops of a part of the rows; `primary` is what the headline is about."""

    metrics: list[Result]
    stops: list[Result]
    plain: list[Result]
    """Of plain text, which is in no row: what the model has lost of its language."""
    parts: list[Result]
    judged: list[Result]
    benchmarks: list[Result]
    primary: Result | None


def measured(evidence: Evidence) -> Measured:
    metrics, stops = results(evidence, ("metrics",)), results(evidence, ("stop",))
    judged = judge_results(evidence)
    return Measured(
        metrics=[each for each in metrics if not each.part],
        stops=[each for each in stops if not each.part],
        plain=results(evidence, ("forgetting",)),
        parts=[each for each in (*metrics, *stops) if each.part],
        judged=judged,
        benchmarks=benchmarks(evidence),
        primary=primary(evidence, judged, metrics),
    )


def primary(evidence: Evidence, judged: list[Result], metrics: list[Result]) -> Result | None:
    """What was named before the run; otherwise the first judge that can be trusted, exact match, the first metric."""
    named = (evidence.evaluation or {}).get("headline_metric")
    known = [each for each in metrics if each.of(evidence.ours) is not None]
    if found := next((each for each in known if each.metric == named), None):
        return found
    for judge, result in zip(scoring_judges(evidence), judged, strict=True):
        if trusted(judge, evidence.ours):
            return result
    return next((each for each in known if each.metric == "exact_match"), known[0] if known else None)
