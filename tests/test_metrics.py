import pytest

from heed.metrics import exact_match, mean


def test_exact_match_forgives_white_space_around_and_nothing_else() -> None:
    assert exact_match(" Paris.\n", "Paris.") == 1.0
    assert exact_match("paris.", "Paris.") == 0.0
    assert exact_match("Paris.  It is.", "Paris. It is.") == 0.0


def test_a_mean_of_nothing_is_an_error() -> None:
    assert mean([1.0, 0.0, 0.5]) == 0.5
    with pytest.raises(ValueError):
        mean([])
