"""All that was measured, as findings: made once, and read by the page's parts, the card's too."""

from dataclasses import dataclass

from heed.report.evidence import Evidence
from heed.report.findings import Finding, benchmarks, findings
from heed.report.judges import judge_findings, scoring_judges, trusted


@dataclass(frozen=True, kw_only=True)
class Measured:
    """`parts` are metrics and stops of a part of the rows; `primary` is what the headline is about."""

    metrics: list[Finding]
    stops: list[Finding]
    parts: list[Finding]
    judged: list[Finding]
    benchmarks: list[Finding]
    primary: Finding | None


def measured(evidence: Evidence) -> Measured:
    metrics, stops = findings(evidence, ("metrics",)), findings(evidence, ("stop",))
    judged = judge_findings(evidence)
    return Measured(
        metrics=[each for each in metrics if not each.part],
        stops=[each for each in stops if not each.part],
        parts=[each for each in (*metrics, *stops) if each.part],
        judged=judged,
        benchmarks=benchmarks(evidence),
        primary=primary(evidence, judged, metrics),
    )


def primary(evidence: Evidence, judged: list[Finding], metrics: list[Finding]) -> Finding | None:
    """What was named before the run; else the first judge that can be trusted, exact match, the first metric."""
    named = (evidence.evaluation or {}).get("headline_metric")
    known = [each for each in metrics if each.of(evidence.ours) is not None]
    if found := next((each for each in known if each.metric == named), None):
        return found
    for judge, finding in zip(scoring_judges(evidence), judged, strict=True):
        if trusted(judge, evidence.ours):
            return finding
    return next((each for each in known if each.metric == "exact_match"), known[0] if known else None)
