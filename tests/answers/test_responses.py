"""responses.json, as Heed and as other tools write it."""

import json
from pathlib import Path
from typing import Any

import pytest

from heed.answers.copies import fingerprints, is_copied
from heed.answers.generation import Response
from heed.answers.responses import Answer, read_responses, response_rows
from heed.data.records import Message, Record
from heed.errors import UserError

FOUR: dict[str, Any] = {"instruction": "Add.", "input": "1 and 2", "output": "3", "model_response": "3."}


def write(folder: Path, value: Any) -> Path:
    path = folder / "responses.json"
    path.write_text(json.dumps(value))
    return path


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    messages: tuple[Message, ...] = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hi!", "weight": 0},
        {"role": "user", "content": "Add.", "input": "1 and 2"},
        {"role": "assistant", "content": "3"},
    )
    record = Record(row_id=7, place="rows.json:8", messages=messages)
    response = Response(text="3.", finish_reason="stop", prompt_tokens=9, response_tokens=2, seconds=0.25)
    rows = response_rows([record], [response])
    said: list[str] = []
    assert list(rows[0])[:5] == ["instruction", "input", "output", "model_response", "row_id"]
    assert read_responses(write(tmp_path, rows), say=said.append) == [
        Answer(
            **FOUR,
            row_id=7,
            finish_reason="stop",
            prompt_tokens=9,
            response_tokens=2,
            seconds=0.25,
            system_prompt="Be brief.",
            history=({"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hi!", "weight": 0}),
        )
    ]
    assert said == []


def test_a_row_without_earlier_turns_says_nothing_of_them() -> None:
    record = Record(
        row_id=0, place="", messages=({"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hi!"})
    )
    response = Response(text="Ho!", finish_reason="length", prompt_tokens=1, response_tokens=1, seconds=0.0)
    assert set(response_rows([record], [response])[0]) == {
        *("instruction", "input", "output", "model_response", "row_id"),
        *("finish_reason", "prompt_tokens", "response_tokens", "seconds"),
    }


def test_an_answer_that_is_another_rows_is_flagged() -> None:
    learned = fingerprints([saying("The sky is  blue, mostly.")])

    assert is_copied("the sky is blue, mostly.", "Grass is green.", learned)
    assert not is_copied("the sky is blue, mostly.", "The sky is blue, mostly.", learned)
    assert not is_copied("the sky is blue, today.", "Grass is green.", learned)
    assert not is_copied("yes", "no", fingerprints([saying("yes")]))


def saying(text: str) -> Record:
    return Record(row_id=0, place="", messages=({"role": "assistant", "content": text},))


def test_answers_may_be_one_a_line(tmp_path: Path) -> None:
    file, row = tmp_path / "answers.jsonl", {"instruction": "Add 1 and 2.", "output": "3", "model_response": "It is 3."}
    file.write_text(json.dumps(row) + "\n" + json.dumps(row | {"model_response": "4"}) + "\n")
    assert [each.model_response for each in read_responses(file, say=lambda text: None)] == ["It is 3.", "4"]
    file.write_text(json.dumps(row) + "\n{\n" + json.dumps(row) + "\n")
    with pytest.raises(UserError, match=r"answers\.jsonl:2: damaged"):
        read_responses(file)


def test_four_fields_are_enough_and_the_position_is_the_row_id(tmp_path: Path) -> None:
    said: list[str] = []
    path = write(tmp_path, [FOUR, {"instruction": "Hi.", "output": "", "model_response": "", "model 2 response": "x"}])
    answers = read_responses(path, say=said.append)
    assert [(each.row_id, each.input, each.model_response) for each in answers] == [(0, "1 and 2", "3."), (1, "", "")]
    assert answers[1].finish_reason is None
    assert said == [
        f"{path}: no row ids, so the position in the file is used",
        f"{path}: not read: model 2 response",
    ]


@pytest.mark.parametrize(
    "rows, problem",
    [
        ({}, r"expected a list of answers, got an object"),
        ([], r"expected a list of answers, got an empty list"),
        ([FOUR, 5], r"row 1: expected an object with fields, got a number \(5\)"),
        ([{"instruction": "Hi."}], r"row 0: field 'output' is missing \(the row has 'instruction'\)"),
        ([FOUR | {"model_response": None}], r"row 0: field 'model_response' is null"),
        ([FOUR | {"model_response": 3}], r"row 0: field 'model_response': expected text, got a number \(3\)"),
        ([FOUR | {"output": "\ud800"}], r"row 0: field 'output': contains half of a surrogate pair"),
        ([FOUR | {"row_id": "3"}], r"row 0: field 'row_id': expected a whole number, got text"),
        ([FOUR | {"row_id": None}], r"row 0: field 'row_id' is null"),
        ([FOUR | {"seconds": True}], r"row 0: field 'seconds': expected a number, got true or false"),
        ([FOUR | {"flags": "long"}], r"row 0: field 'flags': expected a list of texts"),
        ([FOUR | {"history": [{"role": "user"}]}], r"row 0: field 'history': expected a list of turns"),
        ([FOUR | {"row_id": 1}, FOUR], r"row 1: field 'row_id' is missing, but other rows have it"),
        ([FOUR | {"row_id": 1}, FOUR | {"row_id": 1}], r"row 1: row_id 1 is that of row 0 too"),
    ],
)
def test_bad_files_are_named_by_row_and_field(tmp_path: Path, rows: Any, problem: str) -> None:
    with pytest.raises(UserError, match=rf"responses\.json: (.|\n)*{problem}"):
        read_responses(write(tmp_path, rows))
