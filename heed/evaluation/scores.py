"""Numbers: every metric of every answer, and the two systems compared (items.jsonl, rows.jsonl, comparison.json)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from heed.audit.flags import read_flags, was_compared
from heed.evaluation.forgetting import forgetting_rows
from heed.evaluation.kept import Answers, Evaluation, write_evaluation
from heed.evaluation.stops import STOP_METRICS, kept_measurements, read_stops
from heed.measure.clusters import Clusters
from heed.measure.comparison import Comparison, System, compare, comparison_rows, write_comparison
from heed.measure.lengths import length_matched
from heed.measure.measurements import Measurement, as_rows, make_items, write_items
from heed.measure.metrics import Metric, measure, with_intervals
from heed.measure.rows import Row, drop_rows, write_rows
from heed.runs.finished import find_run
from heed.saying import Say, count


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Of each system, and of the one evaluated against the other, if there is one."""

    measurements: dict[str, list[Measurement]]
    clean: dict[str, list[Measurement]]
    """The same without the rows that training gave away; empty where there are none."""
    comparison: Comparison | None


def score(
    folder: Path,
    evaluation: Evaluation,
    answers: Answers,
    metrics: dict[str, Metric],
    *,
    clusters: Clusters | None = None,
    seen_rows: frozenset[int],
    say: Say,
) -> tuple[Evaluation, Scores]:
    """Measure all answers, compare two systems, and write evaluation.json, items.jsonl, rows.jsonl, comparison.json.

    `seen_rows` are those that training rows gave away, as the audit found: all is measured again without them. The
    evaluation that comes back has the best of the other systems first: it is the one that is compared.
    """
    stops = read_stops(folder)
    found = {}
    for name, given in answers.items():
        say(f"measuring {count(len(given), 'answer')} of {name}")  # ROUGE-L of long ones takes minutes
        stopped = with_intervals(kept_measurements(stops.get(name, {}), given), given, clusters)
        found[name] = [*measure(metrics, given, clusters=clusters), *stopped]
    evaluation = best_first(evaluation, headline_values(evaluation, found))
    write_evaluation(folder, evaluation)
    clean: dict[str, list[Measurement]] = {}
    rows: list[Row] = []
    for name, measurements in found.items():
        rows += measurement_rows(evaluation, name, measurements, evaluation.what)
        kept = [each for each in answers[name] if each.row_id not in seen_rows]
        if 0 < len(kept) < len(answers[name]):
            clean[name] = measure(metrics, kept, clusters=clusters)
            rows += measurement_rows(
                evaluation, name, clean[name], f"{evaluation.what}, those given away in training left out"
            )
    comparison = None
    if evaluation.other is not None:
        a, b = (
            System(
                name=name,
                answers=answers[name],
                measurements=found[name],
                contract=evaluation.systems[name].contract,
                own_template=evaluation.systems[name].own_template,
            )
            for name in (evaluation.other, evaluation.evaluated)
        )
        comparison = compare(a, b, headline=evaluation.headline_metric, clusters=clusters)
        name = comparison.headline if comparison.headline in metrics else next(iter(metrics), "")
        if name in comparison.metrics:
            whole = comparison.metrics[name]
            matched = length_matched(a, b, metrics[name], whole, name=name, clusters=clusters)
            comparison = replace(comparison, length=matched)
        write_comparison(folder, comparison)
        provenance = evaluation.provenance(evaluation.evaluated)
        rows += comparison_rows(comparison, task=evaluation.what, n_full=evaluation.n_full, **provenance)
    items = [
        item
        for name, given in answers.items()
        for item in make_items(name, [each.row_id for each in given], found[name])
    ]
    write_items(folder, items)
    drop_rows(folder, ("forgetting",))
    write_rows(folder, [*rows, *forgetting_rows(folder, evaluation)])
    return evaluation, Scores(measurements=found, clean=clean, comparison=comparison)


def headline_values(evaluation: Evaluation, found: dict[str, list[Measurement]]) -> dict[str, float]:
    """How well each system does by the metric of the headline; by the first one, where a judge is to say that."""
    values = {}
    for name, measurements in found.items():
        named = next((each for each in measurements if each.metric == evaluation.headline_metric), measurements[0])
        if named.value is not None:
            values[name] = -named.value if named.better == "lower" else named.value
    return values


def best_first(evaluation: Evaluation, values: Mapping[str, float]) -> Evaluation:
    """The same with the best of the other systems first; where two do as well, the one asked like the evaluated."""
    *others, evaluated = evaluation.systems
    others.sort(key=lambda name: (-values.get(name, -math.inf), evaluation.systems[name].own_template))
    return replace(evaluation, systems={name: evaluation.systems[name] for name in (*others, evaluated)})


def measurement_rows(evaluation: Evaluation, name: str, measurements: Sequence[Measurement], task: str) -> list[Row]:
    return [
        row
        for each in measurements
        for row in as_rows(
            [each],
            system="stop" if each.metric in STOP_METRICS else "metrics",
            task=task,
            name=name,
            n_full=evaluation.n_full,
            **evaluation.provenance(name),
        )
    ]


GIVEN_AWAY = {"split_overlap", "near_split_overlap", "contaminated"}


def rows_given_away(evaluation: Evaluation, say: Say) -> frozenset[int]:
    """Rows whose question, or nearly the same one, was in the training rows of the run that is evaluated.

    The audit of the run knows its own splits, and the files it was told to compare with (audit_against).
    """
    run = find_run(evaluation.systems[evaluation.evaluated].model)
    if run is None:
        return frozenset()
    data = None if evaluation.split is not None else evaluation.data
    if data is not None and not Path(data).is_file():
        return frozenset()
    if not was_compared(run, data):
        if data is not None:
            say(f"nobody has checked whether {data} is among the training rows of {run} (audit_against: [{data}])")
        return frozenset()
    return frozenset(row_id for row_id, flags in read_flags(run, data).items() if GIVEN_AWAY & set(flags))
