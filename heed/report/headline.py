"""The result in one sentence, with its interval and the number of rows."""

from dataclasses import dataclass

from heed.report.evidence import Evidence
from heed.report.findings import Finding, interval_text, number, primary, signed


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The sentence in three pieces, of which the middle one is the figure; `detail` says how rows came out."""

    before: str
    figure: str
    after: str
    detail: str = ""


def headline(evidence: Evidence) -> Headline:
    finding = primary(evidence)
    ours = finding.of(evidence.ours) if finding is not None else None
    if finding is None or ours is None or ours.value is None:
        return training_headline(evidence)
    interval = f"95 % interval {interval_text(ours.ci95, wide=finding.wide)}, " if ours.ci95 else ""
    after = f" ({interval}n = {ours.n:,})"
    theirs = finding.of(evidence.theirs)
    detail = ""
    if theirs is not None and theirs.value is not None:
        after += f", against {number(theirs.value)} for {theirs.name}"
        detail = difference_text(finding)
    asked = evidence.evaluation or {}
    rows = f"On the {asked['split']} rows, " if asked.get("split") else ""
    if finding.system == "judge":
        before = f"{rows}{ours.name} scores "
        after = f" of 100 by the judge {finding.label.removeprefix('Score by ')}" + after
    else:
        before = f"{rows}{ours.name} has {in_sentence(finding.label)} "
    return Headline(before=before[0].upper() + before[1:], figure=number(ours.value), after=after + ".", detail=detail)


def in_sentence(label: str) -> str:
    """Exact match -> exact match, but ROUGE-L and chrF as they are."""
    return label[0].lower() + label[1:] if label[1:2].islower() and label[-1].islower() else label


def difference_text(finding: Finding) -> str:
    difference = finding.difference
    if difference is None:
        return ""
    words = {"better": "", "worse": " It got worse.", "unclear": " The interval holds zero: no clear difference."}
    interval = interval_text(difference.ci95, wide=finding.wide, with_sign=True)
    text = f"The paired difference on {difference.n:,} rows is {signed(difference.value, wide=finding.wide)}"
    text += f" ({interval})" if interval else ""
    if difference.wins is not None:
        text += f": better on {difference.wins:,}, equal on {difference.ties:,}, worse on {difference.losses:,}"
    return text + "." + words[difference.verdict(higher_is_better=finding.higher_is_better)]


def training_headline(evidence: Evidence) -> Headline:
    """Without a metric, what the loss says; without that, that nothing was measured."""
    evaluated = [log for log in evidence.losses if "eval_loss" in log]
    if not evaluated:
        return Headline(before="Nothing has been measured ", figure="yet", after=".")
    first, last = evaluated[0], evaluated[-1]
    length = f"{last['epoch']:g} {'epoch' if last['epoch'] == 1 else 'epochs'}"
    return Headline(
        before="Validation loss is ",
        figure=number(last["eval_loss"]),
        after=f" after {length} ({last['eval_rows']:,} rows), from {number(first['eval_loss'])}.",
        detail="Its answers have no trustworthy score yet." if evidence.responses else "It has answered nothing yet.",
    )


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A figure beside the headline."""

    name: str
    value: str
    note: str


def tiles(evidence: Evidence) -> list[Tile]:
    found = []
    finding = primary(evidence)
    if finding is not None and finding.difference is not None and evidence.theirs is not None:
        difference = finding.difference
        interval = interval_text(difference.ci95, wide=finding.wide, with_sign=True)
        value = signed(difference.value, wide=finding.wide)
        found.append(Tile(name=f"Difference to {evidence.theirs}", value=value, note=interval))
        if difference.wins is not None:
            outcome = f"{difference.wins:,} / {difference.ties:,} / {difference.losses:,}"
            found.append(
                Tile(
                    name="Rows won / tied / lost",
                    value=outcome,
                    note=f"by {'the judge' if finding.system == 'judge' else in_sentence(finding.label)}",
                )
            )
    answers = evidence.responses.get(evidence.ours or "", {}).values()
    if answers and all(answer.finish_reason is not None for answer in answers):
        cut = sum(answer.finish_reason == "length" for answer in answers)
        found.append(Tile(name="Answers cut short", value=f"{cut:,}", note=f"of {len(answers):,} of {evidence.ours}"))
    evaluated = [log for log in evidence.losses if "eval_loss" in log]
    if evaluated:
        note = f"from {number(evaluated[0]['eval_loss'])}, {evaluated[-1]['eval_rows']:,} rows"
        found.append(Tile(name="Validation loss", value=number(evaluated[-1]["eval_loss"]), note=note))
    return found
