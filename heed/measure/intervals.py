"""How sure a mean is: 95 % bootstrap intervals, of one system or of the difference between two on the same items."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean of `n` values, and the range that holds 95 % of the means of resampled items; None for a single item."""

    value: float
    ci95: tuple[float, float] | None
    n: int


def mean_estimate(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """The mean with its percentile interval (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13).

    Raises ValueError for no values: a mean of nothing is not 0.
    """
    if not values:
        raise ValueError("mean of no values")
    array = np.asarray(values, dtype=float)
    return Estimate(value=float(array.mean()), ci95=interval(array, seed=seed), n=len(array))


def paired_difference(ours: Sequence[float], theirs: Sequence[float], *, seed: int = 0) -> Estimate:
    """The mean of `ours - theirs`, item by item, with its interval: items are resampled, not the two systems apart.

    Raises ValueError when the two do not cover the same number of items.
    """
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    return mean_estimate(differences, seed=seed)


def interval(array: np.ndarray, *, seed: int) -> tuple[float, float] | None:
    if len(array) < 2:
        return None
    if (array == array[0]).all():  # nothing to resample, and scipy would warn of it
        return (float(array[0]), float(array[0]))
    result = bootstrap(
        (array,), np.mean, n_resamples=RESAMPLES, method="percentile", batch=100, rng=np.random.default_rng(seed)
    )
    low, high = result.confidence_interval
    return (float(low), float(high))
