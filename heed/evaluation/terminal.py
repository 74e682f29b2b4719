"""What the terminal shows of an evaluation."""

from heed.evaluation.kept import Answers, Evaluation
from heed.evaluation.scores import Scores
from heed.measure.comparison import Comparison
from heed.measure.measurements import Measurement
from heed.measure.verdict import JUDGE_SCORE, decides
from heed.report.evidence import Evidence
from heed.report.headline import headline
from heed.report.lost import losses_text
from heed.report.measured import Measured
from heed.report.notices import notices_text
from heed.report.words import MEANINGS, NOT_MEASURED
from heed.saying import count
from heed.tokens.preview import one_line

EXAMPLES_SHOWN = 3
METRICS_SHOWN = 4
SHOWN_FIRST = ("exact_match", "token_f1", "cut", "p_eos")


def scores_text(evaluation: Evaluation, scores: Scores) -> str:
    """A few metrics, each of all systems with its interval, then the paired difference, and what it means."""
    names = list(evaluation.systems)
    by_name = {name: {each.metric: each for each in found} for name, found in scores.measurements.items()}
    lines = [f"\n{evaluation.rows}, mean [95 % interval]"]
    lines += [evaluation.clusters] if evaluation.clusters else []
    measured = by_name[names[-1]]
    wanted = dict.fromkeys((evaluation.headline_metric, *SHOWN_FIRST, *measured))
    chosen = [each for each in wanted if each in measured][:METRICS_SHOWN]
    width = max(map(len, chosen))
    lines.append(f"  {'':<{width}}  " + "  ".join(f"{name:<24}" for name in names).rstrip())
    for metric, found in ((each, measured[each]) for each in chosen):
        cells = [f"{cell(by_name[name].get(metric)):<24}" for name in names]
        lines.append(f"  {metric:<{width}}  {'  '.join(cells)}  {difference_text(scores.comparison, found)}".rstrip())
        lines += [f"  {'':<{width}}  {MEANINGS[metric]}"] if metric in MEANINGS else []
        lines += [f"  {'':<{width}}  ({note})" for note in found.notes]
    if len(measured) > len(chosen):
        lines.append(f"  {count(len(measured) - len(chosen), 'more measure')} in the report")
    if scores.clean:
        first = next(iter(scores.measurements[names[-1]])).metric
        kept = {name: next(each for each in found if each.metric == first) for name, found in scores.clean.items()}
        shown = ", ".join(f"{name} {cell(each)} (n = {each.n})" for name, each in kept.items())
        lines.append(f"  {first} without the rows that training rows give away: {shown}")
    if scores.comparison is not None:
        lines.append(verdict_text(evaluation, scores.comparison))
    return "\n".join(lines)


def cell(found: Measurement | None) -> str:
    if found is None or found.value is None:
        return NOT_MEASURED
    form = decimals(found)
    interval = f" [{found.ci95[0]:{form}}, {found.ci95[1]:{form}}]" if found.ci95 else ""
    return f"{found.value:{form}}{interval}"


def decimals(found: Measurement) -> str:
    return ".1f" if found.scale > 1 else ".3f"


def difference_text(comparison: Comparison | None, measured: Measurement) -> str:
    if comparison is None or measured.metric not in comparison.metrics:
        return ""
    found, form = comparison.metrics[measured.metric], decimals(measured)
    text = f"{found.difference:+{form}}"
    if found.ci95 is not None:
        text += f" [{found.ci95[0]:+{form}}, {found.ci95[1]:+{form}}]"
    if found.wins is not None:
        text += f"  {found.wins} better, {found.ties} equal, {found.losses} worse"
    if found.verdict:
        text += f": {found.verdict}" if found.wins is not None else f"  {found.verdict}"
    if found.n != measured.n:
        text += f" (on {count(found.n, 'row')} of both: {found.a:{form}}, {found.b:{form}})"
    return text


def verdict_text(evaluation: Evaluation, comparison: Comparison) -> str:
    """Which line decides, and what none of them can say."""
    metric = comparison.headline or (
        "the judge's score" if evaluation.headline_metric == JUDGE_SCORE else "none of them"
    )
    return f"  {decides(metric)}"


def examples_text(evaluation: Evaluation, answers: Answers) -> str:
    """A few rows side by side, evenly spaced, so that nobody has picked the good ones."""
    asked = answers[evaluation.evaluated]
    by_row = {name: {each.row_id: each.model_response for each in given} for name, given in answers.items()}
    lines = []
    some = min(EXAMPLES_SHOWN, len(asked))
    for index in (number * len(asked) // some for number in range(some)):
        row = asked[index]
        lines.append(f"\nrow {row.row_id}    {one_line(row.instruction)}")
        if row.input:
            lines.append(f"  input    {one_line(row.input)}")
        lines.append(f"  expected {one_line(row.output)}")
        lines += [f"  {name:<8} {one_line(given[row.row_id])}" for name, given in by_row.items() if row.row_id in given]
    return "\n".join(lines)


def worse_text(scores: Scores) -> str:
    if scores.comparison is None:
        return ""
    notes = [f"  {note}" for note in scores.comparison.notes]
    worse = len({each.row_id for each in scores.comparison.worse})
    total = max((each.n for each in scores.comparison.metrics.values()), default=0)
    which = "; the report shows which" if worse else ""
    return "\n".join([f"\nworse by some metric on {worse} of {count(total, 'row')}{which}", *notes])


def result_text(evidence: Evidence, found: Measured) -> str:
    """What the report begins with, in its words: the headline, and what must be known before the numbers."""
    said = headline(evidence, found.primary)
    text = [said.sentence, *([said.detail] if said.detail else [])]
    return "\n".join([*text, *notices_text(evidence, found), *losses_text(evidence, found)])
