import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from heed.measure.intervals import (
    ANY,
    Estimate,
    at_least,
    log_choices,
    mean_estimate,
    paired_difference,
    range_of,
    ratio_estimate,
    share_interval,
    sign_test,
)
from world.small_world import ROOT


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [  # the quantiles of the beta distribution, by scipy
        (0, 12, 0.0, 0.26465),
        (2, 2, 0.15811, 1.0),
        (8, 10, 0.44390, 0.97479),
        (50, 100, 0.39832, 0.60168),
        (164, 164, 0.97776, 1.0),
        (13_999, 14_000, 0.99960, 0.999998),
    ],
)
def test_a_share_has_the_interval_of_clopper_and_pearson(right: int, n: int, low: float, high: float) -> None:
    assert mean_estimate([1.0] * right + [0.0] * (n - right)).ci95 == pytest.approx((low, high), abs=1e-5)


def test_scores_to_a_hundred_are_shares_of_a_hundred() -> None:
    assert mean_estimate([100.0] * 8 + [0.0] * 2, within=(0, 100)).ci95 == pytest.approx((44.390, 97.479), abs=1e-3)


def test_scores_that_agree_leave_doubt() -> None:
    found = mean_estimate([0.5] * 3)
    assert found.ci95 is not None and found.ci95 == pytest.approx((0.146, 0.854), abs=0.005)


def test_too_few_scores_have_no_interval_and_no_p_value() -> None:
    assert mean_estimate([1.0]) == Estimate(value=1.0, ci95=None, n=1)
    assert paired_difference([1.0], [0.0]) == Estimate(value=1.0, ci95=None, n=1)
    assert mean_estimate([5.0] * 30, within=ANY).ci95 is None  # nobody knows how far another might lie
    assert mean_estimate([1.0, 2.0, 5.0] * 3, within=ANY).ci95 is None
    assert mean_estimate([1.0, 2.0, 5.0, 7.0, 8.0] * 2, within=ANY).ci95 is not None


def test_a_p_value_below_what_draws_can_tell_is_that_of_the_normal_distribution() -> None:
    gains = np.random.default_rng(0).normal(0.3, 0.2, 400).clip(-1, 1).tolist()
    p = paired_difference(gains, [0.0] * 400).p
    assert p is not None and p < 1e-20
    few = paired_difference([0.4, 0.5, 0.6, 0.5, 0.4, 0.6, 0.5, 0.5, 0.4, 0.6], [0.0] * 10).p
    assert few is not None and few >= 2 * 0.5**10  # ten coins that fall alike


def test_with_many_scores_the_interval_is_that_of_the_normal_distribution() -> None:
    scores = np.random.default_rng(0).beta(2, 2, 4000)
    half = 1.96 * scores.std() / math.sqrt(4000)
    found = mean_estimate(scores.tolist())
    assert found.ci95 == pytest.approx((found.value - half, found.value + half), abs=0.001)


@pytest.mark.parametrize(("better", "worse", "same", "p"), [(6, 0, 94, 0.03125), (5, 0, 95, 0.0625), (2, 0, 0, 0.5)])
def test_paired_shares_are_tested_as_mcnemar_does(better: int, worse: int, same: int, p: float) -> None:
    ours, theirs = [1.0] * better + [0.0] * (worse + same), [0.0] * better + [1.0] * worse + [0.0] * same
    found = paired_difference(ours, theirs)
    assert found.p == pytest.approx(p, abs=0.003) and found.ci95 is not None
    assert (found.ci95[0] > 0) == (p < 0.05)


def test_rows_that_all_gain_the_same_are_still_a_sample() -> None:
    found = paired_difference([0.6] * 20, [0.5] * 20)
    assert found.value == pytest.approx(0.1) and found.ci95 is not None and found.ci95[0] < 0.1 < found.ci95[1]


def test_rows_of_one_cluster_count_as_one() -> None:
    values = [float(number % 2) for number in range(20) for _ in range(10)]
    clusters = [str(number) for number in range(20) for _ in range(10)]
    alone, together = mean_estimate(values), mean_estimate(values, clusters=clusters)
    assert alone.ci95 == pytest.approx((0.429, 0.571), abs=0.002)
    assert together.n == 200 and together.ci95 == pytest.approx((0.272, 0.728), abs=0.01)  # that of 10 of 20
    assert mean_estimate([0.0, 1.0] * 9, clusters=["a", "b"] * 9).ci95 is None


def test_the_order_of_rows_changes_nothing() -> None:
    scores = np.random.default_rng(0).random(30).tolist()
    assert mean_estimate(scores).ci95 == pytest.approx(mean_estimate(scores[::-1]).ci95)


@pytest.mark.parametrize("n", [1, 2, 9_000])
def test_weights_of_unequal_rows_are_drawn_as_those_of_equal_ones(n: int) -> None:
    gamma, exponential = np.random.default_rng(0), np.random.default_rng(0)
    assert np.array_equal(gamma.standard_gamma(np.ones(n), (7, n)), exponential.standard_exponential((7, n)))
    assert gamma.random() == exponential.random()  # as many were used


def test_a_mean_of_nothing_unequal_sides_and_scores_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        mean_estimate([])
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match=r"scores from 0\.5 to 2 are outside the range from 0 to 1"):
        mean_estimate([0.5, 2.0])


def test_the_range_of_other_libraries_scores_is_read_from_the_scores() -> None:
    assert [range_of(values) for values in ([0.0, 1.0], [0.5, 80.0], [-0.5], [])] == [(0, 1), (0, 100), ANY, (0, 1)]


def test_rows_are_read_without_scipy() -> None:
    program = "import sys; import heed.measure.rows; print('scipy' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "False"], done.stderr


# ---- coverage: how often intervals of 95 % cover the truth, counted over all outcomes or simulated

LEAST = 0.93
SHARES = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)


def coverage_of_shares(n: int, share: float) -> float:
    """Exact: the chance of all outcomes whose interval covers the share."""
    counts = np.arange(n + 1)
    chances = np.exp(log_choices(n) + counts * math.log(share) + (n - counts) * math.log1p(-share))
    held = [(low <= share <= high) for low, high in (share_interval(int(count), n) for count in counts)]
    return float(chances[held].sum())


@pytest.mark.parametrize(("n", "share"), [(20, 0.03), (55, 0.01), (5, 0.1)])  # the percentile bootstrap: 46, 42, 38 %
def test_intervals_of_few_rows_cover_small_shares(n: int, share: float) -> None:
    assert coverage_of_shares(n, share) >= LEAST


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 6, 7, 8, 10, 12, 15, 20, 30, 55, 100, 164, 300, 1000])
def test_intervals_of_shares_cover_them(n: int) -> None:
    assert min(coverage_of_shares(n, share) for share in SHARES) >= LEAST


SCORES: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], float]] = {
    "U": (lambda random, n: random.beta(0.2, 0.2, n), 0.5),
    "skewed U": (lambda random, n: random.beta(0.1, 0.4, n), 0.2),
    "skewed": (lambda random, n: random.beta(0.5, 5, n), 1 / 11),
    "one in twenty is 0": (
        lambda random, n: np.where(random.random(n) < 0.05, 0, random.uniform(0.85, 0.95, n)),
        0.855,
    ),
    "bell": (lambda random, n: random.beta(20, 20, n), 0.5),
}
UNBOUNDED: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], float]] = {
    "exponential": (lambda random, n: random.exponential(1, n), 1.0),
    "lognormal": (lambda random, n: random.lognormal(0, 1, n), math.exp(0.5)),
    "normal": (lambda random, n: random.normal(0, 1, n), 0.0),
}
TRIALS = 400  # of 95 % the standard error is 1.1 points


def coverage(draw: Callable[[np.random.Generator], Estimate], truth: float) -> float:
    random = np.random.default_rng(1)
    intervals = [draw(random).ci95 for _ in range(TRIALS)]
    return float(np.mean([each is not None and each[0] <= truth <= each[1] for each in intervals]))


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 10, 20, 55, 200])
@pytest.mark.parametrize("name", SCORES)
def test_intervals_of_scores_cover_their_mean(name: str, n: int) -> None:
    draw, truth = SCORES[name]
    assert coverage(lambda random: mean_estimate(draw(random, n).tolist()), truth) >= LEAST


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 20, 55, 200])
@pytest.mark.parametrize("name", UNBOUNDED)
def test_intervals_of_scores_of_unknown_range_cover_their_mean(name: str, n: int) -> None:
    draw, truth = UNBOUNDED[name]
    assert coverage(lambda random: mean_estimate(draw(random, n).tolist(), within=ANY), truth) >= LEAST


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 10, 30, 100, 1000])
@pytest.mark.parametrize(
    ("better", "worse"), [(0.01, 0.01), (0.05, 0.0), (0.1, 0.05), (0.3, 0.3), (0.5, 0.1), (0.9, 0.05), (1.0, 0.0)]
)
def test_intervals_of_paired_shares_cover_their_difference(better: float, worse: float, n: int) -> None:
    def draw(random: np.random.Generator) -> Estimate:
        changes = random.choice([1.0, -1.0, 0.0], n, p=[better, worse, 1 - better - worse])
        return paired_difference((changes > 0).astype(float).tolist(), (changes < 0).astype(float).tolist())

    assert coverage(draw, better - worse) >= LEAST


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 55, 200])
def test_intervals_of_paired_scores_cover_their_difference(n: int) -> None:
    def draw(random: np.random.Generator) -> Estimate:
        ours, theirs = random.beta(0.4, 0.2, n), random.beta(0.2, 0.4, n)
        return paired_difference(ours.tolist(), theirs.tolist())

    assert coverage(draw, 1 / 3) >= LEAST


@pytest.mark.slow
@pytest.mark.parametrize("clusters", [10, 20, 60])
def test_intervals_of_clustered_rows_cover_their_mean(clusters: int) -> None:
    def draw(random: np.random.Generator) -> Estimate:
        shares = random.beta(0.5, 0.5, clusters)
        sizes = random.integers(1, 9, clusters)
        rows = [
            (float(random.random() < share), number)
            for number, share in enumerate(shares)
            for _ in range(sizes[number])
        ]
        return mean_estimate([value for value, _ in rows], clusters=[number for _, number in rows])

    assert coverage(draw, 0.5) >= LEAST


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 20, 60])
@pytest.mark.parametrize("spread", [0.2, 0.6])
def test_intervals_of_a_loss_over_texts_of_any_size_cover_it(n: int, spread: float) -> None:
    def draw(random: np.random.Generator) -> Estimate:
        sizes = random.integers(5, 60, n)
        return ratio_estimate((sizes * random.lognormal(0.0, spread, n)).tolist(), sizes.tolist())

    assert coverage(draw, math.exp(spread**2 / 2)) >= LEAST


def test_a_ratio_is_that_of_the_sums_and_has_no_interval_of_few_texts() -> None:
    assert ratio_estimate([1.0, 3.0], [1, 7]) == Estimate(value=0.5, ci95=None, n=2)


def test_the_sign_test_counts_all_outcomes_as_far_out() -> None:
    assert (sign_test(6, 6), sign_test(5, 5), sign_test(0, 0)) == (pytest.approx(2 / 64), pytest.approx(2 / 32), 1.0)
    assert at_least(2, 3, 0.5) == pytest.approx(0.5)
    assert (at_least(0, 3, 0.2), at_least(1, 3, 0.0), at_least(3, 3, 1.0)) == (pytest.approx(1.0), 0.0, 1.0)
