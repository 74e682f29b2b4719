"""Rows as other tools write them are read where the meaning is plain; else the message leads on."""

import json
import shlex
from collections.abc import Sequence
from typing import Any, Literal

import pytest

from heed.data.records import Message, RawRow
from heed.data.rows import Rows, check_rows, stream_rows
from heed.errors import UserError


def read(*values: Any, on_bad_row: Literal["stop", "drop"] = "stop", **columns: str) -> Rows:
    rows = [RawRow(place=f"r:{number}", value=value) for number, value in enumerate(values, start=1)]
    return check_rows(rows, source="r", columns=columns, on_bad_row=on_bad_row)


def plain(messages: Sequence[Message]) -> list[Any]:
    """Each turn as its role's first letter and its text, and what else it carries."""
    extras = ("input", "weight")
    return [
        (f"{turn['role'][0]}: {turn['content']}", *(f"{name}={turn[name]}" for name in extras if name in turn))  # type: ignore[literal-required]
        for turn in messages
    ]


Q, A = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
HUMAN, GPT = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}
PAIR = [("u: Hi",), ("a: Hello",)]
NAMES = "from as role, value as content"
SHAREGPT = f"conversations as messages, {NAMES}, human as user, gpt as assistant"

# name -> row, its turns, what is said to be understood
PLAIN: dict[str, tuple[Any, Any, str]] = {
    "ShareGPT": ({"conversations": [HUMAN, GPT]}, PAIR, SHAREGPT),
    "ShareGPT with a system turn": (
        {"conversations": [{"from": "system", "value": "Be brief."}, HUMAN, GPT]},
        [("s: Be brief.",), *PAIR],
        SHAREGPT,
    ),
    "ShareGPT with a system column": (
        {"system": "Be brief.", "conversations": [HUMAN, GPT]},
        [("s: Be brief.",), *PAIR],
        SHAREGPT.replace("messages,", "messages, system as the system turn,"),
    ),
    "ShareGPT's names user and assistant": (
        {"conversation": [{"from": "user", "value": "Hi"}, {"from": "assistant", "value": "Hello"}]},
        PAIR,
        f"conversation as messages, {NAMES}",
    ),
    "two sets put together": (
        {"messages": [{**Q, "from": None, "value": None}, {**GPT, "role": None, "content": None}]},
        PAIR,
        f"{NAMES}, gpt as assistant",
    ),
    "OpenAI's turns under ShareGPT's name": ({"conversations": [Q, A]}, PAIR, "conversations as messages"),
    "weights of turns": (
        {"conversations": [HUMAN, {**GPT, "weight": 0}, HUMAN, GPT]},
        [("u: Hi",), ("a: Hello", "weight=0"), *PAIR],
        SHAREGPT,
    ),
    "TRL's prompt and completion": (
        {"prompt": "Hi", "completion": "Hello"},
        PAIR,
        "prompt as instruction, completion as output",
    ),
    "TRL's prompt and completion as turns": (
        {"prompt": [Q, A, Q], "completion": [A, Q, A]},
        [("u: Hi",), ("a: Hello", "weight=0"), *PAIR, *PAIR],
        "completion as response, nothing of prompt is learned",
    ),
    "a prompt of turns and a completion of text": (
        {"prompt": [{"role": "system", "content": "Be brief."}, Q], "completion": "Hello"},
        [("s: Be brief.",), *PAIR],
        "completion as response, nothing of prompt is learned",
    ),
    "a content in parts": (
        {"messages": [{**Q, "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}, A]},
        PAIR,
        "parts of a content joined",
    ),
    "LLaMA-Factory's system and history": (
        {"instruction": "Hi", "input": "", "output": "Hello", "system": "Be brief.", "history": [["One", "1"]]},
        [("s: Be brief.",), ("u: One",), ("a: 1",), *PAIR],
        "system as the system turn, history as earlier turns",
    ),
    "LLaMA-Factory's columns with nothing in them": (
        {"instruction": "Hi", "output": "Hello", "system": None, "history": []},
        PAIR,
        "",
    ),
    "Dolly": (
        {"instruction": "Hi", "context": "there", "response": "Hello", "category": "qa"},
        [("u: Hi", "input=there"), ("a: Hello",)],
        "response as output, context as input",
    ),
    "OpenOrca": (
        {"id": "1", "system_prompt": "Be brief.", "question": "Hi", "response": "Hello"},
        [("s: Be brief.",), *PAIR],
        "question as instruction, response as output, system_prompt as the system turn",
    ),
    "MetaMath": ({"query": "Hi", "response": "Hello"}, PAIR, "query as instruction, response as output"),
    "a spreadsheet's capitals": (
        {"Instruction": "Hi", "Output ": "Hello"},
        PAIR,
        "Instruction as instruction, Output  as output",
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_shape_is_read_and_reported(name: str) -> None:
    value, turns, understood = PLAIN[name]
    rows = read(value)
    assert (plain(rows.records[0].messages), ", ".join(rows.understood)) == (turns, understood)
    assert rows.notes[:1] == ([f"read {understood}"] if understood else [])


# name -> row, the message
REFUSED: dict[str, tuple[Any, str]] = {
    "calls of tools": (
        {"conversations": [HUMAN, {"from": "function_call", "value": "{}"}, GPT]},
        "field 'conversations', turn 2: role is 'function_call', which is not understood; write calls as "
        "tool_calls and their results as role tool",
    ),
    "a tool's turn": (
        {"messages": [Q, {"role": "tool", "content": "1"}, A]},
        "field 'messages', turn 2: role is 'tool', expected assistant",
    ),
    "a picture": (
        {"messages": [{**Q, "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, A]},
        "field 'messages', turn 1, 'content': part 1 is type 'image_url'; only parts of type 'text' are read",
    ),
    "a part that is a number": (
        {"messages": [{**Q, "content": [{"type": "text", "text": "Hi"}, 3]}, A]},
        "field 'messages', turn 1, 'content': part 2 is a number (3); only parts of type 'text' are read",
    ),
    "an answer first": (
        {"conversations": [GPT, HUMAN]},
        "field 'conversations', turn 1: role is 'assistant', expected system or user",
    ),
    "two system turns": (
        {"system": "Be brief.", "messages": [{"role": "system", "content": "Be long."}, Q, A]},
        "field 'messages', turn 1: role is 'system', expected user",
    ),
    "half a pair": (
        {"instruction": "Hi", "output": "Hello", "history": [["One"]]},
        "field 'history', turn 1: expected an object, got a list",
    ),
    "a completion that asks": (
        {"prompt": [Q], "completion": [A, Q]},
        "field 'completion': the last turn is not the assistant's, so there is nothing to learn",
    ),
    "a number for an answer": (
        {"instruction": "Hi", "output": 3},
        "field 'output': expected text, got a number (3); write it as text",
    ),
    "two answers": ({"instruction": "Hi", "output": ["a", "b"]}, "field 'output': expected text, got a list"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_named_with_its_turn(name: str) -> None:
    value, message = REFUSED[name]
    with pytest.raises(UserError) as error:
        read(value)
    assert str(error.value) == f"r: no usable row, 1 bad\n  r:1: {message}\nFix them."


def test_a_bad_row_is_named_by_the_column_of_its_own_file() -> None:
    with pytest.raises(UserError, match="r:2: field 'completion': is null"):
        read({"prompt": "Hi", "completion": "Hello"}, {"prompt": "Hi", "completion": None})
    with pytest.raises(UserError, match=r"r:2: field 'solution': missing \(the row has 'task'\)"):
        read({"task": "Hi", "solution": "Hello"}, {"task": "Hi"}, instruction="task", output="solution")


# name -> row, what follows the list of what is needed
NOT_PLAIN: dict[str, tuple[Any, str]] = {
    "other names": ({"Task": "Hi", "Solution": "Hello"}, '{"instruction": "Task", "output": "Solution"}'),
    "two answers": (
        {"instruction": "Hi", "response": "Hello", "completion": "Hey"},
        '{"instruction": "instruction", "output": "response"}',
    ),
    "preferences": (
        {"prompt": "Hi", "chosen": "Hello", "rejected": "No"},
        '{"instruction": "prompt", "output": "chosen"}',
    ),
    "a dialogue": ({"dialog": [Q, A], "id": 3}, '{"messages": "dialog"}'),
    "two formats": (
        {"instruction": "Hi", "output": "Hello", "prompt": "Hi", "response": "Hey"},
        '{"instruction": "instruction", "output": "output"}',
    ),
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_the_columns_that_a_message_suggests_are_read(name: str) -> None:
    value, guess = NOT_PLAIN[name]
    with pytest.raises(UserError) as error:
        read(value)
    words = shlex.split(str(error.value))
    columns = words[words.index("--columns") + 1]
    assert columns == guess
    [record] = read(value, **json.loads(columns)).records
    assert (record.instruction, record.output) == ("Hi", "Hello")


@pytest.mark.parametrize(
    ("value", "end"),
    [
        ({"dialog": ["Hi"]}, "'dialog' may be meant, but field 'dialog', turn 1: expected an object, got text"),
        ({"text": "Hi", "label": "1"}, "output: your_other_column}."),
        ({"task": "Hi", "answer": 3}, "output: your_other_column}."),
    ],
)
def test_a_guess_that_would_fail_is_not_made(value: Any, end: str) -> None:
    with pytest.raises(UserError) as error:
        read(value)
    assert str(error.value).endswith(end)


def test_what_nobody_reads_is_counted_in_a_stream_too() -> None:
    turns = [{**HUMAN, "name": "Ann"}, {**GPT, "score": 1}]
    values = [{"conversations": turns, "id": 1}, {"conversations": [HUMAN, GPT], "labels": "[]"}]
    names = ["id of 1 row", "labels of 1 row", "name of 1 turn", "score of 1 turn"]
    assert read(*values).ignored_fields == names
    stream = stream_rows([RawRow(place="r", value=value) for value in values], {})
    unused = [name for row in stream.rows for name in row.unused]  # type: ignore[union-attr]
    assert sorted(unused) == [("id", "row"), ("labels", "row"), ("name", "turn"), ("score", "turn")]


def test_a_column_of_another_kind_than_its_name_says_is_not_used() -> None:
    rows = read({"question": "Hi", "answer": "Hello", "history": "of Rome", "system": 5, "context": ["a"]})
    assert plain(rows.records[0].messages) == PAIR
    assert rows.ignored_fields == ["context of 1 row", "history of 1 row", "system of 1 row"]


def test_dropping_is_advised_only_where_a_row_is_left() -> None:
    with pytest.raises(UserError, match=r"r: 1 bad row\n  r:2: .*\nFix them, or set on_bad_row: drop"):
        read({"instruction": "Hi", "output": "Hello"}, {"instruction": "Hi"})
    rows = read({"instruction": "Hi", "output": "Hello"}, {"instruction": "Hi"}, on_bad_row="drop")
    assert rows.notes == [
        "1 bad row left out, first r:2: field 'output': missing (the row has 'instruction')",
    ]
