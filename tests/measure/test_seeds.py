"""Means over seeds, against tables and papers."""

import pytest

from heed.measure.seeds import over_seeds, quantile, seeds_differ, tail


@pytest.mark.parametrize(("freedom", "t"), [(1, 12.706), (2, 4.303), (4, 2.776), (30, 2.042), (120, 1.980)])
def test_students_quantiles_are_those_of_the_table(freedom: float, t: float) -> None:
    assert quantile(freedom) == pytest.approx(t, abs=5e-4)
    assert tail(t, freedom) == pytest.approx(0.025, abs=3e-5)


def test_three_seeds_have_an_interval_and_one_has_none() -> None:
    found = over_seeds([0.70, 0.75, 0.80])
    assert (found.value, found.n) == (pytest.approx(0.75), 3)
    assert found.ci95 == pytest.approx((0.6258, 0.8742), abs=1e-4)  # 4.303 x 0.05 / root of 3
    assert over_seeds([0.7]).ci95 is None


def test_welchs_test_is_right_on_a_known_example() -> None:
    """Means 2 and 16/3, variances 1 and 7/3: t = 3.162 with 3.45 degrees of freedom."""
    assert seeds_differ([1, 2, 3], [4, 5, 7]) == pytest.approx(0.0419, abs=1e-4)
    assert seeds_differ([1, 2, 3], [3]) is None
    assert seeds_differ([1, 1], [1, 1]) == 1.0
