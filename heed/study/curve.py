"""What more rows would bring: a power law through the scores of runs that learned from shares of the training rows.

error(n) = floor + factor * n ** -slope (Hestness et al. 2017), fitted by least squares with no floor below 0. The
interval is a bootstrap over rows and seeds together; that the law continues beyond the largest share is an assumption.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from heed.measure.intervals import TAIL, Estimate
from heed.study.recipes import Recipe
from heed.study.standings import Study

SHARE = "train_share"
FEWEST_POINTS = 4
SLOPES = np.concatenate([np.linspace(0.02, 1.5, 75), np.linspace(1.6, 4, 13)])
DRAWS = 2_000


@dataclass(frozen=True, kw_only=True)
class Point:
    """The runs of one share: how many rows they learned from, and how they scored, over rows and seeds."""

    rows: int
    score: Estimate


@dataclass(frozen=True, kw_only=True)
class Curve:
    """`doubled` is the score that twice the rows would give, `gain` how much more than the law gives now.

    `check` is what the law through all points but the last says of the last one.
    """

    points: list[Point]
    doubled: Estimate
    gain: Estimate
    check: Estimate | None

    @property
    def told(self) -> bool:
        """Whether the rows and seeds say that more rows would change the score."""
        return self.gain.ci95 is not None and not self.gain.ci95[0] <= 0 <= self.gain.ci95[1]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def curve_of(study: Study) -> Curve | None:
    """Of recipes that differ only in the share of the training rows; None for others, and for fewer than four."""
    found = [each.recipe for each in study.standings]
    if len(found) < FEWEST_POINTS or any(list(each.settings) != [SHARE] for each in found):
        return None
    ordered = sorted(found, key=lambda recipe: trained_rows(recipe))
    rows = np.array([trained_rows(each) for each in ordered], dtype=float)
    scores = [np.array([study.values[run.name] for run in recipe.runs]) for recipe in ordered]
    drawn = draws(scores)
    end = study.within[1] if study.better == "higher" else study.within[0]
    sign = 1.0 if study.better == "higher" else -1.0

    def fitted(values: np.ndarray, upto: int, at: Sequence[float]) -> np.ndarray:
        """Scores of the law at each of `at`, shape (draws, len(at))."""
        errors = sign * (end - values[:, :upto])
        return end - sign * power_law(rows[:upto], errors, np.asarray(at))

    whole = np.array([[each.mean() for each in scores]])
    last = rows[-1]
    now, doubled = fitted(whole, len(rows), [last, 2 * last])[0]
    many = fitted(drawn, len(rows), [last, 2 * last])
    check = None
    if len(rows) > FEWEST_POINTS:
        n = len(rows) - 1
        check = estimate(fitted(whole, n, [last])[0, 0], fitted(drawn, n, [last])[:, 0], len(study.questions))
    return Curve(
        points=[
            Point(rows=int(count), score=estimate(each.mean(), drawn[:, place], each.shape[1]))
            for place, (count, each) in enumerate(zip(rows, scores, strict=True))
        ],
        doubled=estimate(doubled, many[:, 1], len(study.questions)),
        gain=estimate(doubled - now, many[:, 1] - many[:, 0], len(study.questions)),
        check=check,
    )


def trained_rows(recipe: Recipe) -> int:
    rows: int = recipe.runs[0].facts["encoded"]["train"]["rows"]
    return rows


def draws(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Means of each share, shape (draws, shares): the same rows drawn for all of them, seeds drawn for each."""
    generator = np.random.default_rng(0)
    count = scores[0].shape[1]
    weights = generator.standard_gamma(1.0, size=(DRAWS, count))
    weights /= weights.sum(axis=1, keepdims=True)
    means = np.empty((DRAWS, len(scores)))
    for place, each in enumerate(scores):
        seeds = generator.integers(len(each), size=(DRAWS, len(each)))
        of_seeds = weights @ each.T
        means[:, place] = np.take_along_axis(of_seeds, seeds, axis=1).mean(axis=1)
    return means


def power_law(rows: np.ndarray, errors: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The law's errors at each of `at`, shape (draws, len(at)); `errors` has shape (draws, len(rows))."""
    best = np.full(len(errors), np.inf)
    found = np.zeros((len(errors), len(at)))
    for slope in SLOPES:
        x = (rows / rows[0]) ** -slope
        centred = x - x.mean()
        factor = errors @ centred / (centred @ centred)
        floor = errors.mean(axis=1) - factor * x.mean()
        low = floor < 0
        factor = np.where(low, errors @ x / (x @ x), factor)
        floor = np.maximum(0.0, floor)
        loss = ((floor[:, None] + factor[:, None] * x - errors) ** 2).sum(axis=1)
        better = loss < best
        best = np.where(better, loss, best)
        law = floor[:, None] + factor[:, None] * (at / rows[0]) ** -slope
        found = np.where(better[:, None], law, found)
    return found


def estimate(value: float, drawn: np.ndarray, n: int) -> Estimate:
    low, high = np.quantile(drawn, [TAIL, 1 - TAIL])
    return Estimate(value=float(value), ci95=(float(low), float(high)), n=n)
