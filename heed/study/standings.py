"""How recipes score on the rows that all of them answered, and which differences are more than noise."""

import os
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from heed.errors import UserError
from heed.measure.clusters import clusters_of
from heed.measure.intervals import Estimate, Range, mean_estimate, paired_difference, range_of
from heed.measure.seeds import over_seeds, seeds_differ
from heed.measure.verdict import holm, verdict
from heed.saying import count
from heed.study.recipes import Recipe, recipes
from heed.study.runs import Question, Run

FEWEST_SHARED = 0.5
"""A run that answered a smaller share of the rows is left out, so that it does not take them from the others."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A recipe minus the model it started from, on the common rows: over rows, over seeds, and seed by seed."""

    rows: Estimate
    seeds: Estimate
    agree: int
    """Seeds whose own gain has the sign of all of them together."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A recipe by the headline metric. `behind` is the best recipe minus this one; the best has none."""

    recipe: Recipe
    rows: Estimate
    """Each row's mean over seeds."""
    seeds: Estimate
    gain: Gain | None
    behind: Estimate | None
    p_adjusted: float | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Apart:
    """A run that cannot be compared with the others."""

    run: Run
    reason: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """`standings` has the best recipe first; `questions` are the common rows."""

    metric: str
    within: Range
    better: str
    questions: list[Question]
    values: dict[str, np.ndarray]
    """Name of a run -> the value of each common row, in the order of `questions`."""
    clusters: list[Hashable] | None
    """Of the common rows; those of one cluster count as one draw, as in the runs' own reports."""
    standings: list[Standing]
    apart: list[Apart]

    def means(self, recipe: Recipe) -> list[float]:
        """Each common row's mean over the recipe's seeds."""
        means: list[float] = np.mean([self.values[run.name] for run in recipe.runs], axis=0).tolist()
        return means

    def as_json(self, folder: Path) -> dict[str, Any]:
        """With the runs' paths from the folder that the file is in."""
        return {
            "metric": self.metric,
            "better": self.better,
            "rows": len(self.questions),
            "recipes": [standing_json(each, folder) for each in self.standings],
            "apart": [{"run": from_folder(each.run, folder), "reason": each.reason} for each in self.apart],
        }


def standing_json(standing: Standing, folder: Path) -> dict[str, Any]:
    return {
        "name": standing.recipe.name,
        "runs": [from_folder(run, folder) for run in standing.recipe.runs],
        "settings": standing.recipe.settings,
        **{
            name: asdict(each) if each is not None else None
            for name, each in (
                ("rows", standing.rows),
                ("seeds", standing.seeds),
                ("gain", standing.gain),
                ("behind_the_best", standing.behind),
            )
        },
        "p_adjusted": standing.p_adjusted,
        "verdict": standing.verdict,
    }


def from_folder(run: Run, folder: Path) -> str:
    return Path(os.path.relpath(run.folder, folder.absolute())).as_posix()


def study(runs: Sequence[Run], metric: str | None = None) -> Study:
    """Raises UserError when fewer than two runs can be compared, with what is wrong with each."""
    named = Counter(run.metric for run in runs if run.metric)
    metric = metric or (named.most_common(1)[0][0] if named else "exact_match")
    alike, apart = comparable(runs, metric)
    if len(alike) < 2:
        reasons = "".join(f"\n  {each.run.name}: {each.reason}" for each in apart)
        raise UserError(f"runs: there are no two that can be compared{reasons}")
    values = {run.name: run.values(metric, run.evidence.ours) for run in alike}
    questions = [each for each in alike[0].questions if all(each in given for given in values.values())]
    found = Study(
        metric=metric,
        within=range_of([value for given in values.values() for value in given.values()]),
        better="higher" if higher_is_better(alike[0], metric) else "lower",
        questions=questions,
        values={name: np.array([given[each] for each in questions]) for name, given in values.items()},
        clusters=clusters_in(alike[0], questions),
        standings=[],
        apart=apart,
    )
    return replace(found, standings=ranked(recipes(alike), found))


def clusters_in(run: Run, questions: Sequence[Question]) -> list[Hashable] | None:
    """Which of the rows ask the same or nearly repeat each other; None where none do."""
    rows = [run.questions[each] for each in questions]
    found = clusters_of([run.answers[row] for row in rows], None) if rows else None
    return [found[row] for row in rows] if found is not None else None


def higher_is_better(run: Run, metric: str) -> bool:
    return next((row.higher_is_better for row in run.evidence.rows if row.metric == metric), True)


def comparable(runs: Sequence[Run], metric: str) -> tuple[list[Run], list[Apart]]:
    """The runs that were asked the same rows in the same way, and the others with the reason why not."""
    apart: list[Apart] = []
    left: list[Run] = []
    for run in runs:
        reason = unfit(run, metric)
        if reason:
            apart.append(Apart(run=run, reason=reason))
        else:
            left.append(run)
    if not left:
        return [], apart
    contract = Counter(run.contract for run in left).most_common(1)[0][0]
    asked = [run for run in left if run.contract == contract]
    apart += [Apart(run=run, reason=other_prompt(run, asked[0])) for run in left if run.contract != contract]
    rows = Counter(frozenset(run.questions) for run in asked).most_common(1)[0][0]
    alike = []
    for run in asked:
        shared = len(rows & run.questions.keys())
        if shared < FEWEST_SHARED * len(rows):
            reason = f"other rows: it answered {shared:,} of the {count(len(rows), 'row')} that the others answered"
            apart.append(Apart(run=run, reason=reason))
        else:
            alike.append(run)
    return alike, apart


def unfit(run: Run, metric: str) -> str:
    """Why a run has nothing to compare; empty if it has."""
    status = run.facts.get("status")
    if status != "done":
        return f"it is not finished ({status}); run its command again"
    if not run.questions:
        return "it has answered nothing yet; eval_responses.py asks it"
    if not run.values(metric, run.evidence.ours):
        return f"its answers have no {metric}; eval_responses.py score measures them"
    return ""


def other_prompt(run: Run, first: Run) -> str:
    ours, theirs = ((each.evidence.evaluation or {}).get("prompt") for each in (run, first))
    names = f" ({ours}, the others {theirs})" if ours != theirs else ""
    return f"another prompt{names}: a difference would not come from the training alone"


def ranked(found: Sequence[Recipe], study: Study) -> list[Standing]:
    """The best first, with each other's distance to it."""
    sign = 1 if study.better == "higher" else -1
    means = [study.means(recipe) for recipe in found]
    order = sorted(range(len(found)), key=lambda place: -sign * sum(means[place]))
    best = order[0]
    seeds = [[float(study.values[run.name].mean()) for run in recipe.runs] for recipe in found]
    behind = {
        place: paired_difference(means[best], means[place], within=study.within, clusters=study.clusters)
        for place in order[1:]
    }
    chances = {
        str(place): max(each.p, seeds_differ(seeds[best], seeds[place]) or 0.0)
        for place, each in behind.items()
        if each.p is not None
    }
    # The best was chosen by looking at all, so each pair counts as compared.
    adjusted = holm(chances, of=len(found) * (len(found) - 1) // 2)
    return [
        Standing(
            recipe=found[place],
            rows=mean_estimate(means[place], within=study.within, clusters=study.clusters),
            seeds=over_seeds(seeds[place]),
            gain=gain(found[place], study),
            behind=behind.get(place),
            p_adjusted=adjusted.get(str(place)),
            verdict=verdict_of(behind.get(place), adjusted.get(str(place)), study.better),
        )
        for place in order
    ]


def verdict_of(behind: Estimate | None, p: float | None, better: str) -> str:
    """Of the best against this one."""
    return "" if behind is None else verdict(behind.value, behind.ci95, p, better)


def gain(recipe: Recipe, study: Study) -> Gain | None:
    """None if a run was not compared with what it started from, or not on all common rows."""
    before = [
        run.values(study.metric, run.evidence.theirs) if run.evidence.theirs == "base" else {} for run in recipe.runs
    ]
    if any(each not in known for known in before for each in study.questions):
        return None
    after = [study.values[run.name] for run in recipe.runs]
    began = [np.array([known[each] for each in study.questions]) for known in before]
    before_all = np.mean(began, axis=0).tolist()
    rows = paired_difference(study.means(recipe), before_all, within=study.within, clusters=study.clusters)
    seeds = [float((ours - base).mean()) for ours, base in zip(after, began, strict=True)]
    agree = sum(np.sign(each) == np.sign(rows.value) for each in seeds)
    return Gain(rows=rows, seeds=over_seeds(seeds), agree=int(agree))
