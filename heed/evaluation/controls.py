"""Does a model read the instruction? Rows asked again, in ways that should change the answer and in other words."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from heed.answers.responses import response_rows
from heed.data.records import Message, Record
from heed.errors import UserError
from heed.files import run_folder
from heed.files.lines import parse
from heed.measure.metrics import token_f1
from heed.saying import count

if TYPE_CHECKING:  # heavy: what scores kept answers does not need a model
    from heed.answers.partial import Response

POLITE = "Hello! Could you please help me with the following? "
DRAWN = 8
"""Rows drawn as a source of another instruction; the one that is least like the row is taken."""
TOO_LONG = "whose prompt would not fit the model's positions"


@dataclass(frozen=True, kw_only=True)
class Control:
    """A row as it is asked for a control; `instead` is the reference of the row whose instruction it got."""

    kind: str
    record: Record
    instead: str | None = None


@dataclass(frozen=True, kw_only=True)
class Controls:
    """All that is asked, and the rows left out: kind -> reason -> how many."""

    asked: Sequence[Control] = ()
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.asked or self.left_out)

    def fitting(self, fits: Sequence[bool]) -> "Controls":
        """Those whose prompt fits the model."""
        asked = [each for each, fit in zip(self.asked, fits, strict=True) if fit]
        long = Counter(each.kind for each, fit in zip(self.asked, fits, strict=True) if not fit)
        left_out = {kind: {**self.left_out.get(kind, {}), TOO_LONG: number} for kind, number in long.items()}
        return Controls(asked=asked, left_out={**self.left_out, **left_out})

    def __str__(self) -> str:
        asked = Counter(each.kind for each in self.asked)
        parts = [f"{kind} {number}" for kind, number in asked.items()]
        parts += [f"{kind} not on {note}" for kind, known in self.left_out.items() for note in reasons(known)]
        return f"controls, on {count(len({each.record.row_id for each in self.asked}), 'row')}: {', '.join(parts)}"


def reasons(left_out: Mapping[str, int]) -> list[str]:
    return [f"{count(number, 'row')} {reason}" for reason, number in left_out.items()]


# ---- what is asked


def make_controls(
    records: Sequence[Record], *, kinds: Sequence[str], rows: int, rewordings: Mapping[str, Sequence[str]]
) -> Controls:
    """The kinds of control on some rows: those that have rewordings first, then by the hash of what they say."""
    in_order = sorted(records, key=lambda each: (each.instruction.strip() not in rewordings, each.content_hash))
    asked: list[Control] = []
    left_out: dict[str, Counter[str]] = {}
    for record in in_order[:rows]:
        for kind in dict.fromkeys(kinds):
            change, reason = CHANGES[kind]
            control = change(record, in_order)
            if control is None:
                left_out.setdefault(kind, Counter())[reason] += 1
            else:
                asked.append(control)
        for text in rewordings.get(record.instruction.strip(), ()):
            asked.append(Control(kind="paraphrases", record=reworded(record, text)))
    return Controls(asked=asked, left_out=left_out)


def reworded(record: Record, instruction: str, *, with_input: bool = True) -> Record:
    """The row with another text as its last question."""
    turn: Message = {"role": "user", "content": instruction}
    if with_input and record.input:
        turn["input"] = record.input
    return replace(record, messages=(*record.messages[:-2], turn, record.messages[-1]))


def foreign(record: Record, records: Sequence[Record]) -> Control | None:
    """With another row's instruction, one that asks for something else, judging by its words."""
    different = [each for each in records if each.instruction.strip() != record.instruction.strip()]
    drawn = random.Random(record.content_hash).sample(different, min(DRAWN, len(different)))
    if not drawn:
        return None

    def likeness(other: Record) -> tuple[bool, float]:
        alike = token_f1(other.instruction, record.instruction) + token_f1(other.output, record.output)
        return bool(other.input) != bool(record.input), alike

    other = min(drawn, key=likeness)
    return Control(kind="foreign", record=reworded(record, other.instruction), instead=other.output)


def without_input(record: Record, records: Sequence[Record]) -> Control | None:
    if not record.input:
        return None
    return Control(kind="no_input", record=reworded(record, record.instruction, with_input=False))


def shuffled(record: Record, records: Sequence[Record]) -> Control | None:
    words = record.instruction.split()
    if len(set(words)) < 2:
        return None
    drawn, other = random.Random(record.content_hash), words
    while other == words:
        other = drawn.sample(words, len(words))
    return said("shuffled", record, " ".join(other))


def other_case(record: Record, records: Sequence[Record]) -> Control | None:
    """In lower case, as many people type; in capitals where it is lower case already."""
    text = record.instruction
    other = text.lower() if text.lower() != text else text.upper()
    return None if other == text else said("case", record, other)


def polite(record: Record, records: Sequence[Record]) -> Control | None:
    return said("polite", record, POLITE + record.instruction)


def said(kind: str, record: Record, instruction: str) -> Control:
    return Control(kind=kind, record=reworded(record, instruction))


# kind -> how a row is asked, and why that may be impossible
CHANGES: dict[str, tuple[Callable[[Record, Sequence[Record]], Control | None], str]] = {
    "foreign": (foreign, "for which there is no other instruction"),
    "no_input": (without_input, "without an input"),
    "shuffled": (shuffled, "whose words have no other order"),
    "case": (other_case, "whose letters have no case"),
    "polite": (polite, ""),
}


def read_rewordings(path: Path, records: Sequence[Record]) -> dict[str, list[str]]:
    """Instruction -> its rewordings, of lines {"instruction": ..., "paraphrases": [...]}.

    Raises UserError naming a line that is not one, and an instruction that no row has.
    """
    try:
        lines = path.read_bytes().rstrip(b"\n").split(b"\n")
    except OSError as error:
        raise UserError(f"paraphrases: {path} cannot be read ({error.strerror})") from error
    known = {record.instruction.strip() for record in records}
    found: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        try:
            value = parse(line)
            instruction, texts = value["instruction"].strip(), value["paraphrases"]
            if not isinstance(texts, list) or not all(isinstance(each, str) and each.strip() for each in texts):
                raise ValueError(f"{texts!r} is not a list of texts")
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(
                f'{path}:{number}: expected {{"instruction": "a row\'s", "paraphrases": ["...", "..."]}} '
                f"({type(error).__name__}: {error})"
            ) from error
        if instruction not in known:
            raise UserError(f"{path}:{number}: no row that is answered has the instruction {instruction[:80]!r}")
        found.setdefault(instruction, []).extend(texts)
    return found


# ---- what was answered


def write_controls(folder: Path, controls: Controls, responses: "Sequence[Response]") -> None:
    rows = response_rows([each.record for each in controls.asked], responses)
    answers = [
        {"control": each.kind, "instead": each.instead, **row} for each, row in zip(controls.asked, rows, strict=True)
    ]
    value = {"left_out": controls.left_out, "answers": answers}
    run_folder.write_json(folder / run_folder.CONTROLS_FILE, value)
