"""The power law through runs on shares of the rows."""

from pathlib import Path

import numpy as np
import pytest

from heed.study import compare_runs
from heed.study.curve import curve_of, power_law
from heed.study.runs import read_runs
from heed.study.standings import study
from world.compared_runs import write_run

ROWS = np.array([100.0, 200.0, 400.0, 800.0, 1600.0])


@pytest.mark.parametrize(("floor", "factor", "slope"), [(0.0, 0.8, 0.5), (0.1, 0.6, 1.0), (0.3, 0.0, 1.0)])
def test_a_law_without_noise_is_found_again(floor: float, factor: float, slope: float) -> None:
    errors = floor + factor * (ROWS / 100) ** -slope
    [found] = power_law(ROWS, errors[None], np.array([3200.0]))
    assert found == pytest.approx(floor + factor * 32.0**-slope, abs=2e-3)


def write_curve(top: Path, rights: list[int], rows: int = 400, seeds: int = 1) -> None:
    for place, right in enumerate(rights):
        for seed in range(seeds):
            values = [1.0] * (right - seed) + [0.0] * (rows - right + seed)
            config = {"train_share": 2.0 ** (place - len(rights) + 1), "seed": seed}
            write_run(top / str(place) / str(seed), values, config=config, trained_rows=100 * 2**place)


def test_a_score_that_rises_says_what_twice_the_rows_would_bring(tmp_path: Path) -> None:
    write_curve(tmp_path, [100, 188, 250, 294, 325], seeds=2)  # errors of 0.75 / root of 2 to the power of place
    said: list[str] = []
    compare_runs([tmp_path], None, None, say=said.append)
    found = curve_of(study(read_runs([tmp_path])))
    assert found is not None
    assert found.gain.value == pytest.approx(0.055, abs=0.01)  # the error falls from 0.1875 to 0.1326
    assert found.check is not None
    assert found.check.ci95 is not None
    assert found.check.ci95[0] < found.points[-1].score.value < found.check.ci95[1]
    assert "Twice the rows (3,200 training rows instead of 1,600) would bring about +0.05" in said[0]
    assert "More rows" in (tmp_path / "compared.html").read_text()


def test_where_scores_scatter_it_is_unclear(tmp_path: Path) -> None:
    write_curve(tmp_path, [10, 12, 9, 11], rows=20)
    said: list[str] = []
    compare_runs([tmp_path], None, None, say=said.append)
    assert "What twice the rows (1,600 training rows instead of 800) would bring is unclear" in said[0]


def test_recipes_that_differ_in_more_than_the_share_have_no_curve(tmp_path: Path) -> None:
    for place in range(5):
        config = {"train_share": 0.2 * place, "learning_rate": place}
        write_run(tmp_path / str(place), [1.0, 0.0] * 20, config=config, trained_rows=100)
    assert curve_of(study(read_runs([tmp_path]))) is None
