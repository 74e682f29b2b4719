"""From scores to rows: intervals, and what changed between base and tuned on the same items."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from heed.benchmarks.asking import Outcome, Score, mean_of
from heed.benchmarks.suite import Benchmark
from heed.files import run_folder
from heed.measure.intervals import (
    SMALLEST_UNKNOWN,
    Estimate,
    Range,
    from_draws,
    limits_of,
    mean_estimate,
    paired_difference,
    range_of,
    weighted_sums,
)
from heed.measure.rows import Row

if TYPE_CHECKING:  # lm_eval is not needed for the other systems
    from heed.benchmarks.tasks import Tasks

RESAMPLES, RESAMPLES_OF_MANY, MANY = 500, 200, 5000
"""Resamplings where the library's own aggregation has to be called for each; fewer when it takes long."""
MANY_TASKS = 20
RESAMPLES_OF_TASKS = 2000

Aggregate = Callable[[Sequence[Any]], float]


def score_rows(
    benchmark: Benchmark,
    outcome: Outcome,
    *,
    name: str,
    base: Outcome | None,
    tasks: "Tasks | None",
    library: str,
    command: str,
) -> list[Row]:
    """The rows of one model in one benchmark; where the base model was measured too, each with what was gained.

    Without `tasks` every metric must be a plain mean of its items.
    """
    scores = with_family_means(benchmark, outcome.scores)
    theirs = (
        {} if base is None else {(each.task, each.metric): each for each in with_family_means(benchmark, base.scores)}
    )
    rows, versions = [], run_folder.versions()
    for score in scores:
        compared = theirs.get((score.task, score.metric))
        gained = difference(score, compared, tasks) if compared is not None else None
        measured = estimate(score, tasks)
        rows.append(
            score_row(
                benchmark,
                outcome,
                score,
                measured,
                gained,
                name=name,
                library=library,
                versions=versions,
                command=command,
            )
        )
    return rows


def score_row(
    benchmark: Benchmark,
    outcome: Outcome,
    score: Score,
    measured: Estimate,
    gained: Estimate | None,
    *,
    name: str,
    library: str,
    versions: dict[str, str],
    command: str,
) -> Row:
    key = outcome.key
    details: dict[str, Any] = {
        "task_version": score.version,
        "model_sha256": key["model_sha256"],
        "part_of": score.part_of,
        "headline": not benchmark.headline or score.metric.partition(",")[0] in benchmark.headline,
    }
    if gained is not None:
        details["difference_from_base"] = asdict(gained)
    return Row(
        system=benchmark.system,
        task=score.task,
        metric=score.metric,
        value=measured.value,
        ci95=measured.ci95,
        n=measured.n,
        n_full=score.n_full,
        name=name,
        model=key["model"],
        contract=key["contract"],
        data=key["data"],
        data_sha256=key["data_sha256"],
        library=library,
        versions=versions,
        command=command,
        higher_is_better=score.higher_is_better,
        chance=score.chance,
        commonest=score.commonest,
        fewshot=score.fewshot,
        chat_template=key["chat_template"],
        limit=key["limit"],
        seconds=round(outcome.seconds, 1),
        notes=(*outcome.notes, *([] if score.note is None else [score.note])),
        details=details,
    )


def with_family_means(benchmark: Benchmark, scores: Sequence[Score]) -> list[Score]:
    """The scores, led by one for each family of many tasks that lm_eval does not sum up; those are then part of it."""
    metrics = sorted({score.metric for score in scores})
    means = {metric: mean_of_tasks(scores, name=benchmark.name, metric=metric) for metric in metrics}
    led = [mean for mean in means.values() if mean is not None]
    return led + [
        replace(score, part_of=benchmark.name) if means[score.metric] is not None and score.part_of is None else score
        for score in scores
    ]


def numbers(values: Sequence[Any]) -> np.ndarray | None:
    """The items as an array, when each is one number."""
    plain = bool(values) and all(isinstance(value, bool | int | float) for value in values)
    return np.asarray(values, dtype=float) if plain else None


def is_mean(score: Score) -> bool:
    """Whether the value is the plain mean of its items (accuracy), and not a correlation or an F1 over all of them."""
    array = numbers(score.pooled)
    return array is not None and math.isclose(float(array.mean()), score.value, rel_tol=1e-9, abs_tol=1e-9)


def is_mean_of_means(score: Score) -> bool:
    """Whether every task counts the same, however many items it has."""
    arrays = [numbers(values) for values in score.values.values()]
    if len(arrays) < 2 or any(array is None for array in arrays):
        return False
    means = [float(array.mean()) for array in arrays if array is not None]
    return math.isclose(math.fsum(means) / len(means), score.value, rel_tol=1e-9, abs_tol=1e-9)


def estimate(score: Score, tasks: "Tasks | None") -> Estimate:
    """The library's value with its 95 % interval over its items."""
    n = len(score.pooled) or score.n
    if is_mean(score):
        values = [float(value) for value in score.pooled]
        return mean_estimate(values, within=range_of(values))
    if is_mean_of_means(score):
        parts = [np.asarray(items, dtype=float) for items in score.values.values()]
        return replace(of_tasks(parts, range_of(np.concatenate(parts).tolist()), score.value), p=None)
    if len(score.values) > 1 or n < SMALLEST_UNKNOWN or not score.pooled:  # a group that is neither, or too few
        return Estimate(value=score.value, ci95=None, n=n)
    assert tasks is not None
    return replace(resample(score.pooled, tasks.aggregation(score.task, score.metric), score.value), p=None)


def difference(ours: Score, theirs: Score, tasks: "Tasks | None") -> Estimate | None:
    """How much more we score than they on the same items, with its interval; None where items cannot be paired."""
    if {name: len(items) for name, items in ours.values.items()} != {
        name: len(items) for name, items in theirs.values.items()
    } or not ours.pooled:
        return None
    if is_mean(ours) and is_mean(theirs):
        mine, others = [float(x) for x in ours.pooled], [float(x) for x in theirs.pooled]
        return paired_difference(mine, others, within=range_of(mine + others))
    value, n = ours.value - theirs.value, len(ours.pooled)
    if is_mean_of_means(ours) and is_mean_of_means(theirs):
        low, high = range_of([float(item) for side in (ours, theirs) for item in side.pooled])
        gaps = [np.subtract(items, theirs.values[name], dtype=float) for name, items in ours.values.items()]
        return of_tasks(gaps, (low - high, high - low), value)
    if len(ours.values) > 1:
        return None
    if n < SMALLEST_UNKNOWN:
        return Estimate(value=value, ci95=None, n=n)
    assert tasks is not None
    aggregate = tasks.aggregation(ours.task, ours.metric)

    def gap(pairs: Sequence[Any]) -> float:
        return aggregate([mine for mine, _ in pairs]) - aggregate([other for _, other in pairs])

    return resample(list(zip(ours.pooled, theirs.pooled, strict=True)), gap, value)


def of_tasks(parts: Sequence[np.ndarray], within: Range, value: float) -> Estimate:
    """Of a mean of means: the items of each task are drawn, the tasks stay."""
    ends: list[list[np.ndarray]] = [[], []]
    for number, part in enumerate(parts):
        rows = np.stack([part, np.ones(len(part))], axis=1)
        unseen = np.array([[limit, 1.0] for limit in limits_of(part, within)])
        for drawn, sums in zip(ends, weighted_sums(rows, unseen, RESAMPLES_OF_TASKS, seed=number), strict=True):
            drawn.append(sums[:, 0] / sums[:, 1])
    low, high = (np.mean(drawn, axis=0) for drawn in ends)
    return from_draws(low, high, value=value, n=sum(map(len, parts)))


def resample(items: Sequence[Any], aggregate: Aggregate, value: float) -> Estimate:
    """Of a score that only its library can compute: the percentiles of items drawn again, unless all draws agree."""
    generator = np.random.default_rng(0)
    count = RESAMPLES if len(items) <= MANY else RESAMPLES_OF_MANY
    draws = (generator.integers(0, len(items), len(items)) for _ in range(count))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sklearn, about draws with one label only
        drawn = np.array([float(aggregate([items[index] for index in draw])) for draw in draws])
    if np.ptp(drawn) == 0:
        return Estimate(value=value, ci95=None, n=len(items))
    return from_draws(drawn, drawn, value=value, n=len(items))


def mean_of_tasks(scores: Sequence[Score], *, name: str, metric: str) -> Score | None:
    """One number for a family of many tasks that its library does not sum up: their unweighted mean."""
    parts = [score for score in scores if score.metric == metric and score.part_of is None]
    if len(parts) < MANY_TASKS:
        return None
    return Score(
        task=name,
        metric=metric,
        value=math.fsum(part.value for part in parts) / len(parts),
        values={part.task: part.pooled for part in parts},
        n=sum(part.n for part in parts),
        n_full=sum(part.n_full for part in parts),
        fewshot=parts[0].fewshot,
        version=parts[0].version,
        higher_is_better=parts[0].higher_is_better,
        chance=mean_of([(part.chance, 1) for part in parts]),
        commonest=mean_of([(part.commonest, 1) for part in parts]),
        part_of=None,
        note=f"unweighted mean of {len(parts)} tasks",
    )
