"""Signs that a number does not mean what it seems to: each in one sentence with its figures."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from statistics import median

from heed.answers.copies import COPIED
from heed.answers.responses import Answer
from heed.measure.verdict import BETTER, WORSE
from heed.report.controls import control_rows, verdicts
from heed.report.evidence import Evidence
from heed.report.lost import length_text, mostly_length
from heed.report.measured import Measured
from heed.report.results import Result
from heed.report.words import in_sentence, interval_text, is_wide, label, number, signed
from heed.saying import count

FEWEST = 5  # rows below which a share of them says little
SAME_AS_OTHER = 0.5  # shares of the rows from which on it is an alarm
ONE_ANSWER = 0.1
MORE_THAN_WANTED = 1.5  # times as many rows as have any one reference
COPIES = 0.05
AT_LIMIT = 0.2
COLLAPSED = 0.25  # of the references' median length
SHORT = 20  # characters of a reference that says little of lengths

Alarm = tuple[str, str]
"""What it is, and the sentence."""


def alarms(evidence: Evidence, found: Measured) -> list[Alarm]:
    """The one that casts most doubt on the headline comes first."""
    ours = list(evidence.responses.get(evidence.ours or "", {}).values())
    named = evidence.ours or ""
    of_answers = [each(named, ours) for each in OF_ANSWERS] if len(ours) >= FEWEST else []
    sources = (
        habit(evidence),
        same_as_other(evidence),
        only_length(evidence),
        *of_answers,
        disagreement(found),
        below_commonest(found.benchmarks),
    )
    return [alarm for source in (*sources, loss_only_rose(evidence)) for alarm in source]


def habit(evidence: Evidence) -> Iterator[Alarm]:
    rows = {row.task: row for row in control_rows(evidence)}
    if True in verdicts(list(rows.values())):
        values = [rows[kind].value for kind in ("own", "foreign")]
        own, foreign = (number(value, wide=is_wide(*values)) for value in values)
        yield (
            f"{evidence.ours} answers from habit",
            f"{label(rows['own'].metric)} is {own} with the instruction of the row, and {foreign} with that of another "
            f"one ({count(rows['foreign'].n, 'row')}).",
        )


def same_as_other(evidence: Evidence) -> Iterator[Alarm]:
    """Not after preference tuning, which changes what the pairs are about and should leave the rest."""
    if evidence.theirs == "sft":
        return
    ours, theirs = (evidence.responses.get(name or "", {}) for name in (evidence.ours, evidence.theirs))
    both = ours.keys() & theirs.keys()
    same = sum(ours[row].model_response.strip() == theirs[row].model_response.strip() for row in both)
    if len(both) >= FEWEST and same >= SAME_AS_OTHER * len(both):
        yield (
            f"Most answers are those of {evidence.theirs}",
            f"{evidence.ours} and {evidence.theirs} say the very same on {same:,} of {count(len(both), 'row')}.",
        )


def one_answer(name: str, answers: Sequence[Answer]) -> Iterator[Alarm]:
    [(text, times)] = Counter(each.model_response.strip() for each in answers).most_common(1)
    [(_, wanted)] = Counter(each.output.strip() for each in answers).most_common(1)
    if times >= max(FEWEST, ONE_ANSWER * len(answers)) and times > MORE_THAN_WANTED * wanted:
        shown = text if len(text) <= 60 else text[:57] + "..."
        yield (
            "One answer to many questions",
            f"{name} says “{shown}” on {times:,} of {count(len(answers), 'row')}; no reference is on more than "
            f"{wanted:,}.",
        )


def copies(name: str, answers: Sequence[Answer]) -> Iterator[Alarm]:
    copied = sum(COPIED in each.flags for each in answers)
    if copied >= max(2, COPIES * len(answers)):
        yield (
            "Answers are copied from training rows",
            f"{copied:,} of {count(len(answers), 'answer')} of {name} are word for word the response of a training "
            "row, and not the reference.",
        )


def cut_short(name: str, answers: Sequence[Answer]) -> Iterator[Alarm]:
    cut = sum(each.finish_reason == "length" for each in answers)
    if cut >= AT_LIMIT * len(answers):
        yield (
            "Answers end at the length limit",
            f"{cut:,} of {count(len(answers), 'answer')} of {name} were cut by max_new_tokens.",
        )


def collapsed(name: str, answers: Sequence[Answer]) -> Iterator[Alarm]:
    own, wanted = median(len(each.model_response) for each in answers), median(len(each.output) for each in answers)
    if wanted >= SHORT and own < COLLAPSED * wanted:
        yield (
            "Answers have collapsed",
            f"Half of the {len(answers):,} answers of {name} have at most {own:,.0f} characters, half of the "
            f"references at least {wanted:,.0f}.",
        )


OF_ANSWERS: tuple[Callable[[str, Sequence[Answer]], Iterator[Alarm]], ...] = (one_answer, copies, cut_short, collapsed)


def only_length(evidence: Evidence) -> Iterator[Alarm]:
    for text in length_text(evidence) if mostly_length(evidence) else ():
        yield "Most of the gain is length or form", text


def disagreement(found: Measured) -> Iterator[Alarm]:
    """Signs that differ, one of them clearly."""
    exact = next((each for each in found.metrics if each.metric == "exact_match"), None)
    for judged in found.judged:
        mine, other = judged.difference, exact.difference if exact else None
        if exact is None or mine is None or other is None or mine.difference * other.difference >= 0:
            continue
        if {judged.verdict, exact.verdict} & {BETTER, WORSE}:
            sides = [
                f"{in_sentence(each.label)} changes by {signed(each.difference.difference, wide=each.wide)} "
                f"({each.verdict}, n = {each.difference.n:,})"
                for each in (judged, exact)
                if each.difference is not None
            ]
            text = ", ".join(sides)
            yield "The judge and exact match disagree", f"{text[0].upper()}{text[1:]}."


def below_commonest(benchmarks: Sequence[Result]) -> Iterator[Alarm]:
    for each in benchmarks:
        value = each.values[-1]
        if value.value is None or each.commonest is None or value.value >= each.commonest:
            continue
        interval = f" ({interval_text(value.ci95, wide=each.wide)})" if value.ci95 else ""
        yield (
            f"{each.task} is below a constant answer",
            f"{value.name} has {in_sentence(each.label)} {each.text(value)}{interval} on "
            f"{count(value.n or 0, 'item')}; always answering the commonest class has "
            f"{number(each.commonest, wide=each.wide)}.",
        )


def loss_only_rose(evidence: Evidence) -> Iterator[Alarm]:
    evaluated = [log for log in evidence.losses if "eval_loss" in log]
    later = [log for log in evaluated if log["step"] > 0]
    first = next((log for log in evaluated if log["step"] == 0), None)
    best = min(later, key=lambda log: log["eval_loss"], default=None)
    if first is not None and best is not None and first["eval_loss"] < best["eval_loss"]:
        before, after = (number(log["eval_loss"], wide=False) for log in (first, best))
        yield (
            "Validation loss was lowest before step 1",
            f"It was {before} then and {after} at its best later, after step {best['step']:,} "
            f"({count(first['eval_rows'], 'row')}).",
        )
