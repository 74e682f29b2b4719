"""What a row of data means, before any tokenizer is involved.

Four shapes are understood, told apart by their fields: Alpaca (`instruction`, `input`, `output`), `prompt` and
`response`, `question` and `answer`, and `messages`. A row is checked once, where it enters, and trusted afterwards.
"""

import difflib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import chain
from typing import Any, Literal, NotRequired, TypedDict

from heed.errors import UserError
from heed.saying import count

MAX_PROBLEMS_SHOWN = 20


class Message(TypedDict):
    """One turn of a conversation. `input` is the Alpaca input that goes with a user's instruction.

    What an assistant wrote with `weight` 0 is read and not learned; `reasoning_content` are its thoughts before it.
    """

    role: Literal["system", "user", "assistant"]
    content: str
    input: NotRequired[str]
    weight: NotRequired[int]
    reasoning_content: NotRequired[str]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One checked row: a conversation that ends with the assistant's answer."""

    row_id: int
    """Position in the source, counted from 0 over all of its rows, bad ones included."""
    place: str
    """Where a person finds the row: `file:line`, or `file, row n` where lines mean nothing."""
    messages: tuple[Message, ...]
    source_split: str | None = None
    """The split the source itself puts the row in, if it names one."""

    @property
    def instruction(self) -> str:
        return self.messages[-2]["content"]

    @property
    def input(self) -> str:
        return self.messages[-2].get("input", "")

    @property
    def output(self) -> str:
        return self.messages[-1]["content"]

    @property
    def question(self) -> str:
        """All that stands before the answer, roles left aside."""
        return "\n".join(text for turn in self.messages[:-1] for text in (turn["content"], turn.get("input")) if text)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the conversation alone: equal rows have equal hashes, wherever they stand."""
        return hashlib.sha256(json.dumps(self.messages, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class RawRow:
    """A row as it was read, not yet checked. `problem` is set when not even a row could be read there."""

    place: str
    value: Any
    source_split: str | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A row that was not used, and why; one line of rejected.jsonl."""

    row_id: int
    place: str
    reasons: list[str]
    value: Any


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A whole source, checked."""

    records: list[Record]
    rejected: list[Rejected]
    row_format: str
    ignored_fields: list[str] = field(default_factory=list)

    @cached_property
    def sha256(self) -> str:
        return rows_sha256(self.records)


def rows_sha256(records: Iterable[Record]) -> str:
    """One hash over all conversations in order: changes when any row that is used changes."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(record.content_hash.encode())
    return digest.hexdigest()


# format -> the fields it needs, and those it may have
FORMATS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "alpaca": (("instruction", "output"), ("input",)),
    "prompt_response": (("prompt", "response"), ()),
    "question_answer": (("question", "answer"), ()),
    "messages": (("messages",), ()),
}
FIELDS = tuple(name for required, optional in FORMATS.values() for name in required + optional)


def check_rows(
    rows: Iterable[RawRow],
    *,
    source: str,
    columns: Mapping[str, str],
    on_bad_row: Literal["stop", "drop"],
) -> Rows:
    """Turn raw rows into records; every bad row is named with its place, its field and the reason.

    `columns` maps our field names to the source's own (`{"instruction": "task"}`). The format is decided by the
    first row that shows one, and every later row is held to it.

    Raises UserError when a row is bad and `on_bad_row` is "stop", or when no row is left.
    """
    unused: Counter[str] = Counter()

    def watched() -> Iterator[RawRow]:
        for row in rows:
            unused.update(unused_turn_fields(rename_columns(row.value, columns)))
            yield row

    stream = stream_rows(watched(), columns)
    records: list[Record] = []
    rejected: list[Rejected] = []
    for row in stream.rows:
        if isinstance(row, Record):
            records.append(row)
        else:
            rejected.append(row)
    if rejected and on_bad_row == "stop":
        raise UserError(bad_rows_message(rejected, source))
    if not records:
        raise UserError(f"{source}: no usable row" + (f" ({len(rejected)} bad)" if rejected else ""))
    ignored = [*stream.ignored_fields, *(f"{name} of {count(turns, 'turn')}" for name, turns in sorted(unused.items()))]
    return Rows(records=records, rejected=rejected, row_format=stream.row_format, ignored_fields=ignored)


@dataclass(frozen=True, kw_only=True)
class RowStream:
    """A source on its way: its format is known, its rows are checked as they come."""

    row_format: str
    ignored_fields: list[str]
    rows: Iterator[Record | Rejected]


def stream_rows(rows: Iterable[RawRow], columns: Mapping[str, str]) -> RowStream:
    """Records and rejected rows in the order of the source, without holding them; see `check_rows`.

    Rows before the first one that shows a format are held until it is found.
    Raises UserError when no row shows a format, or one fits two.
    """
    check_columns(columns)
    coming = iter(rows)
    row_format, ignored, seen = decide_format(coming, columns)
    return RowStream(
        row_format=row_format,
        ignored_fields=ignored,
        rows=(check_row(row_id, row, columns, row_format) for row_id, row in enumerate(chain(seen, coming))),
    )


def check_row(row_id: int, row: RawRow, columns: Mapping[str, str], row_format: str) -> Record | Rejected:
    if row.problem is not None:
        problems = [row.problem]
    else:
        messages, problems = read_messages(rename_columns(row.value, columns), row_format)
    if problems:
        return Rejected(row_id=row_id, place=row.place, reasons=problems, value=row.value)
    return Record(row_id=row_id, place=row.place, messages=messages, source_split=row.source_split)


def check_columns(columns: Mapping[str, str]) -> None:
    for ours in columns:
        if ours not in FIELDS:
            raise UserError(f"columns: {ours!r} is not a field Heed knows; map {', '.join(FIELDS)} to your columns")


def bad_rows_message(rejected: Sequence[Rejected], source: str) -> str:
    lines = [f"{row.place}: {reason}" for row in rejected for reason in row.reasons]
    more = len(lines) - MAX_PROBLEMS_SHOWN
    shown = lines[:MAX_PROBLEMS_SHOWN] + ([f"... and {more} more"] if more > 0 else [])
    rows = "1 bad row" if len(rejected) == 1 else f"{len(rejected)} bad rows"
    return (
        f"{source}: {rows}\n  " + "\n  ".join(shown) + "\n"
        "Mend them, or set on_bad_row: drop to leave them out and list them in rejected.jsonl."
    )


def rename_columns(value: Any, columns: Mapping[str, str]) -> Any:
    if not columns or not isinstance(value, dict):
        return value
    renamed = {theirs: ours for ours, theirs in columns.items()}
    # A column that another one takes the place of is dropped, not kept beside it under the same name.
    kept = {name: item for name, item in value.items() if name in renamed or name not in columns}
    return {renamed.get(name, name): item for name, item in kept.items()}


def decide_format(rows: Iterator[RawRow], columns: Mapping[str, str]) -> tuple[str, list[str], list[RawRow]]:
    """The format of the first row that has one, the fields of that row that are not used, and the rows read so far.

    Raises UserError, naming the way out, when no row shows a format or one fits two.
    """
    unknown: tuple[str, Mapping[str, Any]] | None = None
    seen: list[RawRow] = []
    for row in rows:
        seen.append(row)
        value = rename_columns(row.value, columns)
        if row.problem is not None or not isinstance(value, dict):
            continue
        matches = [name for name, (required, _) in FORMATS.items() if all(key in value for key in required)]
        if len(matches) > 1:
            raise UserError(
                f"{row.place}: the row fits {' and '.join(matches)} at once (it has {', '.join(map(repr, value))}); "
                "remove the columns that are not meant"
            )
        if matches:
            used = {name for names in FORMATS[matches[0]] for name in names}
            return matches[0], sorted(set(value) - used), seen
        unknown = unknown or (row.place, value)
    if unknown is None:
        # Nothing but broken rows: whatever the format, each of them is named with its own reason.
        return "alpaca", [], seen
    place, value = unknown
    hint = ""
    only = next(iter(value)) if len(value) == 1 else ""
    if separator := next((word for mark, word in SEPARATORS.items() if mark in only), None):
        hint = f" The columns seem to be separated by {separator}; save the file with commas."
    elif guess := guess_columns(value):
        hint = f" A guess, which is not applied: --columns '{json.dumps(guess)}'"
    raise UserError(
        f"{place}: no known format, the row has {', '.join(map(repr, value)) or 'no fields'}. Needed: instruction and "
        "output (input may be absent), or prompt and response, or question and answer, or messages; name other "
        f"columns with columns: {{instruction: your_column, output: your_other_column}}.{hint}"
    )


SEPARATORS = {";": "semicolons", "\t": "tabs"}
# our field -> what others call it, the likeliest first
SYNONYMS: dict[str, tuple[str, ...]] = {
    "instruction": ("instruction", "instructions", "task", "prompt", "question", "query", "request", "user", "human"),
    "input": ("input", "inputs", "context", "passage", "text"),
    "output": (
        *("output", "outputs", "ouput", "response", "answer", "completion", "solution", "target", "reply", "result"),
        *("assistant", "gpt", "chosen"),
    ),
    "messages": ("messages", "message", "conversation", "conversations", "dialog", "dialogue", "chat", "turns"),
}


def guess_columns(row: Mapping[str, Any]) -> dict[str, str]:
    """Which of a row's fields may be ours by name and kind of value, as `columns` wants it; empty when none fit.

    A guess is for a person to read, never to be applied unasked.
    """
    names = {name.casefold().strip().replace(" ", "_"): name for name in row}
    found: dict[str, str] = {}
    for ours, theirs in SYNONYMS.items():
        kind = list if ours == "messages" else str
        free = [name for name in theirs if name in names and names[name] not in found.values()]
        match = next((names[name] for name in free if isinstance(row[names[name]], kind)), None)
        if match is not None:
            found[ours] = match
    if "messages" in found:
        return {"messages": found["messages"]}
    return found if {"instruction", "output"} <= set(found) else {}


def misspelt_fields(row: Mapping[str, Any], row_format: str) -> list[str]:
    """Fields that are nearly the name of an optional one that the row lacks: its text would silently be left out."""
    required, optional = FORMATS[row_format]
    others = [name for name in row if name not in required and name not in optional]
    return [
        f"field {other!r}: unknown, and nearly {near!r}, which the row lacks; rename it"
        for other in others
        if (near := nearest_field(other, optional)) is not None and near not in row
    ]


@cache
def nearest_field(name: str, fields: tuple[str, ...]) -> str | None:
    return next(iter(difflib.get_close_matches(name, fields, n=1, cutoff=0.8)), None)


def read_messages(row: Any, row_format: str) -> tuple[tuple[Message, ...], list[str]]:
    """A row's conversation and what is wrong with it; one of the two is empty."""
    if not isinstance(row, dict):
        return (), [f"expected an object with fields, got {type_name(row)}"]
    if row_format == "messages":
        return read_conversation(row.get("messages", MISSING), row)
    required, optional = FORMATS[row_format]
    problems = [f"field {name!r}: {problem}" for name in required if (problem := text_problem(row, name, needed=True))]
    problems += [
        f"field {name!r}: {problem}" for name in optional if (problem := text_problem(row, name, needed=False))
    ]
    if optional and len(row) > len(required):
        problems += misspelt_fields(row, row_format)
    if problems:
        return (), problems
    user: Message = {"role": "user", "content": row[required[0]]}
    if any(row.get(name) for name in optional):
        user["input"] = row["input"]
    return (user, {"role": "assistant", "content": row[required[1]]}), []


CALLS = ("tool_calls", "function_call", "tool_call_id")
TURN_FIELDS = {
    "system": ("role", "content"),
    "user": ("role", "content", "input"),
    "assistant": ("role", "content", "weight", "reasoning_content"),
}
MISSING = object()
HALF_A_PAIR = re.compile("[\ud800-\udfff]")


def text_problem(row: Mapping[str, Any], name: str, *, needed: bool) -> str | None:
    """What is wrong with one text field, or None. An optional field may be absent, null or empty."""
    value = row.get(name, MISSING)
    if value is MISSING:
        return f"missing (the row has {', '.join(map(repr, row))})" if needed else None
    if value is None:
        return "is null" if needed else None
    if not isinstance(value, str):
        return f"expected text, got {type_name(value)}"
    if needed and not value.strip():
        return "is empty"
    if "\x00" in value:
        return "holds a NUL character"
    if HALF_A_PAIR.search(value):
        return "holds half of a surrogate pair (broken \\u escape)"
    return None


def read_conversation(turns: Any, row: Mapping[str, Any]) -> tuple[tuple[Message, ...], list[str]]:
    """Check a `messages` list: an optional system turn, then user and assistant in turn, ending with the latter."""
    if turns is MISSING:
        return (), [f"field 'messages': missing (the row has {', '.join(map(repr, row))})"]
    if not isinstance(turns, list) or not turns:
        return (), [f"field 'messages': expected a list of turns, got {type_name(turns)}"]
    problems: list[str] = []
    messages: list[Message] = []
    for number, turn in enumerate(turns, start=1):
        expected = expected_role(messages)
        if not isinstance(turn, dict):
            problems.append(f"field 'messages', turn {number}: expected an object, got {type_name(turn)}")
            break
        role = turn.get("role")
        if role not in expected:
            problems.append(f"field 'messages', turn {number}: role is {role!r}, expected {' or '.join(expected)}")
            break
        if problem := text_problem(turn, "content", needed=True):
            problems.append(f"field 'messages', turn {number}, 'content': {problem}")
            break
        if calls := next((name for name in CALLS if turn.get(name)), None):
            problems.append(f"field 'messages', turn {number}, {calls!r}: calls of tools are not understood")
            break
        message: Message = {"role": role, "content": turn["content"]}
        if role == "assistant" and (problem := read_extras(turn, message)):
            problems.append(f"field 'messages', turn {number}, {problem}")
            break
        if role == "user" and turn.get("input"):
            if problem := text_problem(turn, "input", needed=False):
                problems.append(f"field 'messages', turn {number}, 'input': {problem}")
                break
            message["input"] = turn["input"]
        messages.append(message)
    if not problems and messages[-1]["role"] != "assistant":
        problems.append("field 'messages': the last turn is not the assistant's, so there is nothing to learn")
    if not problems and not learned_turns(messages):
        problems.append("field 'messages': every turn of the assistant has weight 0, so there is nothing to learn")
    return (tuple(messages), []) if not problems else ((), problems)


def read_extras(turn: Mapping[str, Any], message: Message) -> str | None:
    """Put what an assistant's turn carries beside its text into `message`; what is wrong with it, or None."""
    weight = turn.get("weight")
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        return f"'weight': expected 0 or 1, got {weight!r}"
    if weight == 0:
        message["weight"] = 0
    if turn.get("reasoning_content"):
        if problem := text_problem(turn, "reasoning_content", needed=False):
            return f"'reasoning_content': {problem}"
        message["reasoning_content"] = turn["reasoning_content"]
    return None


def learned_turns(messages: Sequence[Message]) -> list[int]:
    """The turns that the assistant wrote and that are to be learned."""
    return [
        turn
        for turn, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("weight", 1) != 0
    ]


def unused_turn_fields(value: Any) -> Iterator[str]:
    """Names of what the turns of a row carry and nobody reads, once for each turn."""
    turns = value.get("messages") if isinstance(value, dict) else None
    for turn in turns if isinstance(turns, list) else ():
        if isinstance(turn, dict):
            known = TURN_FIELDS.get(str(turn.get("role")), ())
            yield from (name for name, item in turn.items() if name not in known and item not in (None, "", [], {}))


def expected_role(messages: Sequence[Message]) -> tuple[str, ...]:
    if not messages:
        return ("system", "user")
    return ("assistant",) if messages[-1]["role"] == "user" else ("user",)


def type_name(value: Any) -> str:
    """A value's type in JSON's words, which is what the user sees in the file."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return f"a number ({value})"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return {"str": "text", "dict": "an object"}.get(type(value).__name__, type(value).__name__)
