"""The result in one sentence, with its interval and the number of rows, and the figures beside it."""

from dataclasses import dataclass

from heed.report.evidence import Evidence
from heed.report.results import Result, Value
from heed.report.words import COUNTED, epochs_text, in_sentence, interval_text, number, signed
from heed.saying import count


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The sentence in three pieces, of which the middle one is the figure; `detail` says how rows came out."""

    before: str
    figure: str
    after: str
    detail: str = ""

    @property
    def sentence(self) -> str:
        return self.before + self.figure + self.after


def headline(evidence: Evidence, primary: Result | None) -> Headline:
    ours = primary.of(evidence.ours) if primary is not None else None
    if primary is None or ours is None or ours.value is None:
        return training_headline(evidence)
    interval = f"95 % interval {interval_text(ours.ci95, wide=primary.wide)}, " if ours.ci95 else ""
    after = f" ({interval}n = {ours.n:,})"
    theirs = primary.of(primary.against or evidence.theirs)
    detail = ""
    if theirs is not None and theirs.value is not None:
        after += f", against {primary.text(theirs)} for {theirs.name}"
        for other in (each for each in primary.values if each not in (ours, theirs)):
            after += f", {'as good as' if other.value == theirs.value else 'better than'} {other.name}"
            after += f" ({primary.text(other)})"
        detail = difference_text(primary)
    asked = evidence.evaluation or {}
    rows = f"On the {asked['split']} rows, " if asked.get("split") else ""
    if primary.system == "judge":
        before = f"{rows}{ours.name} scores "
        after = f" of 100 by the judge {primary.label.removeprefix('Score by ')}" + after
    else:
        before = f"{rows}{ours.name} has {in_sentence(primary.label)} "
    before = before[0].upper() + before[1:]
    if primary.metric in COUNTED and primary.system != "judge":
        said = f"{before}{primary.text(ours)}{after}. {detail}".rstrip()
        return Headline(before="", figure=right(ours), after=in_questions(primary, ours), detail=said)
    return Headline(before=before, figure=primary.text(ours), after=after + ".", detail=detail)


def right(value: Value) -> str:
    """135 of 150, from a share and its rows."""
    assert value.value is not None and value.n is not None
    return f"{round(value.value * value.n):,} of {value.n:,}"


def in_questions(primary: Result, ours: Value) -> str:
    others = [each for each in primary.values if each is not ours and each.value is not None]
    told = [f"{each.name.replace('base', 'before')}: {right(each).removesuffix(f' of {ours.n:,}')}" for each in others]
    beside = f" ({', '.join(told)})" if told else ""
    return f" {'question' if ours.n == 1 else 'questions'} {COUNTED[primary.metric]}{beside}."


def difference_text(result: Result) -> str:
    difference = result.difference
    if difference is None:
        return ""
    interval = interval_text(difference.ci95, wide=result.wide, with_sign=True)
    text = f"The paired difference on {count(difference.n, 'row')} "
    if any(each.n != difference.n for each in result.values):
        sides = (number(side, wide=result.wide) for side in (difference.b, difference.a))
        text += f"that both cover ({' against '.join(sides)}) "
    text += "is "
    text += signed(difference.difference, wide=result.wide) + (f" ({interval})" if interval else "")
    if difference.wins is not None:
        text += f"; better on {difference.wins:,}, equal on {difference.ties:,}, worse on {difference.losses:,}"
    return f"{text}: {result.verdict}." if result.verdict else f"{text}."


def training_headline(evidence: Evidence) -> Headline:
    """Without a metric, what the loss says; without that, that nothing was measured."""
    evaluated = [log for log in evidence.losses if "eval_loss" in log]
    if not evaluated:
        return Headline(before="Nothing has been measured ", figure="yet", after=".")
    first, last = evaluated[0], evaluated[-1]
    began = number(first["eval_loss"], wide=False)
    after = f" after {epochs_text(last['epoch'])} ({count(last['eval_rows'], 'row')}), from {began}."
    return Headline(
        before="Validation loss is ",
        figure=number(last["eval_loss"], wide=False),
        after=after,
        detail="Its answers have no trustworthy score yet." if evidence.responses else "It has answered nothing yet.",
    )


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A figure beside the headline."""

    name: str
    value: str
    note: str


def tiles(evidence: Evidence, primary: Result | None) -> list[Tile]:
    found = []
    if primary is not None and primary.difference is not None and evidence.theirs is not None:
        difference = primary.difference
        interval = interval_text(difference.ci95, wide=primary.wide, with_sign=True)
        value = signed(difference.difference, wide=primary.wide)
        against = primary.against or evidence.theirs
        found.append(Tile(name=f"Difference to {against}", value=value, note=interval))
        if difference.wins is not None:
            outcome = f"{difference.wins:,} / {difference.ties:,} / {difference.losses:,}"
            by = "the judge" if primary.system == "judge" else in_sentence(primary.label)
            found.append(Tile(name="Rows better / equal / worse", value=outcome, note=f"by {by}"))
    answers = evidence.responses.get(evidence.ours or "", {}).values()
    if answers and all(answer.finish_reason is not None for answer in answers):
        cut = sum(answer.finish_reason == "length" for answer in answers)
        found.append(Tile(name="Answers cut short", value=f"{cut:,}", note=f"of {len(answers):,} of {evidence.ours}"))
    evaluated = [log for log in evidence.losses if "eval_loss" in log]
    if evaluated:
        first, last = evaluated[0]["eval_loss"], evaluated[-1]["eval_loss"]
        note = f"from {number(first, wide=False)}, {count(evaluated[-1]['eval_rows'], 'row')}"
        found.append(Tile(name="Validation loss", value=number(last, wide=False), note=note))
    return found
