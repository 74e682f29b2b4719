"""What a model answered to each row, as written in responses.json: where scoring, judging and voting start."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heed.answers.copies import COPIED, is_copied
from heed.data.fields import HALF_A_PAIR, type_name
from heed.data.records import Message, Record
from heed.errors import UserError
from heed.files import run_folder
from heed.saying import Say

if TYPE_CHECKING:  # generation needs torch; what reads answers does not
    from heed.answers.partial import Response

PROBLEMS_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A row and what a model wrote to it. What another tool's file does not say is None."""

    row_id: int
    instruction: str
    input: str
    output: str
    """The reference."""
    model_response: str
    finish_reason: str | None = None
    """"stop" when the model ended by itself, "length" when max_new_tokens ended it."""
    prompt_tokens: int | None = None
    response_tokens: int | None = None
    seconds: float | None = None
    system_prompt: str | None = None
    history: tuple[Message, ...] = ()
    """Turns before the instruction, without the system's."""
    flags: tuple[str, ...] = ()

    @property
    def user_content(self) -> str:
        """Instruction and input as one text, for tools that have no second field."""
        return f"{self.instruction}\n\n{self.input}" if self.input else self.instruction


def response_rows(
    records: Sequence[Record], responses: "Sequence[Response]", learned: Collection[int] = ()
) -> list[dict[str, Any]]:
    """Rows of responses.json: first the four fields that every tool reads, then how the answer came about.

    `learned` are the fingerprints of what training rows answer.
    """
    return [
        {
            "instruction": record.instruction,
            "input": record.input,
            "output": record.output,
            "model_response": response.text,
            "row_id": record.row_id,
            **before_the_instruction(record),
            "finish_reason": response.finish_reason,
            "prompt_tokens": response.prompt_tokens,
            "response_tokens": response.response_tokens,
            "seconds": round(response.seconds, 4),
            **({"flags": [COPIED]} if is_copied(response.text, record.output, learned) else {}),
        }
        for record, response in zip(records, responses, strict=True)
    ]


def answer_rows(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """What responses.json has of answers that were read."""
    return [{name: value for name, value in vars(each).items() if value not in (None, ())} for each in answers]


def before_the_instruction(record: Record) -> dict[str, Any]:
    """The system prompt and earlier turns that the model was shown, where there are any."""
    found = {"system_prompt": record.system, "history": record.history}
    return {name: value for name, value in found.items() if value}


def read_responses(path: Path, *, columns: Mapping[str, str] | None = None, say: Say = print) -> list[Answer]:
    """The answers of a responses.json, even of one that another tool wrote with just the four text fields.

    `columns` maps our field names to the file's own. Without row ids the position counts, from 0; `say` reports that,
    and fields that nothing here reads. Raises UserError naming file, row and field.
    """
    rows = raw_answers(path)
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: expected a list of answers, got {type_name(rows)}")
    rows = [renamed(row, columns) for row in rows] if columns else rows
    problems = [f"row {number}: {problem}" for number, row in enumerate(rows) for problem in row_problems(row)]
    if problems:
        more = f"\n  ... and {len(problems) - PROBLEMS_SHOWN} more" if len(problems) > PROBLEMS_SHOWN else ""
        raise UserError(f"{path}: not a file of answers\n  " + "\n  ".join(problems[:PROBLEMS_SHOWN]) + more)
    with_id = sum("row_id" in row for row in rows)
    if with_id not in (0, len(rows)):
        number = next(number for number, row in enumerate(rows) if "row_id" not in row)
        raise UserError(f"{path}: row {number}: field 'row_id' is missing, but other rows have it")
    if not with_id:
        say(f"{path}: no row ids, so the position in the file is used")
    if unread := sorted({name for row in rows for name in row} - set(Answer.__dataclass_fields__)):
        say(f"{path}: not read: {', '.join(unread)}")
    answers = [answer(row, number) for number, row in enumerate(rows)]
    seen: dict[int, int] = {}
    for number, each in enumerate(answers):
        if each.row_id in seen:
            raise UserError(f"{path}: row {number}: row_id {each.row_id} is that of row {seen[each.row_id]} too")
        seen[each.row_id] = number
    return answers


def raw_answers(path: Path) -> Any:
    """What a file holds, JSON or a JSON value a line (.jsonl). Raises UserError if it is absent or damaged."""
    lines = path.suffix == ".jsonl" and path.is_file()
    return run_folder.read_lines(path) if lines else run_folder.read_json(path)


def renamed(row: Any, columns: Mapping[str, str]) -> Any:
    """A row in our names; a field whose place another column takes is left out."""
    found = {ours: theirs for ours, theirs in columns.items() if isinstance(row, dict) and theirs in row}
    if not found:
        return row
    others = {name: value for name, value in row.items() if name not in found and name not in found.values()}
    return others | {ours: row[theirs] for ours, theirs in found.items()}


def answer(row: Mapping[str, Any], number: int) -> Answer:
    values: dict[str, Any] = {"row_id": number, "input": ""}
    values |= {name: row[name] for name in Answer.__dataclass_fields__ if row.get(name) is not None}
    values |= {name: tuple(values[name]) for name in ("history", "flags") if name in values}
    return Answer(**values)


NEEDED = ("instruction", "output", "model_response")
TEXTS = (*NEEDED, "input", "finish_reason", "system_prompt")
WHOLE_NUMBERS = ("row_id", "prompt_tokens", "response_tokens")


def row_problems(row: Any) -> list[str]:
    """What is wrong with the fields of a row. An empty text is an answer too, and a reference."""
    if not isinstance(row, dict):
        return [f"expected an object with fields, got {type_name(row)}"]
    checks = (
        *((name, text_problem) for name in TEXTS),
        *((name, number_problem) for name in (*WHOLE_NUMBERS, "seconds")),
        ("flags", flags_problem),
        ("history", history_problem),
    )
    missing = [name for name in NEEDED if name not in row]
    problems = [f"field {name!r} is missing (the row has {', '.join(map(repr, row))})" for name in missing]
    problems += [f"field {name!r} is null" for name in (*NEEDED, "row_id") if name in row and row[name] is None]
    for name, check in checks:
        if row.get(name) is not None and (problem := check(name, row[name])):
            problems.append(f"field {name!r}: {problem}")
    return problems


def text_problem(name: str, value: Any) -> str | None:
    if not isinstance(value, str):
        return f"expected text, got {type_name(value)}"
    if HALF_A_PAIR.search(value):
        return "contains half of a surrogate pair (broken \\u escape)"
    return None


def number_problem(name: str, value: Any) -> str | None:
    if name in WHOLE_NUMBERS:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return None if whole else f"expected a whole number, got {type_name(value)}"
    return None if type(value) in (int, float) else f"expected a number, got {type_name(value)}"


def flags_problem(name: str, value: Any) -> str | None:
    good = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return None if good else "expected a list of texts"


def history_problem(name: str, value: Any) -> str | None:
    turns = value if isinstance(value, list) else [value]
    good = all(isinstance(turn, dict) and {"role", "content"} <= set(turn) for turn in turns)
    texts = good and all(isinstance(turn[name], str) for turn in turns for name in ("role", "content"))
    return None if isinstance(value, list) and texts else "expected a list of turns with role and content"
