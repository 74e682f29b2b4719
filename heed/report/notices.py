"""What a reader must know before the numbers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from heed.report.alarms import alarms
from heed.report.evidence import Evidence
from heed.report.judges import controls_of
from heed.report.measured import Measured
from heed.report.size import Cut
from heed.saying import FEW_ROWS, count, few_rows


@dataclass(frozen=True, kw_only=True)
class Notice:
    """`grave` ones are red."""

    title: str
    text: str
    grave: bool


def notices(evidence: Evidence, measured: Measured) -> list[Notice]:
    found = [notice for judge in evidence.judges for notice in of_judge(judge)]
    found += [Notice(title=title, text=text, grave=True) for title, text in alarms(evidence, measured)]
    for file in evidence.changed:
        text = "Its hash is not the one in evaluation.json: the answers below and the numbers may not belong together."
        found.append(Notice(title=f"{file} has changed since it was measured", text=text, grave=True))
    if evidence.run is not None and evidence.run["status"] != "done":
        text = f"The run's status is {evidence.run['status']!r}: curves and weights may end early."
        found.append(Notice(title="Training did not finish", text=text, grave=False))
    asked = evidence.evaluation
    if asked is not None and asked["n"] < asked["n_full"]:
        text = (
            f"Of {count(asked['n_full'], 'row')} {asked['n']:,} {'was' if asked['n'] == 1 else 'were'} asked "
            f"(limit: {asked['limit']}); the rest may differ."
        )
        found.append(Notice(title="Only a part of the rows was evaluated", text=text, grave=False))
    if asked is not None and asked["n"] < FEW_ROWS:
        sentence = few_rows(asked["n"])
        found.append(Notice(title="Few rows", text=f"{sentence[0].upper()}{sentence[1:]}.", grave=False))
    return found


def notices_text(evidence: Evidence, measured: Measured) -> list[str]:
    """The lines that a terminal shows."""
    return list(map(line, notices(evidence, measured)))


def line(notice: Notice) -> str:
    return f"! {notice.title}: {notice.text}"


def cut_notice(evidence: Evidence, cut: Cut) -> Notice:
    gone = f" ({cut.gone:,} of them, judges' reasons, are left out)" if cut.gone else ""
    text = (
        f"To keep the page small, {count(cut.texts, 'text')} in {cut.rows:,} of {count(cut.n_rows, 'row')} "
        f"{'is' if cut.texts == 1 else 'are'} cut after {count(cut.length, 'character')}{gone}, and search sees no "
        f"more of them. Whole texts: {', '.join(evidence.files)}."
    )
    return Notice(title="Long texts are cut in the report", text=text, grave=False)


def of_judge(judge: dict[str, Any]) -> Iterator[Notice]:
    name = judge["judge"]
    for check in controls_of(judge):
        if not check["passed"]:
            yield Notice(title="The judge failed its controls", text=f"{name}: {check['text']}.", grave=True)
    for system, each in judge["scores"].items():
        if each["withheld"]:
            text = (
                f"{name}: {count(sum(each['failures'].values()), 'verdict')} on {system} "
                f"({100 * each['failure_rate']:.1f} %) failed ({counted(each['failures'])}), and the mean "
                "of the rest may be that of the easy rows."
            )
            yield Notice(title=f"The judge's score of {system} is withheld", text=text, grave=True)
    for names, each in judge["pairs"].items():
        if each["withheld"]:
            text = (
                f"{name}: {each['failures']} of {count(each['n_full'], 'pair')} failed "
                f"({counted(each['failure_reasons'])})."
            )
            yield Notice(title=f"The judge's win rate of {names} is withheld", text=text, grave=True)
    if judge["stopped"]:
        yield Notice(title="The judge stopped before all was judged", text=f"{name}: {judge['stopped']}.", grave=True)


def counted(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items(), key=lambda each: -each[1]))
