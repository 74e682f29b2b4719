from pathlib import Path

import pytest

from heed.errors import UserError
from heed.measure.measurements import (
    Measurement,
    RowNumbers,
    as_rows,
    make_items,
    mean_measurement,
    read_items,
    write_items,
)
from heed.measure.rows import read_rows, write_rows

EXACT = mean_measurement("exact_match", [1.0, 0.0, None])
WHOLE = Measurement(metric="evaluate:x", value=3.0, ci95=None, n=3, items=None)
PROVENANCE = {
    "system": "metrics",
    "task": "test",
    "n_full": 3,
    "name": "tuned",
    "model": "runs/demo",
    "contract": "c0ffee",
    "data": "rows.json",
    "data_sha256": "ab12",
    "versions": {},
    "command": "python eval_responses.py",
}


def test_a_mean_covers_the_items_that_have_a_number() -> None:
    assert (EXACT.value, EXACT.n, EXACT.items) == (0.5, 2, (1.0, 0.0, None))


def test_items_leave_out_what_a_metric_does_not_say() -> None:
    assert make_items("tuned", [4, 5, 9], [EXACT, WHOLE]) == [
        RowNumbers(name="tuned", row_id=4, metrics={"exact_match": 1.0}),
        RowNumbers(name="tuned", row_id=5, metrics={"exact_match": 0.0}),
        RowNumbers(name="tuned", row_id=9, metrics={}),
    ]


def test_a_second_evaluation_replaces_the_first(tmp_path: Path) -> None:
    base = make_items("base", [4, 5, 9], [EXACT])
    write_items(tmp_path, make_items("tuned", [1, 2, 3], [EXACT]))
    write_items(tmp_path, base)
    tuned = make_items("tuned", [7, 8, 9], [EXACT])
    write_items(tmp_path, tuned)
    assert read_items(tmp_path) == [*base, *tuned]
    first = (tmp_path / "items.jsonl").read_text().splitlines()[0]
    assert first == '{"name": "base", "row_id": 4, "metrics": {"exact_match": 1.0}}'


def test_a_line_that_is_not_an_item_is_named(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"name": "base"}\n')
    with pytest.raises(UserError, match=r"items\.jsonl:1: not an item"):
        read_items(tmp_path)


def test_measurements_become_rows(tmp_path: Path) -> None:
    cut = mean_measurement("cut", [None], better="lower")
    rows = as_rows([EXACT, cut], **PROVENANCE)
    write_rows(tmp_path, rows)
    exact, withheld = read_rows(tmp_path)
    assert (exact.metric, exact.value, exact.n, exact.n_full, exact.higher_is_better) == (
        "exact_match",
        0.5,
        2,
        3,
        True,
    )
    assert (exact.library, exact.details) == ("heed 0.1.0", {"better": "higher", "scale": 1.0})
    assert (withheld.value, withheld.n, withheld.higher_is_better) == (None, 0, False)
    assert withheld.notes == ("it has no value for any of these answers",)
