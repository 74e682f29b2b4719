import numpy as np
import pytest

from heed.measure.intervals import paired_difference
from heed.measure.verdict import holm, verdict


@pytest.mark.parametrize(
    ("difference", "ci95", "p", "better", "expected"),
    [
        (0.2, (0.1, 0.3), 0.001, "higher", "better"),
        (0.2, (0.1, 0.3), 0.001, "lower", "worse"),
        (-0.2, (-0.3, -0.1), 0.001, "higher", "worse"),
        (0.2, (0.1, 0.3), 0.2, "higher", "no clear difference"),  # adjusted for being one of many
        (0.2, (-0.1, 0.3), 0.3, "higher", "no clear difference"),
        (0.2, (0.1, 0.3), None, "higher", "better"),  # a file of an earlier version
        (0.0, (0.0, 0.0), None, "higher", "equal"),
        (0.1 + 0.2 - 0.3, (-0.1, 0.1), 1.0, "higher", "equal"),
        (1.0, None, None, "higher", "too few rows to tell"),
        (0.2, (0.1, 0.3), 0.001, "neither", ""),
    ],
)
def test_a_difference_is_called_better_only_where_it_is_clear(
    difference: float, ci95: tuple[float, float] | None, p: float | None, better: str, expected: str
) -> None:
    assert verdict(difference, ci95, p, better) == expected


def test_holm_adjusts_the_smallest_for_all_and_the_largest_for_itself() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a": 0.03, "c": 0.06, "b": 0.06}
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
    assert holm({}) == {}


@pytest.mark.slow
def test_systems_that_were_swapped_at_random_are_seldom_called_better_or_worse() -> None:
    random, trials, called, decided = np.random.default_rng(0), 200, 0, 0
    for _ in range(trials):
        quality = random.beta(0.5, 0.5, 100)  # five metrics that agree somewhat on which answer is good
        ours, theirs = (
            np.clip(quality + random.normal(0, 0.4, (5, 100)) + random.normal(0, 0.2, 100), 0, 1) for _ in range(2)
        )
        ours[0], theirs[0] = ours[0] > 0.5, theirs[0] > 0.5
        swapped = random.random(100) < 0.5
        a, b = np.where(swapped, theirs, ours), np.where(swapped, ours, theirs)
        found = {n: paired_difference(b[n].tolist(), a[n].tolist()).p or 0.0 for n in range(5)}
        others = holm({str(n): found[n] for n in range(1, 5)})
        decided += found[0] < 0.05
        called += found[0] < 0.05 or min(others.values()) < 0.05
    assert decided / trials <= 0.07 and called / trials <= 0.10
