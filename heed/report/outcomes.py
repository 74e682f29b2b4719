"""Row by row: where the evaluated system does better, equal or worse than the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from heed.report.evidence import Evidence
from heed.report.lost import lost
from heed.report.results import Result
from heed.report.words import is_wide, label, number

LISTED = 100  # rows that got worse, at most


@dataclass(frozen=True, kw_only=True)
class Share:
    """Rows that one system wins, ties or loses against the other, by one measure."""

    measure: str
    wins: int
    ties: int
    losses: int
    failures: int = 0
    note: str = ""


def outcomes(evidence: Evidence, metrics: Sequence[Result]) -> list[Share]:
    found = [
        Share(measure=each.label, wins=d.wins, ties=d.ties, losses=d.losses)
        for each in metrics
        if (d := each.difference) and d.wins is not None and d.ties is not None and d.losses is not None
    ]
    return found + [share for judge in evidence.judges for share in side_by_side(judge)]


def side_by_side(judge: dict[str, Any]) -> Iterator[Share]:
    for pair, each in judge.get("pairs", {}).items():
        notes = [pair]
        if each.get("win_rate") is not None:
            rate = f"wins {100 * each['win_rate']:.1f}\u00a0%, ties as half"
            if each.get("ci95"):
                rate += f" ({100 * each['ci95'][0]:.1f} to {100 * each['ci95'][1]:.1f}\u00a0%)"
            notes.append(rate)
        if each.get("consistency") is not None:
            notes.append(f"same verdict in both orders {100 * each['consistency']:.0f}\u00a0%")
        if each.get("first_position_rate") is not None:
            notes.append(f"the first answer preferred {100 * each['first_position_rate']:.0f}\u00a0%")
        yield Share(
            measure=f"Side by side ({judge['judge']})",
            wins=each["wins"],
            ties=each["ties"],
            losses=each["losses"],
            failures=each["failures"],
            note=", ".join(notes),
        )


@dataclass(frozen=True, kw_only=True)
class WorseRow:
    """A row that the evaluated system does worse, by what made it wrong or by the metric that it lost most by."""

    row_id: int
    instruction: str
    label: str
    before: str
    after: str
    lost: bool
    """Right with the other system, and wrong with this one."""


def worse(evidence: Evidence) -> list[WorseRow]:
    """What the other system had right comes first, whatever other metrics say of it; then the largest loss."""
    answers = evidence.responses.get(evidence.ours or "", {})
    gone = {each.row_id: {"metric": each.measure, "a": each.before, "b": each.after} for each in lost(evidence)}
    most: dict[int, dict[str, Any]] = dict(gone)
    for each in (evidence.comparison or {}).get("worse", []):
        most.setdefault(each["row_id"], each)
    return [
        WorseRow(
            row_id=row_id,
            instruction=answers[row_id].instruction if row_id in answers else "",
            label=label(each["metric"]),
            before=number(each["a"], wide=is_wide(each["a"], each["b"])),
            after=number(each["b"], wide=is_wide(each["a"], each["b"])),
            lost=row_id in gone,
        )
        for row_id, each in most.items()
    ]
