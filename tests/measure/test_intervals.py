import pytest

from heed.measure.intervals import Estimate, mean_estimate, paired_difference


def test_the_interval_of_a_mean_is_near_its_normal_approximation() -> None:
    estimate = mean_estimate([0.0] * 50 + [1.0] * 50)

    assert (estimate.value, estimate.n) == (0.5, 100)
    assert estimate.ci95 == pytest.approx((0.402, 0.598), abs=0.02)  # 0.5 +- 1.96 * 0.05


def test_values_that_agree_leave_no_doubt_and_one_value_says_nothing_of_it() -> None:
    assert mean_estimate([1.0, 1.0, 1.0]) == Estimate(value=1.0, ci95=(1.0, 1.0), n=3)
    assert mean_estimate([1.0]) == Estimate(value=1.0, ci95=None, n=1)


def test_a_paired_difference_is_surer_than_its_two_sides() -> None:
    base = [float(number) for number in range(100)]
    tuned = [value + 1 for value in base]

    assert paired_difference(tuned, base) == Estimate(value=1.0, ci95=(1.0, 1.0), n=100)


def test_a_mean_of_nothing_and_unequal_sides_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        mean_estimate([])
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([1.0, 2.0], [1.0])
