"""What the evidence says: the headline, what must be said beside it, and the numbers of every table."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from heed.measure.intervals import paired_difference
from heed.measure.rows import Row
from heed.report.evidence import Evidence, Verdict

Interval = tuple[float, float]
JudgeKey = tuple[str, str]
"""A judge is a model with a prompt: the same model asked otherwise is another judge."""

LABELS = {
    "exact_match": "Exact match",
    "normalized_exact_match": "Exact match, normalised",
    "contains": "Contains the reference",
    "token_f1": "Token F1",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "chrf": "chrF",
    "bleu": "BLEU",
    "bertscore": "BERTScore F1",
    "empty": "Empty answers",
    "length_ratio": "Length, to the reference's",
    "distinct_1": "Different words",
    "distinct_2": "Different pairs of words",
    "p_eos": "P(EOS) at the gold end",
    "premature_eos": "Stopped too early",
    "cut": "Cut by max_new_tokens",
}
LESS_IS_BETTER = {"premature_eos", "cut"}
OWN_SYSTEMS = ("metrics", "stop", "judge", "comparison")


def label(metric: str) -> str:
    return LABELS.get(metric, metric)


def number(value: float | None) -> str:
    """Three decimals for shares, one for anything beyond 1 (scores to 100, ratings)."""
    if value is None:
        return "withheld"
    if not math.isfinite(value):
        return "not a number"
    return f"{value:,.1f}" if abs(value) > 1 else f"{value:.3f}"


def signed(value: float, *, wide: bool) -> str:
    """With its sign, and a minus as long as the plus; `wide` is for scales that go beyond 1."""
    digits = f"{abs(value):,.1f}" if wide else f"{abs(value):.3f}"
    if float(digits.replace(",", "")) == 0:
        return digits
    return ("+" if value > 0 else "−") + digits


def interval_text(ci95: Interval | None, *, wide: bool, with_sign: bool = False) -> str:
    if ci95 is None:
        return ""
    low, high = (signed(end, wide=wide) if with_sign else f"{end:,.1f}" if wide else f"{end:.3f}" for end in ci95)
    return f"{low} to {high}"


def less_is_better(evidence: Evidence, metric: str) -> bool:
    """As rows.jsonl has it; where that does not know the metric, by its name."""
    known = {row.metric: not row.higher_is_better for row in evidence.rows if row.system in OWN_SYSTEMS}
    return known.get(metric, metric in LESS_IS_BETTER)


@dataclass(frozen=True, kw_only=True)
class Value:
    """What one system measured."""

    name: str
    value: float | None
    ci95: Interval | None
    n: int | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The evaluated system less the other, on the same rows."""

    value: float
    ci95: Interval | None
    n: int
    wins: int | None = None
    ties: int | None = None
    losses: int | None = None

    def verdict(self, *, higher_is_better: bool) -> str:
        """better, worse, or unclear when the interval holds 0."""
        if self.ci95 is None or self.ci95[0] <= 0 <= self.ci95[1]:
            return "unclear"
        return "better" if (self.value > 0) == higher_is_better else "worse"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A metric of all systems and the difference between the two that are compared."""

    system: str
    task: str
    metric: str
    values: list[Value]
    difference: Difference | None
    higher_is_better: bool
    describes: bool = False
    """Neither more nor less of it is better: lengths, for one."""
    chance: float | None = None
    n_full: int | None = None
    settings: str = ""
    judge: JudgeKey | None = None

    @property
    def label(self) -> str:
        return label(self.metric)

    @property
    def notes(self) -> list[str]:
        """What is to be known of any of the values, each once."""
        return list(dict.fromkeys(note for each in self.values for note in each.notes))

    @property
    def part(self) -> str:
        """Which of the rows are covered, where that is not all of them."""
        return self.task.partition(", ")[2] if self.system in ("metrics", "stop") else ""

    @property
    def counts(self) -> str:
        """How many items the values cover; each system's own where they differ."""
        ns = [each.n for each in self.values if each.n is not None]
        return ", ".join(f"{n:,}" for n in (ns if len(set(ns)) > 1 else ns[:1]))

    @property
    def high(self) -> float:
        """Where the scale ends: 1 for shares, 100 for scores, else beyond the largest value."""
        ends = [end for each in self.values for end in (each.value, *(each.ci95 or ())) if end is not None]
        largest = max(ends, default=1.0)
        return 1.0 if largest <= 1 else 100.0 if largest <= 100 else largest * 1.05

    @property
    def low(self) -> float:
        ends = [end for each in self.values for end in (each.value, *(each.ci95 or ())) if end is not None]
        return min(0.0, *ends) if ends else 0.0

    @property
    def wide(self) -> bool:
        return self.high > 1

    def of(self, name: str | None) -> Value | None:
        return next((each for each in self.values if each.name == name), None)


def findings(evidence: Evidence, systems: tuple[str, ...]) -> list[Finding]:
    """The metrics of rows.jsonl; without it, what comparison.json says of them."""
    found = list(from_rows(evidence, [row for row in evidence.rows if row.system in systems]))
    if "metrics" in systems and evidence.comparison is not None:
        known = {row.metric for row in evidence.rows if row.system in OWN_SYSTEMS}
        found += [each for each in from_comparison(evidence.comparison) if each.metric not in known]
    return found


def benchmarks(evidence: Evidence) -> list[Finding]:
    """The headline metric of every benchmark as a whole; its parts and other metrics stay in rows.jsonl."""
    rows = [row for row in evidence.rows if row.system not in OWN_SYSTEMS]
    shown = [row for row in rows if row.details.get("headline", True) and row.details.get("part_of") is None]
    return list(from_rows(evidence, shown))


def from_rows(evidence: Evidence, rows: list[Row]) -> Iterator[Finding]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        how = map(str, (row.fewshot, row.chat_template, row.limit))
        groups.setdefault((row.system, row.task, row.metric, *how), []).append(row)
    compared = dict((evidence.comparison or {}).get("metrics", {}))
    order = {name: place for place, name in enumerate(evidence.names)}
    for group in groups.values():
        first = group[0]
        settings = [f"{first.fewshot}-shot"] if first.fewshot is not None else []
        settings += ["chat template"] if first.chat_template else []
        settings += [f"limit {first.limit}"] if first.limit is not None else []
        # The comparison covers all rows; a second measurement of the same metric is one of a part of them.
        found = compared.pop(first.metric, None) if first.system in OWN_SYSTEMS else None
        yield Finding(
            system=first.system,
            task=first.task,
            metric=first.metric,
            values=[
                Value(name=row.name, value=row.value, ci95=row.ci95, n=row.n, notes=row.notes)
                for row in sorted(group, key=lambda row: order.get(row.name, -1))
            ],
            difference=difference(found) if found else difference_from_base(group),
            higher_is_better=first.higher_is_better,
            describes=first.details.get("better") == "neither",
            chance=first.chance,
            n_full=max(row.n_full for row in group),
            settings=", ".join(settings),
        )


def from_comparison(comparison: dict[str, Any]) -> Iterator[Finding]:
    for metric, each in comparison["metrics"].items():
        yield Finding(
            system="metrics",
            task="",
            metric=metric,
            values=[Value(name=comparison[side], value=each[side], ci95=None, n=each["n"]) for side in ("a", "b")],
            difference=difference(each),
            higher_is_better=each["better"] != "lower",
            describes=each["better"] == "neither",
            n_full=each["n"],
        )


def difference_from_base(rows: list[Row]) -> Difference | None:
    """What a benchmark says itself of the tuned model against its base, item by item."""
    told = next((row.details["difference_from_base"] for row in rows if "difference_from_base" in row.details), None)
    if told is None:
        return None
    return Difference(
        value=told["value"], ci95=(told["ci95"][0], told["ci95"][1]) if told["ci95"] else None, n=told["n"]
    )


def difference(compared: dict[str, Any] | None) -> Difference | None:
    if compared is None:
        return None
    ci95 = compared["ci95"]
    return Difference(
        value=compared["difference"],
        ci95=(ci95[0], ci95[1]) if ci95 else None,
        n=compared["n"],
        wins=compared["wins"],
        ties=compared["ties"],
        losses=compared["losses"],
    )


def judge_key(source: dict[str, Any]) -> JudgeKey:
    return (source["judge"], source["prompt"])


def judge_label(judge: JudgeKey, judges: Sequence[JudgeKey]) -> str:
    """The judge's model, and its prompt where one model was asked in several ways."""
    model, prompt = judge
    return model if sum(each[0] == model for each in judges) == 1 else f"{model}, {prompt}"


def scores(evidence: Evidence) -> list[Verdict]:
    """The verdicts with a score on answers, controls left out."""
    return [each for each in evidence.verdicts if each["kind"] == "score" and each["control"] is None]


def judge_findings(evidence: Evidence) -> list[Finding]:
    """A judge's mean score of each system, and the difference on the rows where it scored both."""
    found = []
    judges = scoring_judges(evidence)
    keys = [judge_key(judge) for judge in judges]
    for judge in judges:
        values = [
            Value(
                name=name,
                value=each["mean"],
                ci95=(each["ci95"][0], each["ci95"][1]) if each["ci95"] else None,
                n=each["n"],
                notes=("withheld",) if each["withheld"] else (),
            )
            for name, each in judge["scores"].items()
        ]
        found.append(
            Finding(
                system="judge",
                task="",
                metric=f"Score by {judge_label(judge_key(judge), keys)}",
                values=values,
                difference=None if any(each.value is None for each in values) else judge_difference(evidence, judge),
                higher_is_better=True,
                judge=judge_key(judge),
            )
        )
    return found


def scoring_judges(evidence: Evidence) -> list[dict[str, Any]]:
    """Without those that only compared answers side by side."""
    return [judge for judge in (evidence.judging or {}).get("judges", []) if judge["scores"]]


def judge_difference(evidence: Evidence, judge: dict[str, Any]) -> Difference | None:
    by_name: dict[str, dict[int, float]] = {}
    for verdict in scores(evidence):
        if judge_key(verdict) == judge_key(judge) and verdict["score"] is not None:
            by_name.setdefault(verdict["name"], {})[verdict["row_id"]] = verdict["score"]
    ours, theirs = by_name.get(evidence.ours or "", {}), by_name.get(evidence.theirs or "", {})
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        return None
    estimate = paired_difference([ours[row] for row in both], [theirs[row] for row in both])
    wins, losses = (sum(ours[row] > theirs[row] for row in both), sum(ours[row] < theirs[row] for row in both))
    return Difference(
        value=estimate.value,
        ci95=estimate.ci95,
        n=estimate.n,
        wins=wins,
        ties=len(both) - wins - losses,
        losses=losses,
    )


def trusted(judge: dict[str, Any], name: str | None) -> bool:
    """Whether a judge's score may be a headline: its controls passed and few of its verdicts failed."""
    return bool(judge["controls"]["passed"]) and not judge["scores"].get(name, {"withheld": True})["withheld"]


def primary(evidence: Evidence) -> Finding | None:
    """What the headline is about: the first judge that can be trusted, else exact match, else the first metric."""
    judged = judge_findings(evidence)
    for judge, finding in zip(scoring_judges(evidence), judged, strict=True):
        if trusted(judge, evidence.ours):
            return finding
    measured = [each for each in findings(evidence, ("metrics",)) if each.of(evidence.ours) is not None]
    return next((each for each in measured if each.metric == "exact_match"), measured[0] if measured else None)


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something a reader must know before the numbers; `grave` ones are red."""

    title: str
    text: str
    grave: bool


def notices(evidence: Evidence) -> list[Notice]:
    found = []
    for judge in (evidence.judging or {}).get("judges", []):
        for check in controls_of(judge):
            if not check["passed"]:
                text = f"{judge['judge']}: {check['text']}."
                found.append(Notice(title="The judge failed its controls", text=text, grave=True))
        for name, each in judge["scores"].items():
            if each["withheld"]:
                text = (
                    f"{judge['judge']}: {sum(each['failures'].values())} of its verdicts on {name} "
                    f"({100 * each['failure_rate']:.1f} %) came to nothing ({counted(each['failures'])}), and the mean "
                    "of the rest may be that of the easy rows."
                )
                found.append(Notice(title=f"The judge's score of {name} is withheld", text=text, grave=True))
        for names, each in judge["pairs"].items():
            if each["withheld"]:
                text = (
                    f"{judge['judge']}: {each['failures']} of {each['n_full']} pairs came to nothing "
                    f"({counted(each['failure_reasons'])})."
                )
                found.append(Notice(title=f"The judge's win rate of {names} is withheld", text=text, grave=True))
        if judge["stopped"]:
            text = f"{judge['judge']}: {judge['stopped']}."
            found.append(Notice(title="The judge stopped before all was judged", text=text, grave=True))
    for file in evidence.changed:
        text = "Its hash is not the one in evaluation.json: the answers below and the numbers may not belong together."
        found.append(Notice(title=f"{file} has changed since it was measured", text=text, grave=True))
    if evidence.run is not None and evidence.run["status"] != "done":
        text = f"The run's status is {evidence.run['status']!r}: curves and weights may end early."
        found.append(Notice(title="Training did not finish", text=text, grave=False))
    asked = evidence.evaluation
    if asked is not None and asked["n"] < asked["n_full"]:
        text = f"{asked['n']:,} of {asked['n_full']:,} rows were asked (limit: {asked['limit']}); the rest may differ."
        found.append(Notice(title="Only a part of the rows was evaluated", text=text, grave=False))
    return found


def controls_of(judge: dict[str, Any]) -> list[dict[str, Any]]:
    """Of its scores and of its comparisons, as far as it gave any."""
    return [check for check in (judge["controls"], judge["pair_controls"]) if check is not None]


def counted(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items(), key=lambda each: -each[1]))


@dataclass(frozen=True, kw_only=True)
class Share:
    """Rows that one system wins, ties or loses against the other, by one measure."""

    measure: str
    wins: int
    ties: int
    losses: int
    failures: int = 0
    note: str = ""


def outcomes(evidence: Evidence) -> list[Share]:
    found = [
        Share(measure=each.label, wins=d.wins, ties=d.ties, losses=d.losses)
        for each in findings(evidence, ("metrics",))
        if (d := each.difference) and d.wins is not None and d.ties is not None and d.losses is not None
    ]
    for judge in (evidence.judging or {}).get("judges", []):
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
            found.append(
                Share(
                    measure=f"Side by side ({judge['judge']})",
                    wins=each["wins"],
                    ties=each["ties"],
                    losses=each["losses"],
                    failures=each["failures"],
                    note=", ".join(notes),
                )
            )
    return found
