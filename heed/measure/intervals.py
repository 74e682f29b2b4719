"""How sure a number is: 95 % intervals right at small n and at the ends of the scale, and the p-value of no change.

The interval of a mean assumes that rows are drawn alike, and of the scores only the range they can have. Rows are drawn
again with random weights (the Bayesian bootstrap), together with one more row that nobody has seen: at the low end of
the range for the lower limit, at the high end for the upper one (Gaffke 2005; Learned-Miller and Thomas 2019). For
scores of 0 and 1 that is the interval of Clopper and Pearson, and for paired ones the exact test of McNemar.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

TAIL = 0.025
Range = tuple[float, float]
SHARE: Range = (0.0, 1.0)
PERCENT: Range = (0.0, 100.0)
ANY: Range = (-math.inf, math.inf)
SMALLEST = 2
"""Rows that an interval needs where the range of scores is known."""
SMALLEST_UNKNOWN = 10
"""Rows, or clusters of rows, that it needs where the range is taken from the scores themselves, or sizes differ."""
FEWEST_DRAWS, MOST_DRAWS, DRAWN = 2_000, 40_000, 2_000_000
BLOCK = 4_000_000  # numbers in memory at once
ROUNDING = 1e-6  # how far beyond the range another program's score may be, as a share of the range


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value of `n` rows with its 95 % interval; None where they are too few to say."""

    value: float
    ci95: tuple[float, float] | None
    n: int
    p: float | None = None
    """Of a difference: how often one as large comes about by chance alone. Below 0.05 where ci95 excludes 0."""


def mean_estimate(
    values: Sequence[float], *, within: Range = SHARE, clusters: Sequence[Hashable] | None = None
) -> Estimate:
    """The mean of scores `within` a range. An end that nobody knows is infinite, and guessed from the scores.

    Rows of one cluster count as one draw. Raises ValueError for no values: a mean of nothing is not 0.
    """
    return replace(estimate(values, within, clusters), p=None)


def paired_difference(
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    within: Range = SHARE,
    clusters: Sequence[Hashable] | None = None,
) -> Estimate:
    """The mean of `ours - theirs`, row by row, both `within` the same range.

    Raises ValueError when the two do not cover the same number of rows.
    """
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    return estimate(differences, (within[0] - within[1], within[1] - within[0]), clusters)


def estimate(values: Sequence[float], within: Range, clusters: Sequence[Hashable] | None) -> Estimate:
    """A mean with its interval, and the p-value of 0 where the range goes to both sides of it."""
    if not len(values):
        raise ValueError("mean of no values")
    array = np.asarray(values, dtype=float)
    value, n = float(array.mean()), len(array)
    rows = together(np.stack([array, np.ones(n)], axis=1), clusters)
    limits = limits_for(array, within, len(rows))
    if limits is None:
        return Estimate(value=value, ci95=None, n=n)
    low, high = limits
    if np.isfinite(within).all() and len(rows) == n and np.isin(array, limits).all():
        successes = int((array == high).sum())
        least, most = (low + end * (high - low) for end in share_interval(successes, n))
        return Estimate(value=value, ci95=(least, most), n=n, p=sign_test(successes, n))
    size = n / len(rows)
    unseen = np.array([[limit * size, size] for limit in limits])
    return resampled(rows, unseen, lambda sums: sums[:, 0] / sums[:, 1], value=value, n=n)


def ratio_estimate(parts: Sequence[float], sizes: Sequence[float]) -> Estimate:
    """The sum of the parts by the sum of their sizes, such as a loss per token; each part with its size is one draw.

    The range of such ratios is taken from those at hand.
    """
    rows = np.stack([np.asarray(parts, dtype=float), np.asarray(sizes, dtype=float)], axis=1)
    value, n = float(rows[:, 0].sum() / rows[:, 1].sum()), len(rows)
    limits = limits_for(rows[:, 0] / rows[:, 1], ANY, n)
    if limits is None:
        return Estimate(value=value, ci95=None, n=n)
    size = float(rows[:, 1].mean())
    unseen = np.array([[limit * size, size] for limit in limits])
    return resampled(rows, unseen, lambda sums: sums[:, 0] / sums[:, 1], value=value, n=n)


def limits_for(array: np.ndarray, within: Range, units: int) -> Range | None:
    """The range for an interval; None where so many rows, or clusters of them, are too few, or too much alike."""
    low, high = limits_of(array, within)
    simple = np.isfinite(within).all() and units == len(array)
    return None if low == high or units < (SMALLEST if simple else SMALLEST_UNKNOWN) else (low, high)


def limits_of(array: np.ndarray, within: Range) -> Range:
    """The range of the scores; instead of an infinite end, the last score and as much again as they span."""
    least, most = float(array.min()), float(array.max())
    slack = ROUNDING * (within[1] - within[0])
    if least < within[0] - slack or most > within[1] + slack:
        raise ValueError(f"scores from {least:g} to {most:g} are outside the range from {within[0]:g} to {within[1]:g}")
    low = 2 * least - most if math.isinf(within[0]) else min(within[0], least)
    high = 2 * most - least if math.isinf(within[1]) else max(within[1], most)
    return low, high


def range_of(values: Sequence[float]) -> Range:
    """What scores of other libraries seem to be: shares, percentages, or nobody knows."""
    least, most = min(values, default=0.0), max(values, default=0.0)
    return next((each for each in (SHARE, PERCENT) if each[0] <= least and most <= each[1]), ANY)


def together(rows: np.ndarray, clusters: Sequence[Hashable] | None) -> np.ndarray:
    """The rows, or the sum of those of each cluster."""
    if clusters is None:
        return rows
    places = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros((len(places), rows.shape[1]))
    np.add.at(sums, [places[cluster] for cluster in clusters], rows)
    return sums


def resampled(
    rows: np.ndarray,
    unseen: np.ndarray,
    value_of: Callable[[np.ndarray], np.ndarray],
    *,
    value: float,
    n: int,
    draws: int | None = None,
) -> Estimate:
    """`value_of` sums of weighted rows, shape (draws, columns); `unseen` has the worst row there can be, and the best.

    The p-value is that of the value 0.
    """
    low, high = (value_of(sums) for sums in weighted_sums(rows, unseen, draws))
    return from_draws(low, high, value=value, n=n, units=len(rows))


def from_draws(low: np.ndarray, high: np.ndarray, *, value: float, n: int, units: int = 0) -> Estimate:
    """The estimate whose lower limit comes from one set of draws, its upper limit from another.

    Where no draw reaches 0, p is smaller than draws can tell. With `units` (rows, or clusters of them) it is then that
    of a normal distribution as wide as the draws, but no smaller than if so many coins had all fallen alike.
    """
    ends = (float(np.quantile(low, TAIL)), float(np.quantile(high, 1 - TAIL)))
    crossed = min((low <= 0).sum(), (high >= 0).sum())
    chance = 2 * (crossed + 1) / (len(low) + 1)
    if units and not crossed:
        away = min(abs(float(each.mean())) / (float(each.std()) or 1.0) for each in (low, high))
        chance = min(chance, max(math.erfc(away / math.sqrt(2)), 2 * 0.5**units))
    return Estimate(value=value, ci95=ends, n=n, p=min(1.0, float(chance)))


def weighted_sums(rows: np.ndarray, unseen: np.ndarray, draws: int | None = None, *, seed: int = 0) -> list[np.ndarray]:
    """For each row of `unseen`: the sums of all rows and of it, with weights drawn from the exponential distribution.

    Equal rows are drawn as one, whose weight has the gamma distribution. The same rows give the same draws.
    """
    different, counts = np.unique(rows, axis=0, return_counts=True)
    shapes, alone = np.append(counts, 1.0), len(different) == len(rows)
    count = draws or int(np.clip(DRAWN // len(shapes), FEWEST_DRAWS, MOST_DRAWS))
    generator = np.random.default_rng(seed)
    sums: list[list[np.ndarray]] = [[] for _ in unseen]
    step = max(1, BLOCK // len(shapes))
    for start in range(0, count, step):
        size = min(step, count - start), len(shapes)
        # The same numbers, drawn in half the time, where no rows are equal.
        weights = generator.standard_exponential(size) if alone else generator.standard_gamma(shapes, size)
        seen = weights[:, :-1] @ different
        for place, row in enumerate(unseen):
            sums[place].append(seen + weights[:, -1:] * row)
    return [np.concatenate(each) for each in sums]


# ---- shares


def share_interval(successes: int, n: int) -> tuple[float, float]:
    """Of a share of rows that are right or wrong (Clopper and Pearson 1934): never too narrow."""
    low = 0.0 if successes == 0 else solve(lambda share: at_least(successes, n, share) - TAIL)
    high = 1.0 if successes == n else solve(lambda share: TAIL - at_least(n - successes, n, 1 - share))
    return low, high


def sign_test(better: int, n: int) -> float:
    """The two-sided p-value of so many gains among the `n` rows that changed (McNemar's exact test)."""
    return min(1.0, 2 * at_least(max(better, n - better), n, 0.5)) if n else 1.0


def at_least(successes: int, n: int, share: float) -> float:
    """The chance of that many successes or more."""
    if not 0 < share < 1:
        return float(share >= 1 or successes == 0)
    counts = np.arange(successes, n + 1)
    return float(
        np.exp(log_choices(n)[successes:] + counts * math.log(share) + (n - counts) * math.log1p(-share)).sum()
    )


def log_choices(n: int) -> np.ndarray:
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    return factorials[n] - factorials - factorials[::-1]


def solve(rising: Callable[[float], float]) -> float:
    """Where a function that rises between 0 and 1 is 0."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
