import json
from pathlib import Path

import pytest

from heed.errors import UserError
from heed.runs.recorder import StepRows, rows_of_step, show_step
from world.small_world import records

LINES = [
    {"step": 1, "rows": [0, 1], "supervised": [3, 4], "losses": None},
    {"step": 2, "rows": [1, 2], "supervised": [4, 5], "losses": [0.5, 9.25]},
]


@pytest.fixture
def a_run(tmp_path: Path) -> Path:
    (tmp_path / "flight.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES) + '{"step": 3, "ro')
    return tmp_path


def test_the_rows_of_a_step_are_found(a_run: Path) -> None:
    assert rows_of_step(a_run, 2) == StepRows(step=2, rows=[1, 2], supervised=[4, 5], losses=[0.5, 9.25])


@pytest.mark.parametrize("step", [0, 3])
def test_an_unknown_step_is_refused_with_those_that_are_known(a_run: Path, step: int) -> None:
    with pytest.raises(UserError, match=rf"--step {step}: .*flight.jsonl does not know it; it knows steps 1 to 2"):
        rows_of_step(a_run, step)
    with pytest.raises(UserError, match=r"has no flight.jsonl"):
        rows_of_step(a_run / "elsewhere", 1)


def test_a_step_is_shown_with_its_worst_row_first(a_run: Path) -> None:
    rows = records(("Q0", "A0"), ("Q1", "A1"), ("Q2", "A\x1b2"))
    assert show_step(rows_of_step(a_run, 2), rows) == (
        "step 2: 2 rows, 9 supervised tokens\n"
        "\nrow 2  rows.json:3  5 supervised tokens  loss 9.2500\n  user      Q2\n  assistant A\\x1b2\n"
        "\nrow 1  rows.json:2  4 supervised tokens  loss 0.5000\n  user      Q1\n  assistant A1"
    )
    assert "loss" not in show_step(rows_of_step(a_run, 1), rows)
