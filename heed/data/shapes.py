"""The shapes that rows come in: which fields each has, and the conversation that a row of it means."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from heed.data import turns
from heed.data.fields import optional_text_problem, text_problem, type_name
from heed.data.records import Message, learned_turns
from heed.data.tools import read_tools

BESIDE = ("input", "system", "history")
# format -> the fields it needs, and those it may have
FORMATS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "alpaca": (("instruction", "output"), BESIDE),
    "prompt_response": (("prompt", "response"), BESIDE),
    "question_answer": (("question", "answer"), BESIDE),
    "messages": (("messages",), ("system", "tools")),
}
# TRL's prompt and completion as turns: the fields of prompt_response, distinguished from it by what is in them.
TURNS = "turns"
FIELDS = tuple(dict.fromkeys(name for required, optional in FORMATS.values() for name in required + optional))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How the rows of a source are read; decided by its first row, and applied to all."""

    row_format: str
    columns: Mapping[str, str]
    """Our field -> the source's column, for every field that the format needs or may have."""
    understood: tuple[str, ...] = ()
    """What was read as ours without being asked, for a person."""

    @cached_property
    def required(self) -> tuple[str, ...]:
        return FORMATS["prompt_response" if self.row_format == TURNS else self.row_format][0]

    @cached_property
    def read(self) -> frozenset[str]:
        return frozenset(self.columns.values())

    def field(self, ours: str) -> str:
        return f"field {self.columns[ours]!r}"


def read_messages(row: Any, shape: Shape) -> tuple[tuple[Message, ...], list[str]]:
    """A row's conversation and what is wrong with it; one of the two is empty."""
    if not isinstance(row, dict):
        return (), [f"expected an object with fields, got {type_name(row)}"]
    missing = [ours for ours in shape.required if shape.columns[ours] not in row]
    if missing:
        has = f"missing (the row has {', '.join(map(repr, row))})"
        return (), [f"{shape.field(ours)}: {has}" for ours in missing]
    values = {ours: row.get(theirs) for ours, theirs in shape.columns.items()}
    problems = [f"{shape.field(ours)}: {problem}" for ours, problem in field_problems(values, shape)]
    problems += misspelled_fields(row, shape)
    if problems:
        return (), problems
    messages: list[Message] = []
    for ours, part in conversation(values, shape):
        if isinstance(part, list):
            if problem := turns.read_turns(part, messages):
                return (), [f"{shape.field(ours)}, {problem}"]
        elif part["role"] in turns.expected_roles(messages):
            messages.append(part)
        else:
            return (), [f"{shape.field(ours)}: no turn of the {part['role']} can be here"]
    if tools := read_tools(values.get("tools"))[0]:
        messages[0]["tools"] = tools
    last = shape.field(shape.required[-1])
    if messages[-1]["role"] != "assistant":
        return (), [f"{last}: the last turn is not the assistant's, so there is nothing to learn"]
    if not learned_turns(messages):
        return (), [f"{last}: every turn of the assistant has weight 0, so there is nothing to learn"]
    return tuple(messages), []


def field_problems(values: Mapping[str, Any], shape: Shape) -> Iterator[tuple[str, str]]:
    """Our name of each field that cannot be read, and why; the turns of a conversation are not looked at."""
    for ours, value in values.items():
        needed = ours in shape.required
        if ours == "tools":
            problem = read_tools(value)[1]
        elif ours == "history" or (needed and shape.row_format in ("messages", TURNS)):
            text = isinstance(value, str) and shape.row_format == TURNS
            problem = text_problem(value) if text else turns_problem(value, needed=needed)
        else:
            problem = text_problem(value) if needed else optional_text_problem(value)
        if problem:
            yield ours, problem


def turns_problem(value: Any, *, needed: bool) -> str | None:
    absent = not needed and value in (None, "", [])
    good = isinstance(value, list) and value
    return None if absent or good else f"expected a list of turns, got {type_name(value)}"


def conversation(values: Mapping[str, Any], shape: Shape) -> Iterator[tuple[str, list[Any] | Message]]:
    """The parts of a row in their order: a text that was checked as a message, and turns as they are."""
    if (values.get("system") or "").strip():
        yield "system", {"role": "system", "content": values["system"]}
    if history := values.get("history"):
        yield "history", list(earlier(history))
    if shape.row_format == "messages":
        yield "messages", values["messages"]
        return
    question, answer = shape.required
    if isinstance(values[question], list):
        yield question, [unlearned(turn) for turn in values[question]]
    else:
        user: Message = {"role": "user", "content": values[question]}
        yield question, {**user, "input": values["input"]} if values.get("input") else user
    if isinstance(values[answer], list):
        yield answer, values[answer]
    else:
        yield answer, {"role": "assistant", "content": values[answer]}


def unlearned(turn: Any) -> Any:
    """A turn of a prompt, which is read and not learned even if the assistant wrote it."""
    words = turns.in_our_words(turn) if isinstance(turn, dict) else {}
    return {**words, "weight": 0} if words.get("role") == "assistant" else turn


def earlier(history: Sequence[Any]) -> Iterator[Any]:
    """LLaMA-Factory's pairs of question and answer as turns; what is already a turn stays one."""
    for entry in history:
        if isinstance(entry, list) and len(entry) == 2:
            yield {"role": "user", "content": entry[0]}
            yield {"role": "assistant", "content": entry[1]}
        else:
            yield entry


def misspelled_fields(row: Mapping[str, Any], shape: Shape) -> list[str]:
    """Fields with nearly the name `input` in a row that has none: their text would silently be left out."""
    if "input" not in shape.columns or shape.columns["input"] in row or len(row) == len(shape.required):
        return []
    others = [name for name in row if name not in shape.read and nearly_input(name)]
    return [f"field {name!r}: unknown, nearly 'input', which the row does not have; rename it" for name in others]


@cache
def nearly_input(name: str) -> bool:
    return bool(difflib.get_close_matches(name, ["input"], cutoff=0.8))


def unused_fields(row: Mapping[str, Any], shape: Shape) -> tuple[tuple[str, str], ...]:
    """What a row and its turns have that nobody reads: each name, and whether a row or a turn has it."""
    found = [(name, "row") for name in row if name not in shape.read]
    for theirs in shape.read:
        if isinstance(row.get(theirs), list) and theirs != shape.columns.get("tools"):
            found += [(name, "turn") for name in turns.unused_fields(row[theirs])]
    return tuple(found)
