"""Two systems on the same rows: what differs, how sure that is, and which rows got worse."""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from heed.answers.responses import Answer
from heed.errors import UserError
from heed.files import run_folder
from heed.measure.clusters import Clusters
from heed.measure.corpus import corpus_estimate, corpus_value
from heed.measure.intervals import Estimate, paired_difference
from heed.measure.measurements import HEED, Measurement
from heed.measure.rows import Row, measured
from heed.measure.verdict import holm, verdict
from heed.saying import count

SHOWN = 80  # characters of a text in a message


@dataclass(frozen=True, kw_only=True)
class System:
    """One side of a comparison."""

    name: str
    """base, other, tuned or model."""
    answers: Sequence[Answer]
    measurements: Sequence[Measurement]
    """Of these answers, in their order."""
    contract: str | None
    """SHA-256 of the prompt contract it was asked with; None where nobody knows."""
    own_template: bool = False
    """Asked with the chat template it came with, which may be another one than the other side's."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A metric on both sides: `difference` is b less a. Wins are rows on which b is the better one."""

    a: float
    b: float
    difference: float
    ci95: tuple[float, float] | None
    n: int
    wins: int | None
    """None, as ties and losses, for a metric without a better side."""
    ties: int | None
    losses: int | None
    better: str
    p: float | None = None
    p_adjusted: float | None = None
    """Of every metric but the headline's: for being one of so many."""

    @property
    def verdict(self) -> str:
        return verdict(self.difference, self.ci95, self.p if self.p_adjusted is None else self.p_adjusted, self.better)


@dataclass(frozen=True, kw_only=True)
class LengthMatched:
    """A metric of two systems once their lengths are matched."""

    metric: str
    cut: Difference
    """What an answer has beyond both the other's length and the reference's is cut off."""
    cut_answers: tuple[int, int]
    """How many answers of each system that shortens."""
    share: float | None
    """What is left of the whole difference; None where there was none."""
    alike: Difference | None
    """On the rows whose two answers are about equally long; None where there are none."""


@dataclass(frozen=True, kw_only=True)
class Worse:
    """A row on which b did worse than a."""

    row_id: int
    metric: str
    a: float
    b: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    a: str
    b: str
    metrics: dict[str, Difference]
    headline: str | None
    """The metric that the verdict is about; None where that is a judge's score."""
    worse: list[Worse]
    """The largest loss first, as a share of what its metric can lose."""
    notes: tuple[str, ...]
    length: LengthMatched | None = None
    """Of the headline, or of the first metric where a judge decides."""


def compare(a: System, b: System, *, headline: str | None = None, clusters: Clusters | None = None) -> Comparison:
    """Raises UserError when the two were not asked the same rows in the same way, naming the first difference.

    The order of rows may differ. `clusters` are rows that are drawn together. A metric that only
    one side has, or that has no value for single rows, is in the notes.
    """
    refuse_other_rows(a, b)
    refuse_other_prompt(a, b)
    b = of_rows(b, [answer.row_id for answer in a.answers])
    ours, theirs = ({each.metric: each for each in side.measurements} for side in (a, b))
    notes = [] if a.contract and b.contract else ["it is not known whether both were asked with the same prompt"]
    if a.own_template:
        notes.append(f"{a.name} was asked with the chat template it came with, {b.name} with the one it learned")
    differences: dict[str, Difference] = {}
    worse: list[tuple[float, Worse]] = []
    for metric in dict.fromkeys([*ours, *theirs]):
        if metric not in ours or metric not in theirs:
            notes.append(f"{metric}: measured for {(a if metric in ours else b).name} only")
            continue
        before, after = ours[metric], theirs[metric]
        if before.items is None or after.items is None:
            notes.append(f"{metric}: it has no value for single rows, so it cannot be compared in pairs")
            continue
        pairs = [
            (answer.row_id, mine, yours)
            for answer, mine, yours in zip(a.answers, before.items, after.items, strict=True)
            if mine is not None and yours is not None
        ]
        if len(pairs) < len(a.answers):
            notes.append(f"{metric}: {count(len(a.answers) - len(pairs), 'row')} not covered on both sides")
        if not pairs:
            continue
        known = {row_id for row_id, _, _ in pairs}
        of_pairs = None
        if clusters is not None:
            of_pairs = [clusters[answer.row_id] for answer in a.answers if answer.row_id in known]
        differences[metric] = difference(before, after, pairs, of_pairs)
        sign = SIGNS.get(before.better, 0)
        worse += [
            (sign * (mine - yours) / before.scale, Worse(row_id=row_id, metric=metric, a=mine, b=yours))
            for row_id, mine, yours in pairs
            if sign * (mine - yours) > 0
        ]
    others = {
        metric: each.p
        for metric, each in differences.items()
        if metric != headline and each.better != "neither" and each.p is not None
    }
    for metric, p in holm(others).items():
        differences[metric] = replace(differences[metric], p_adjusted=p)
    worse.sort(key=lambda each: -each[0])  # a stable sort: rows that lost as much stay in their order
    return Comparison(
        a=a.name,
        b=b.name,
        metrics=differences,
        headline=headline if headline in differences else None,
        worse=[each for _, each in worse],
        notes=tuple(notes),
    )


SIGNS = {"higher": 1, "lower": -1}


def of_rows(system: System, row_ids: Sequence[int]) -> System:
    """With the answers to these rows, in this order, and their items; the values stay those of all rows."""
    places = {answer.row_id: place for place, answer in enumerate(system.answers)}
    order = [places[row_id] for row_id in row_ids]

    def placed(each: Measurement) -> Measurement:
        return replace(
            each,
            items=None if each.items is None else tuple(each.items[place] for place in order),
            statistics=None if each.statistics is None else each.statistics[order],
        )

    answers = [system.answers[place] for place in order]
    return replace(system, answers=answers, measurements=[placed(each) for each in system.measurements])


def difference(
    before: Measurement,
    after: Measurement,
    pairs: Sequence[tuple[int, float, float]],
    clusters: Sequence[Hashable] | None,
) -> Difference:
    """Of a metric on answers in the same order."""
    mine, yours = [each for _, each, _ in pairs], [each for _, _, each in pairs]
    if before.statistics is not None and after.statistics is not None:
        found = corpus_estimate(before.metric, after.statistics, less=before.statistics, clusters=clusters)
        values = tuple(corpus_value(before.metric, each) for each in (before.statistics, after.statistics))
    else:
        found = paired_difference(yours, mine, within=before.within, clusters=clusters)
        values = (sum(mine) / len(mine), sum(yours) / len(yours))
    sign = SIGNS.get(before.better)
    gains = [sign * (theirs - ours) for ours, theirs in zip(mine, yours, strict=True)] if sign else None
    return Difference(
        a=values[0],
        b=values[1],
        difference=found.value,
        ci95=found.ci95,
        n=found.n,
        wins=None if gains is None else sum(gain > 0 for gain in gains),
        ties=None if gains is None else sum(gain == 0 for gain in gains),
        losses=None if gains is None else sum(gain < 0 for gain in gains),
        better=before.better,
        p=found.p,
    )


def refuse_other_rows(a: System, b: System) -> None:
    ours, theirs = ({answer.row_id: answer for answer in side.answers} for side in (a, b))
    for one, other, there in ((a, b, theirs), (b, a, ours)):
        for answer in one.answers:
            if answer.row_id not in there:
                raise UserError(
                    f"{one.name} and {other.name} did not answer the same rows: {other.name} has no row "
                    f"{answer.row_id}; answer the same data and split with both"
                )
    for row_id, answer in ours.items():
        for field in ("instruction", "input", "output", "system_prompt", "history"):
            mine, yours = getattr(answer, field), getattr(theirs[row_id], field)
            if mine != yours:
                raise UserError(
                    f"{a.name} and {b.name} did not answer the same rows: {field} of row {row_id} is "
                    f"{str(mine)[:SHOWN]!r} for {a.name} and {str(yours)[:SHOWN]!r} for {b.name}"
                )


def refuse_other_prompt(a: System, b: System) -> None:
    if a.contract and b.contract and a.contract != b.contract and not a.own_template:
        raise UserError(
            f"{a.name} and {b.name} were asked with different prompts (contracts {a.contract[:12]} and "
            f"{b.contract[:12]}), so a difference would not be the models'; answer again with one prompt"
        )


def write_comparison(folder: Path, comparison: Comparison) -> Path:
    path = folder / run_folder.COMPARISON_FILE
    run_folder.write_json(path, asdict(comparison))
    return path


COMPARED = ("a", "b", "wins", "ties", "losses", "better", "p", "p_adjusted", "verdict")


def comparison_rows(comparison: Comparison, **provenance: Any) -> list[Row]:
    """Rows for rows.jsonl; `provenance` has the fields of Row that a comparison does not know."""
    return [
        Row(
            system="comparison",
            metric=metric,
            name=f"{comparison.b} - {comparison.a}",
            **measured(Estimate(value=each.difference, ci95=each.ci95, n=each.n)),
            library=HEED,
            higher_is_better=each.better != "lower",
            details={name: getattr(each, name) for name in COMPARED},
            **provenance,
        )
        for metric, each in comparison.metrics.items()
    ]
