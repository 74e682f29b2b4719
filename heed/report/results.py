"""A metric of all systems, and how the two that are compared differ by it: the lines of the report's tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from heed.measure.comparison import Difference
from heed.measure.rows import Row
from heed.report.evidence import Evidence
from heed.report.words import MEANINGS, NOT_MEASURED, WITHHELD, Interval, is_wide, label, number

JudgeKey = tuple[str, str]
"""A judge is a model with a prompt: the same model asked otherwise is another judge."""
OWN_SYSTEMS = ("metrics", "stop", "judge", "comparison", "controls", "forgetting")


@dataclass(frozen=True, kw_only=True)
class Value:
    """What one system measured."""

    name: str
    value: float | None
    ci95: Interval | None
    n: int | None
    notes: tuple[str, ...] = ()
    withheld: bool = False

    @property
    def absent(self) -> str:
        """What is shown where there is no value."""
        return WITHHELD if self.withheld else NOT_MEASURED


@dataclass(frozen=True, kw_only=True)
class Result:
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
    commonest: float | None = None
    n_full: int | None = None
    settings: str = ""
    judge: JudgeKey | None = None
    against: str | None = None
    """The other system of the difference, where that is not the one of all metrics."""

    @property
    def label(self) -> str:
        return label(self.metric)

    @property
    def meaning(self) -> str:
        return MEANINGS.get(self.metric, "")

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
    def ends(self) -> list[float]:
        """The values and where their intervals end."""
        return [end for each in self.values for end in (each.value, *(each.ci95 or ())) if end is not None]

    @property
    def high(self) -> float:
        """Where the scale ends: 1 for shares, 100 for scores, otherwise beyond the largest value."""
        largest = max(self.ends, default=1.0)
        return 1.0 if largest <= 1 else 100.0 if largest <= 100 else largest * 1.05

    @property
    def low(self) -> float:
        return min(0.0, *self.ends) if self.ends else 0.0

    @property
    def wide(self) -> bool:
        """Whether its numbers, and the difference, are written with one decimal."""
        return is_wide(*self.ends)

    def of(self, name: str | None) -> Value | None:
        return next((each for each in self.values if each.name == name), None)

    def text(self, value: Value) -> str:
        return number(value.value, wide=self.wide, absent=value.absent)

    @property
    def verdict(self) -> str:
        """In the words of measure/verdict.py; empty for what describes."""
        return self.difference.verdict if self.difference is not None else ""


def results(evidence: Evidence, systems: tuple[str, ...]) -> list[Result]:
    """The metrics of rows.jsonl; without it, what comparison.json says of them."""
    found = list(from_rows(evidence, [row for row in evidence.rows if row.system in systems]))
    if "metrics" in systems and evidence.comparison is not None:
        known = {row.metric for row in evidence.rows if row.system in OWN_SYSTEMS}
        found += [each for each in from_comparison(evidence.comparison) if each.metric not in known]
    return found


def benchmarks(evidence: Evidence) -> list[Result]:
    """The headline metric of every benchmark as a whole; its parts and other metrics stay in rows.jsonl."""
    return list(from_rows(evidence, benchmark_rows(evidence)))


def benchmark_rows(evidence: Evidence) -> list[Row]:
    rows = [row for row in evidence.rows if row.system not in OWN_SYSTEMS]
    return [row for row in rows if row.details.get("headline", True) and row.details.get("part_of") is None]


def from_rows(evidence: Evidence, rows: list[Row]) -> Iterator[Result]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        how = map(str, (row.fewshot, row.chat_template, row.limit))
        groups.setdefault((row.system, row.task, row.metric, *how), []).append(row)
    compared = dict((evidence.comparison or {}).get("metrics", {}))
    order = {name: place for place, name in enumerate(evidence.names)}
    for group in groups.values():
        first = group[0]
        # The comparison covers all rows; a second measurement of the same metric is one of a part of them.
        found = compared.pop(first.metric, None) if first.system in OWN_SYSTEMS else None
        yield Result(
            system=first.system,
            task=first.task,
            metric=first.metric,
            values=[
                Value(
                    name=row.name,
                    value=row.value,
                    ci95=row.ci95,
                    n=row.n,
                    notes=row.notes,
                    withheld=row.system == "judge",
                )
                for row in sorted(group, key=lambda row: order.get(row.name, -1))
            ],
            difference=difference(found) if found else difference_from_base(group),
            higher_is_better=first.higher_is_better,
            describes=first.details.get("better") == "neither",
            chance=first.chance,
            commonest=first.commonest,
            n_full=max(row.n_full for row in group),
            settings=", ".join(how_asked(first)) if first.system not in OWN_SYSTEMS else "",
        )


def how_asked(row: Row) -> list[str]:
    """What a benchmark's number depends on besides the model."""
    words = [f"{row.fewshot}-shot"] if row.fewshot is not None else []
    words += [] if row.chat_template is None else ["chat template" if row.chat_template else "plain text"]
    return words + ([f"limit {row.limit}"] if row.limit is not None else [])


def from_comparison(comparison: dict[str, Any]) -> Iterator[Result]:
    for metric, each in comparison["metrics"].items():
        yield Result(
            system="metrics",
            task="",
            metric=metric,
            values=[Value(name=comparison[side], value=each[side], ci95=None, n=each["n"]) for side in ("a", "b")],
            difference=difference(each),
            higher_is_better=each["better"] != "lower",
            describes=each["better"] == "neither",
            n_full=each["n"],
        )


def difference(compared: dict[str, Any]) -> Difference:
    """As comparison.json has it."""
    return Difference(**(compared | {"ci95": pair(compared["ci95"])}))


def difference_from_base(rows: Sequence[Row]) -> Difference | None:
    """What a benchmark says itself of the tuned model against its base, item by item."""
    for row in rows:
        told = row.details.get("difference_from_base")
        if told is not None and row.value is not None:
            return Difference(
                a=row.value - told["value"],
                b=row.value,
                difference=told["value"],
                ci95=pair(told["ci95"]),
                n=told["n"],
                wins=None,
                ties=None,
                losses=None,
                better="higher" if row.higher_is_better else "lower",
                p=told.get("p"),
            )
    return None


def pair(ends: Sequence[float] | None) -> Interval | None:
    return (ends[0], ends[1]) if ends else None
