"""A judge's mean, corrected by the people who scored some of the same rows (prediction-powered inference)."""

from collections.abc import Sequence

import numpy as np

from heed.measure.intervals import PERCENT, SMALLEST_UNKNOWN, Estimate, Range, from_draws, weighted_sums

DRAWS = 10_000


def corrected_mean(judged: Sequence[float], both: Sequence[tuple[float, float]]) -> Estimate | None:
    """The mean that people would give: the judge's, moved by how far people differ on rows that both scored.

    `both` has (judge, people). The interval carries the error of both means (Angelopoulos et al. 2023). None for fewer
    rows than an interval needs; the rows that people scored must have been chosen at random.
    """
    if len(both) < SMALLEST_UNKNOWN:
        return None
    scores, gaps = np.asarray(judged, dtype=float), np.array([people - judge for judge, people in both], dtype=float)
    value = float(scores.mean() + gaps.mean())
    draws = zip(mean_draws(scores, PERCENT, seed=0), mean_draws(gaps, (-100.0, 100.0), seed=1), strict=True)
    low, high = (np.clip(scored + moved, *PERCENT) for scored, moved in draws)
    found = from_draws(low, high, value=float(np.clip(value, *PERCENT)), n=len(both))
    return Estimate(value=found.value, ci95=found.ci95, n=found.n)


def mean_draws(values: np.ndarray, within: Range, *, seed: int) -> list[np.ndarray]:
    """Of the mean's lower limit, and of its upper one."""
    rows = np.stack([values, np.ones(len(values))], axis=1)
    sums = weighted_sums(rows, np.array([[limit, 1.0] for limit in within]), DRAWS, seed=seed)
    return [each[:, 0] / each[:, 1] for each in sums]
