"""Krippendorff's alpha: how far two observers agree beyond chance."""

from collections.abc import Sequence

import numpy as np


def krippendorff_alpha(ours: Sequence[float] | np.ndarray, theirs: Sequence[float] | np.ndarray) -> float | None:
    """Of two observers of the same units: 1 is full agreement, 0 is chance, and less is worse than chance.

    A unit's value is a number (interval data), or a point whose squared distance counts (one of n places for names).
    None for fewer than two units, and where all values are alike: agreement by chance would be complete, too.
    """
    if len(ours) < 2:
        return None
    a, b = (np.asarray(values, dtype=float).reshape(len(values), -1) for values in (ours, theirs))
    every = np.concatenate([a, b])
    if (every == every[0]).all():
        return None
    observed = ((a - b) ** 2).sum(axis=1).mean()
    expected = 2 * ((every - every.mean(axis=0)) ** 2).sum() / (len(every) - 1)
    return float(1 - observed / expected)
