"""Which shape the rows of a source have: recognised by their fields, and asked for where that is unclear."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from heed.data.formats import NO_HEADER, NO_HEADER_OF_THREE
from heed.data.records import RawRow
from heed.data.shapes import FIELDS, FORMATS, TURNS, Shape, read_messages
from heed.data.turns import are_turns, translated
from heed.errors import UserError

# Names whose meaning is plain if a row has only one of them.
CONVERSATIONS = ("messages", "conversations", "conversation")
QUESTIONS = ("instruction", "prompt", "question", "query", NO_HEADER[0])
ANSWERS = ("output", "response", "answer", "completion", NO_HEADER[1], NO_HEADER_OF_THREE[2])
# our optional field -> other names of it, and the kind of value that it plainly is
BESIDE = {
    "input": (("context", NO_HEADER_OF_THREE[1]), str),
    "system": (("system_prompt",), str),
    "history": ((), list),
    "tools": ((), list | str),
}
WORDS = {"system": "the system turn", "history": "earlier turns"}
# our field -> names that suggest it, the likeliest first
SUGGESTIVE: dict[str, tuple[str, ...]] = {
    "instruction": (*QUESTIONS, "instructions", "task", "request", "user", "human"),
    "input": ("input", "inputs", "context", "passage", "text"),
    "output": (
        *(*ANSWERS, "outputs", "ouput", "solution", "target", "reply", "result"),
        *("assistant", "gpt", "chosen"),
    ),
    "messages": (*CONVERSATIONS, "message", "dialog", "dialogue", "chat", "turns"),
}
BROKEN = Shape(row_format="alpaca", columns={name: name for names in FORMATS["alpaca"] for name in names})
"""Of a source with nothing but broken rows: whatever the shape, each of them is named with its own reason."""


def decide_shape(rows: Iterator[RawRow], columns: Mapping[str, str]) -> tuple[Shape, list[RawRow]]:
    """The shape of the first row that has one, and the rows read so far.

    Raises UserError, naming the way out, when no row shows a shape or one fits two.
    """
    check_columns(columns)
    unknown: RawRow | None = None
    seen: list[RawRow] = []
    for row in rows:
        seen.append(row)
        if row.problem is None and isinstance(row.value, dict):
            if shape := shape_of(row, columns):
                return shape, seen
            unknown = unknown or row
    if unknown is None:
        return BROKEN, seen
    raise UserError(
        f"{unknown.place}: no known format, the row has {', '.join(map(repr, unknown.value)) or 'no fields'}. Needed: "
        "instruction and output (input may be absent), or prompt and response, or question and answer, or messages, a "
        "list of {role, content}; name other columns with columns: {instruction: your_column, output: "
        f"your_other_column}}.{hint(unknown, columns)}"
    )


def check_columns(columns: Mapping[str, str]) -> None:
    for ours in columns:
        if ours not in FIELDS:
            raise UserError(f"columns: {ours!r} is not a field Heed knows; map {', '.join(FIELDS)} to your columns")


def shape_of(row: RawRow, columns: Mapping[str, str]) -> Shape | None:
    """The shape that a row plainly has, if there is one."""
    value, names = row.value, named(row.value, columns)
    fits = {name: needs for name, (needs, _) in FORMATS.items() if all(ours in names for ours in needs)}
    mapped = {name for name, needs in fits.items() if columns.keys() & set(needs)}
    exact = {name for name, needs in fits.items() if all(names[ours] == columns.get(ours, ours) for ours in needs)}
    chosen = mapped or exact or set(fits)
    if len(chosen) > 1:
        first = {ours: names[ours] for ours in next(iter(fits.values()))}
        raise UserError(
            f"{row.place}: the row fits {' and '.join(fits)} at once (it has {', '.join(map(repr, value))}); say which "
            f"is meant, such as --columns '{json.dumps(first)}'"
        )
    required = {ours: names[ours] for name in chosen for ours in fits[name]} or plain_names(value, names)
    if not required:
        return None
    row_format = next(name for name, (needs, _) in FORMATS.items() if set(needs) == set(required))
    if row_format != "messages" and any(are_turns(value[theirs]) for theirs in required.values()):
        row_format, required = TURNS, dict(zip(("prompt", "response"), required.values(), strict=True))
    optional = ("system", "history", "tools") if row_format == TURNS else FORMATS[row_format][1]
    found = required | {ours: each for ours in optional if (each := optional_name(ours, value, names, columns))}
    said = [*understood(value, found, columns), *(["nothing of prompt is learned"] if row_format == TURNS else [])]
    return Shape(row_format=row_format, columns=found, understood=tuple(said))


def understood(value: Mapping[str, Any], found: Mapping[str, str], columns: Mapping[str, str]) -> Iterator[str]:
    """What a person may not expect of the way a row is read."""
    for ours, theirs in found.items():
        if ours not in columns and value.get(theirs) and (ours != theirs or ours in WORDS):
            yield f"{theirs} as {WORDS.get(ours, ours)}"
    parts = [value[theirs] for theirs in found.values() if are_turns(value.get(theirs))]
    yield from dict.fromkeys(word for part in parts for word in translated(part))


def named(value: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, str]:
    """Name -> the column that has it: by `columns`, or else by its own name, without capitals and spaces."""
    free = [name for name in value if name not in columns.values()]
    names = {name.casefold().strip().replace(" ", "_"): name for name in free} | {name: name for name in free}
    return {name: theirs for name, theirs in (names | dict(columns)).items() if theirs in value}


def plain_names(value: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """The fields of the one question and the one answer, or of the one conversation, that a row has."""

    def found(known: Sequence[str], *, texts: bool) -> list[str]:
        columns = [names[name] for name in known if name in names]
        return [each for each in columns if are_turns(value[each]) or (texts and isinstance(value[each], str))]

    questions, answers = found(QUESTIONS, texts=True), found(ANSWERS, texts=True)
    conversations = found(CONVERSATIONS, texts=False)
    if len(questions) == len(answers) == 1 and not conversations:
        return {"instruction": questions[0], "output": answers[0]}
    return {"messages": conversations[0]} if len(conversations) == 1 and not (questions and answers) else {}


def optional_name(
    ours: str, value: Mapping[str, Any], names: Mapping[str, str], columns: Mapping[str, str]
) -> str | None:
    """The column of an optional field, which the first row need not have; None where it has something else."""
    others, kind = BESIDE[ours]
    if ours in columns or (ours == "input" and ours in names):
        return columns.get(ours) or names[ours]
    plain = [names[name] for name in (ours, *others) if name in names and isinstance(value[names[name]], kind | None)]
    return plain[0] if plain else None if ours in value else ours


def hint(row: RawRow, columns: Mapping[str, str]) -> str:
    """The way out of a row of no known shape: a guess that has been tried, or why none works."""
    guess, problem = guess_columns(row, columns)
    if problem:
        return f" {' and '.join(map(repr, guess.values()))} may be meant, but {problem}"
    return f" A guess, which is not applied: --columns '{json.dumps(guess)}'" if guess else ""


def guess_columns(row: RawRow, columns: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Which of a row's columns may be ours by name and kind of value, and what is wrong with them; empty if nothing.

    A guess is for a person to read, never to be applied unasked.
    """
    names, found = named(row.value, columns), dict[str, str]()
    for ours, known in SUGGESTIVE.items():
        kind = list if ours == "messages" else str
        free = [names[name] for name in (ours, *known) if name in names and names[name] not in found.values()]
        if theirs := next((each for each in free if isinstance(row.value[each], kind)), None):
            found[ours] = theirs
    if "messages" in found:
        found = {"messages": found["messages"]}
    elif not {"instruction", "output"} <= set(found):
        return {}, ""
    shape = shape_of(row, found)
    problems = read_messages(row.value, shape)[1] if shape else ["they do not go together"]
    return found, "; ".join(problems)
