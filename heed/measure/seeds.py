"""What another seed changes: means of a few runs, whose spread is taken to be normal (Student 1908, Welch 1947)."""

import math
from collections.abc import Sequence

import numpy as np

from heed.measure.intervals import TAIL, Estimate

POINTS = 10_001  # of the integral


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean over seeds with its 95 % interval, which one seed alone does not have; `n` is the number of seeds."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(value=mean, ci95=None, n=n)
    half = quantile(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Estimate(value=mean, ci95=(mean - half, mean + half), n=n)


def seeds_differ(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """The two-sided p-value that two recipes have the same mean over all seeds; None for a recipe of one seed."""
    if min(len(ours), len(theirs)) < 2:
        return None
    errors = [float(np.var(each, ddof=1)) / len(each) for each in (ours, theirs)]
    gap = abs(float(np.mean(ours)) - float(np.mean(theirs)))
    if sum(errors) == 0:
        return 0.0 if gap else 1.0
    freedom = sum(errors) ** 2 / sum(
        error**2 / (len(each) - 1) for error, each in zip(errors, (ours, theirs), strict=True)
    )
    return 2 * tail(gap / math.sqrt(sum(errors)), freedom)


def tail(t: float, freedom: float) -> float:
    """The chance that Student's t is above `t`; the integral is over the arc tangent of t, where it has an end."""
    angles = np.linspace(math.atan(t / math.sqrt(freedom)), math.pi / 2, POINTS)
    whole = math.sqrt(math.pi) * math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2))
    return float(np.trapezoid(np.cos(angles) ** (freedom - 1), angles)) / whole


def quantile(freedom: float) -> float:
    """The t that is exceeded with a chance of TAIL."""
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle, freedom) > TAIL else (low, middle)
    return high
