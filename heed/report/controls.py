"""Whether a model reads its instructions, in the words of terminal, report and card."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from heed.measure.rows import Row
from heed.report.evidence import Evidence
from heed.report.results import Result, Value
from heed.report.words import COUNTED, in_sentence, is_wide, label, number

# kind -> in a table, and in the line, where there is room for it
KINDS = {
    "own": ("With its own instruction", "with its own instruction"),
    "foreign": ("With another row's instruction", "with a foreign one"),
    "no_input": ("Without its input", "without input"),
    "shuffled": ("With the instruction's words shuffled", "with shuffled words"),
    "case": ("In other case", ""),
    "polite": ("After a polite preamble", ""),
    "paraphrases": ("In rewordings of your own", ""),
    "reworded": ("Reworded, all together", "reworded"),
    "worst_wording": ("Worst wording of each row", "worst wording"),
    "consistency": ("Consistency of the wordings", "consistency"),
}
VERDICTS = {
    True: "It answers from habit: with another row's instruction, more than half of what its own gains is left.",
    False: "It reads the instruction: with another row's, less than half of what its own gains is left.",
    None: "These rows do not show whether it reads the instruction.",
}


def controls_text(rows: Sequence[Row]) -> str:
    """What the terminal shows: the line, what follows from it, and what was left out."""
    if not rows:
        return ""
    lines = [f"\n{sentence(rows)}", *(f"  {verdict}" for verdict in verdicts(rows).values())]
    return "\n".join([*lines, *(f"  ({row.task} leaves out {note})" for row in rows for note in row.notes)])


def sentence(rows: Sequence[Row]) -> str:
    """The kinds of control in a line; one with fewer rows says how many, and what their own instruction has there."""
    own, parts = in_order(rows)[0], []
    for row in in_order(rows):
        if (words := KINDS[row.task][1]) and row.value is not None:
            wide = is_wide(*(each.value for each in rows)) and row.task != "consistency"
            ends = f" [{number(row.ci95[0], wide=wide)}, {number(row.ci95[1], wide=wide)}]" if row.ci95 else ""
            fewer = f" (n = {row.n:,}, of its own {own_there(row, wide=wide)})" if row.n != own.n else ""
            parts.append(f"{words} {number(row.value, wide=wide)}{ends}{fewer}")
    by = f"{in_sentence(label(own.metric))}, " if own.metric in COUNTED else ""
    what = "Right" if own.metric in COUNTED else label(own.metric)
    return f"{what} {', '.join(parts)} ({by}n = {own.n:,})."


def in_order(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: list(KINDS).index(row.task))


def own_there(row: Row, *, wide: bool) -> str:
    return number(row.details["own"], wide=wide)


def verdicts(rows: Sequence[Row]) -> dict[bool | None, str]:
    """Whether it answers from habit, and how that is said; empty where no foreign instruction was asked."""
    habits = [row.details["habit"] for row in rows if row.task == "foreign" and row.value is not None]
    return {habit: VERDICTS[habit] for habit in habits}


@dataclass(frozen=True, kw_only=True)
class ControlsView:
    """All that the page shows of them; `examples` are the most telling answers: (kind, answer)."""

    sentence: str
    verdicts: dict[bool | None, str]
    results: list[Result]
    examples: list[tuple[str, dict[str, Any]]]


def controls_view(evidence: Evidence) -> ControlsView | None:
    rows = control_rows(evidence)
    if not rows:
        return None
    return ControlsView(
        sentence=sentence(rows),
        verdicts=verdicts(rows),
        results=[result(row, rows[0]) for row in rows],
        examples=[(KINDS[row.task][0], row.details["example"]) for row in rows if "example" in row.details],
    )


def control_rows(evidence: Evidence) -> list[Row]:
    return in_order([row for row in evidence.rows if row.system == "controls" and row.name == evidence.ours])


def result(row: Row, own: Row) -> Result:
    fewer = f" (its own there: {own_there(row, wide=is_wide(row.value))})" if 0 < row.n != own.n else ""
    return Result(
        system="controls",
        task=row.task,
        metric=KINDS[row.task][0] + fewer,
        values=[Value(name=row.name, value=row.value, ci95=row.ci95, n=row.n, notes=row.notes)],
        difference=None,
        higher_is_better=True,
        chance=row.chance,
    )
