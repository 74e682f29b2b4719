import numpy as np
import pytest

from heed.measure.correction import corrected_mean


def test_a_judge_that_is_too_kind_is_moved_by_what_people_say() -> None:
    random = np.random.default_rng(0)
    people = 100 * random.beta(2, 1, 400)
    judged = np.clip(people + 15 + random.normal(0, 10, 400), 0, 100)
    found = corrected_mean(judged.tolist(), list(zip(judged[:60], people[:60], strict=True)))
    assert found is not None and found.n == 60 and found.ci95 is not None
    assert judged.mean() > 75 and found.value == pytest.approx(people.mean(), abs=3)
    assert found.ci95[0] < people.mean() < found.ci95[1] < judged.mean()


def test_the_interval_is_wider_than_the_judges_own_and_a_few_labels_are_not_enough() -> None:
    judged = [80.0, 90.0] * 100
    found = corrected_mean(judged, [(80.0, 60.0), (90.0, 80.0)] * 10)
    assert found is not None and found.ci95 is not None
    assert found.value == 70.0 and found.ci95[0] < 65 and found.ci95[1] > 75
    assert corrected_mean(judged, [(80.0, 60.0)] * 9) is None
