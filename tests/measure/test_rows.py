from dataclasses import replace
from pathlib import Path

import pytest

from heed.errors import UserError
from heed.measure.rows import Row, read_rows, write_rows

ROW = Row(
    system="metrics",
    task="test",
    metric="exact_match",
    value=0.9,
    ci95=(0.85, 0.95),
    n=150,
    n_full=150,
    name="tuned",
    model="runs/demo",
    contract="c0ffee",
    data="data/instructions.json",
    data_sha256="ab12",
    library="heed 0.1.0",
    versions={"torch": "2.13.0"},
    command="python eval_responses.py",
    notes=("a note",),
)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    base = replace(ROW, name="base", value=None, ci95=None)

    write_rows(tmp_path, [ROW, base])

    assert read_rows(tmp_path) == [ROW, base]


def test_a_second_measurement_replaces_the_first(tmp_path: Path) -> None:
    write_rows(tmp_path, [ROW, replace(ROW, metric="chrf")])

    write_rows(tmp_path, [replace(ROW, value=0.95)])

    assert [(row.metric, row.value) for row in read_rows(tmp_path)] == [("exact_match", 0.95), ("chrf", 0.9)]


def test_a_line_that_is_not_a_row_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"value": 1}\n')

    with pytest.raises(UserError, match=r"rows\.jsonl:1: not a row"):
        read_rows(tmp_path)
