from typing import Any, Literal

import pytest

from heed.data.records import RawRow, learned_turns
from heed.data.rows import Rows, check_rows
from heed.errors import UserError


def check(*values: Any, on_bad_row: Literal["stop", "drop"] = "stop", **columns: str) -> Rows:
    rows = [RawRow(place=f"rows.json:{number}", value=value) for number, value in enumerate(values, start=1)]
    return check_rows(rows, source="rows.json", columns=columns, on_bad_row=on_bad_row)


GOOD = {"instruction": "Add 1 and 2.", "input": "", "output": "3"}


@pytest.mark.parametrize(
    ("row", "row_format", "messages"),
    [
        (
            {"instruction": "Add.", "input": "1 and 2", "output": "3"},
            "alpaca",
            ({"role": "user", "content": "Add.", "input": "1 and 2"}, {"role": "assistant", "content": "3"}),
        ),
        (GOOD, "alpaca", ({"role": "user", "content": "Add 1 and 2."}, {"role": "assistant", "content": "3"})),
        (
            {"instruction": "Add 1 and 2.", "input": None, "output": "3", "text": "ignored"},
            "alpaca",
            ({"role": "user", "content": "Add 1 and 2."}, {"role": "assistant", "content": "3"}),
        ),
        (
            {"prompt": "Hi", "response": "Hello"},
            "prompt_response",
            ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}),
        ),
        (
            {"question": "Why?", "answer": "So."},
            "question_answer",
            ({"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}),
        ),
        (
            {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
                          {"role": "assistant", "content": "Hello"}]},
            "messages",
            ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
             {"role": "assistant", "content": "Hello"}),
        ),
    ],
)  # fmt: skip
def test_each_format_becomes_a_conversation(row: Any, row_format: str, messages: Any) -> None:
    rows = check(row)
    assert rows.row_format == row_format
    assert rows.records[0].messages == messages


def test_columns_map_our_names_to_theirs() -> None:
    rows = check({"task": "Add 1 and 2.", "solution": "3", "output": "old"}, instruction="task", output="solution")
    assert (rows.records[0].instruction, rows.records[0].output) == ("Add 1 and 2.", "3")


def test_a_mapping_of_an_unknown_field_is_refused() -> None:
    with pytest.raises(UserError, match="columns: 'instr' is not a field Heed knows; map instruction, output, input"):
        check(GOOD, instr="task")


def test_the_format_is_that_of_the_first_row_that_shows_one() -> None:
    rows = check({"instruction": "Add."}, GOOD, on_bad_row="drop")
    assert (rows.row_format, rows.rejected[0].row_id) == ("alpaca", 0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"instruction": "Add.", "ouput": "3"},
            "rows.json:2: field 'output': missing (the row has 'instruction', 'ouput')",
        ),
        ({"instruction": "Add.", "output": None}, "rows.json:2: field 'output': is null"),
        ({"instruction": "Add.", "output": 3}, "rows.json:2: field 'output': expected text, got a number (3)"),
        ({"instruction": "Add.", "output": ["3"]}, "rows.json:2: field 'output': expected text, got a list"),
        ({"instruction": " ", "output": "3"}, "rows.json:2: field 'instruction': is empty"),
        ({"instruction": "A\x00", "output": "3"}, "rows.json:2: field 'instruction': contains a NUL character"),
        (
            {"instruction": "A\ud800", "output": "3"},
            "rows.json:2: field 'instruction': contains half of a surrogate pair (broken \\u escape)",
        ),
        (
            {"instruction": "A", "input": 1, "output": "3"},
            "rows.json:2: field 'input': expected text, got a number (1)",
        ),
        ("Add.", "rows.json:2: expected an object with fields, got text"),
    ],
)
def test_a_bad_row_is_named_with_place_field_and_reason(bad: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        check(GOOD, bad)
    assert message in str(error.value)
    assert "on_bad_row: drop" in str(error.value)


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([], "expected a list of turns, got an empty list"),
        ([{"role": "assistant", "content": "Hi"}], "turn 1: role is 'assistant', expected system or user"),
        ([{"role": "user", "content": "Hi"}], "the last turn is not the assistant's, so there is nothing to learn"),
        (
            [{"role": "user", "content": "Hi"}, {"role": "user", "content": "Hi"}],
            "turn 2: role is 'user', expected assistant",
        ),
        ([{"role": "user", "content": None}], "turn 1, 'content': is null"),
        (["Hi"], "turn 1: expected an object, got text"),
    ],
)
def test_a_bad_conversation_is_named_with_its_turn(turns: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        check({"messages": turns})
    assert f"rows.json:1: field 'messages'{',' if message.startswith('turn') else ':'} {message}" in str(error.value)


def test_dropped_rows_are_kept_with_their_reason_and_ids_stay_positions() -> None:
    rows = check(GOOD, {"instruction": "Add."}, GOOD, on_bad_row="drop")
    assert [record.row_id for record in rows.records] == [0, 2]
    assert [(bad.row_id, bad.place) for bad in rows.rejected] == [(1, "rows.json:2")]
    assert rows.rejected[0].reasons == ["field 'output': missing (the row has 'instruction')"]
    assert rows.rejected[0].value == {"instruction": "Add."}


def test_an_unknown_format_says_what_is_needed() -> None:
    with pytest.raises(UserError, match=r"no known format, the row has 'text'. Needed: instruction and output"):
        check({"text": "Hello"})
    with pytest.raises(UserError, match="fits alpaca and question_answer at once"):
        check(GOOD | {"question": "a", "answer": "b"})


def test_fields_that_are_not_used_are_reported() -> None:
    assert check(GOOD, GOOD | {"text": "x", "id": 1}).ignored_fields == ["id of 1 row", "text of 1 row"]


def conversation(**extras: Any) -> RawRow:
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"} | extras,
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    return RawRow(place="rows:1", value={"messages": turns})


def read_one(row: RawRow) -> Rows:
    return check_rows([row], source="rows", columns={}, on_bad_row="stop")


def test_a_turn_of_weight_0_is_read_and_not_learned() -> None:
    [record] = read_one(conversation(weight=0)).records
    assert learned_turns(record.messages) == [3]
    [other] = read_one(conversation(weight=1)).records
    assert learned_turns(other.messages) == [1, 3] and record.content_hash != other.content_hash
    with pytest.raises(UserError, match=r"turn 2, 'weight': expected 0 or 1, got 0\.5"):
        read_one(conversation(weight=0.5))
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]
    with pytest.raises(UserError, match="every turn of the assistant has weight 0"):
        read_one(RawRow(place="rows:1", value={"messages": turns}))


def test_nothing_in_a_turn_vanishes() -> None:
    [record] = read_one(conversation(reasoning_content="I think.")).records
    assert record.messages[1].get("reasoning_content") == "I think."
    with pytest.raises(UserError, match="turn 2, 'function_call': write it as tool_calls"):
        read_one(conversation(function_call={"name": "sum"}))
    rows = [conversation(name="Ann"), conversation(name="Bob", score=3), conversation(name=None)]
    found = check_rows(rows, source="rows", columns={}, on_bad_row="stop")
    assert found.ignored_fields == ["name of 2 turns", "score of 1 turn"]
