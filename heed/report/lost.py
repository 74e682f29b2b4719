"""What the evaluated model has lost compared with the one it started from, and how much of its gain is only length."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from heed.measure.verdict import BETTER, EQUAL
from heed.report.evidence import Evidence
from heed.report.judges import judge_key, judge_label, scores
from heed.report.measured import Measured
from heed.report.results import difference
from heed.report.words import in_sentence, interval_text, is_wide, label, number, signed
from heed.saying import count

RIGHT, WRONG = 0.75, 0.5
"""From here on an answer is right, and below here wrong, as a share of its measure's scale."""
WORDS = ("contains", "normalized_exact_match", "exact_match")
MOSTLY = 0.5  # of a gain


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A row that another system had right and the evaluated one has wrong."""

    row_id: int
    measure: str
    before: float
    after: float


def lost(evidence: Evidence) -> list[Lost]:
    """By the words of the reference, its likelihood, or a judge; each row once, in the order of the rows."""
    rows = list(evidence.responses.get(evidence.ours or "", {}))
    found: dict[int, Lost] = {}
    for measure, scale, values in of_each_row(evidence):
        ours = values.get(evidence.ours or "", {})
        for row in rows:
            before = max((values[name].get(row, 0.0) for name in values if name != evidence.ours), default=0.0)
            after = ours.get(row)
            if after is not None and before >= RIGHT * scale and after < WRONG * scale:
                found.setdefault(row, Lost(row_id=row, measure=measure, before=before, after=after))
    return [found[row] for row in rows if row in found]


Values = dict[str, dict[int, float]]
"""name -> row -> value."""


def of_each_row(evidence: Evidence) -> Iterator[tuple[str, float, Values]]:
    """Measure, which values of it are best, and its values."""
    measured = {metric for rows in evidence.items.values() for values in rows.values() for metric in values}
    words = next((metric for metric in WORDS if metric in measured), None)
    for metric in (words, "reference_likelihood"):
        if metric in measured:
            yield (
                label(metric),
                1.0,
                {
                    name: {row: each[metric] for row, each in rows.items() if metric in each}
                    for name, rows in evidence.items.items()
                },
            )
    given = [each for each in scores(evidence) if each["score"] is not None]
    judges = list(dict.fromkeys(map(judge_key, given)))
    for judge in judges:
        values: Values = {}
        for each in (each for each in given if judge_key(each) == judge):
            values.setdefault(each["name"], {})[each["row_id"]] = each["score"]
        yield f"Score by {judge_label(judge, judges)}", 100.0, values


def losses_text(evidence: Evidence, found: Measured) -> list[str]:
    """A sentence each: plain text, rows, length."""
    if evidence.theirs is None:
        return []
    length = [] if mostly_length(evidence) else length_text(evidence)  # an alarm says it already
    return [*plain_text(evidence, found), *rows_text(evidence), *length]


def plain_text(evidence: Evidence, found: Measured) -> Iterator[str]:
    result = next((each for each in found.plain if each.metric == "bits_per_byte"), None)
    if result is None or result.difference is None:
        return
    each = result.difference
    yield (
        f"On {count(each.n, 'line')} of plain text ({result.task}), {evidence.ours} needs {number(each.b, wide=False)} "
        f"bits per byte against {number(each.a, wide=False)}: {change(each, wide=False)}."
    )


def rows_text(evidence: Evidence) -> Iterator[str]:
    measures = [measure for measure, _, _ in of_each_row(evidence)]
    if measures:
        gone, n = lost(evidence), len(evidence.responses.get(evidence.ours or "", {}))
        yield (
            f"{len(gone):,} of {count(n, 'row')} {'is' if len(gone) == 1 else 'are'} right with {evidence.theirs} and "
            f"wrong with {evidence.ours}, by “{'” or “'.join(map(in_sentence, measures))}”."
        )


def length_text(evidence: Evidence) -> Iterator[str]:
    matched = (evidence.comparison or {}).get("length")
    if matched is None or matched["share"] is None or not any(matched["cut_answers"]):
        return
    cut, name = difference(matched["cut"]), in_sentence(label(matched["metric"]))
    wide, (theirs, ours) = is_wide(cut.a, cut.b), matched["cut_answers"]
    text = (
        f"With lengths matched ({theirs:,} answers of {evidence.theirs} and {ours:,} of {evidence.ours} are cut to the "
        f"other's length or the reference's), {name} is {number(cut.b, wide=wide)} against {number(cut.a, wide=wide)}: "
        f"{change(cut, wide=wide)}, which is {100 * matched['share']:.0f} % of the difference."
    )
    if matched["alike"] is None:
        yield f"{text} On no row are both answers about equally long."
        return
    alike = difference(matched["alike"])
    rows = f"{count(alike.n, 'row')} whose answers are about equally long"
    yield f"{text} On the {rows} it is {change(alike, wide=wide)}."


def change(each: Any, *, wide: bool) -> str:
    """+0.740 (+0.652 to +0.808), better."""
    interval = f" ({interval_text(each.ci95, wide=wide, with_sign=True)})" if each.ci95 else ""
    return f"{signed(each.difference, wide=wide)}{interval}, {each.verdict if each.difference else EQUAL}"


def mostly_length(evidence: Evidence) -> bool:
    """Whether less than half of a gain is left when lengths are matched."""
    matched = (evidence.comparison or {}).get("length")
    if matched is None or matched["share"] is None or matched["share"] >= MOSTLY:
        return False
    whole = (evidence.comparison or {})["metrics"][matched["metric"]]
    return difference(whole).verdict == BETTER
