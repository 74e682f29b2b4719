"""Which rows of a run were not learned."""

import json
from pathlib import Path

import pytest

from heed.audit.cleaning import read_list
from heed.data.records import Record
from heed.errors import UserError
from heed.study.row_map import map_text, row_map, suspects, write_map

QUESTIONS = ["Name the capital of France, please.", "Name the capital of France,  please.", "Add 2 and 2.", "Sing."]
ANSWERS = ["Paris.", "Rome <b>.", "4.", "La."]
RECORDS = [
    Record(
        row_id=row,
        place=f"rows.jsonl:{row + 1}",
        messages=({"role": "user", "content": question}, {"role": "assistant", "content": answer}),
    )
    for row, (question, answer) in enumerate(zip(QUESTIONS, ANSWERS, strict=True))
]
# Of three epochs: row 0 and 2 are learned, 1 never, 3 in the second epoch only. The first epoch's mean is 1.75.
LOSSES = [[1.0, 0.5, 0.1], [3.0, 3.0, 2.0], [1.0, 0.6, 0.2], [2.0, 1.0, 1.9]]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    lines = [
        {"step": epoch + 1, "rows": [0, 1, 2, 3], "supervised": [2] * 4, "losses": [each[epoch] for each in LOSSES]}
        for epoch in range(3)
    ]
    (tmp_path / "flight.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_rows_are_sorted_by_how_their_loss_went(run: Path) -> None:
    rows = row_map(run, RECORDS)
    assert [(row.record.row_id, row.kind) for row in rows] == [
        (1, "never learned"),
        (3, "forgotten again"),
        (2, "learned"),
        (0, "learned"),
    ]
    assert rows[0].mean == pytest.approx(8 / 3)
    assert rows[0].spread == pytest.approx(0.4714, abs=1e-4)  # root of 2/9


def test_a_listed_row_comes_with_the_rows_that_ask_the_same_and_answer_otherwise(run: Path) -> None:
    listed = suspects(row_map(run, RECORDS), RECORDS)
    assert [(row.record.row_id, [twin.row_id for twin in row.twins]) for row in listed] == [(1, [0]), (3, [])]
    text = map_text(row_map(run, RECORDS), listed)
    assert text.startswith("4 training rows over 3 epochs: 2 learned, 1 never learned, 1 forgotten again\n")
    assert "but rows.jsonl:1: Name the capital of France, please. -> Paris." in text


def test_the_list_is_what_export_leaves_out_and_the_page_shows_texts_as_text(run: Path) -> None:
    rows = row_map(run, RECORDS)
    page = write_map(run, rows, suspects(rows, RECORDS)).read_text()
    assert read_list(run / "suspects.jsonl") == {1: "rows.jsonl:2", 3: "rows.jsonl:4"}
    assert "Rome &lt;b&gt;." in page
    assert "1 row was never learned, and 1 forgotten again." in page


def test_turns_of_a_conversation_count_by_their_tokens(tmp_path: Path) -> None:
    line = {"step": 1, "rows": [0, 0], "supervised": [1, 3], "losses": [4.0, 0.0]}
    (tmp_path / "flight.jsonl").write_text(json.dumps(line) + "\n")
    assert [row.losses for row in row_map(tmp_path, RECORDS)] == [[1.0]]


@pytest.mark.parametrize("losses", [None, "no file"])
def test_a_run_that_did_not_record_losses_is_refused_with_the_way_out(tmp_path: Path, losses: str | None) -> None:
    if losses is None:
        line = {"step": 1, "rows": [0], "supervised": [1], "losses": None}
        (tmp_path / "flight.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match="train with record_row_loss: true"):
        row_map(tmp_path, RECORDS)


@pytest.mark.parametrize("line", ['{"row_id": 1}', '{"row_id": "1", "place": "a"}', "{}"])
def test_a_list_that_names_no_row_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=r"list.jsonl:1: no row_id and place"):
        read_list(tmp_path / "list.jsonl")
