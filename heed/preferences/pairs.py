"""Pairs for preference training: a prompt, the answer that was preferred, and the one that was not.

As `arena.py pairs` writes them and TRL reads them: prompt, chosen and rejected, each a text or a list of turns. Where
the turns of the prompt stand before both answers instead, they are taken from there.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heed.data import turns
from heed.data.fields import type_name
from heed.data.records import Message, RawRow, Record, Rejected
from heed.data.rows import bad_rows_message, ignored, left_out, notes
from heed.data.sources import Source, pieces, raw_rows
from heed.errors import UserError
from heed.files import run_folder
from heed.files.hashes import json_sha256
from heed.runs.finished import from_here, setting
from heed.saying import count

ANSWERS = ("chosen", "rejected")
READ = ("prompt", *ANSWERS, "system", "row_id", "models", "votes")
UNREAD = ("tool_calls", "reasoning_content")
SAME = "chosen and rejected are the same"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One checked pair."""

    place: str
    """Where a person finds it, as `Record.place`."""
    prompt: tuple[Message, ...]
    """Turns that an answer of the assistant may follow."""
    chosen: str
    rejected: str
    row_id: int | str | None = None
    """The row of the run that was voted on; None for a question that was typed, or a file of others."""
    voters: tuple[str, ...] = ()
    """Who preferred the chosen one, as votes name them."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """A whole source of pairs, checked."""

    pairs: list[Pair]
    rejected: list[Rejected]
    files: dict[str, str]
    """What they were read from, as `Reading.files`."""
    ignored_fields: list[str]

    @property
    def records(self) -> list[Record]:
        """The questions with the answers that were chosen, as rows of instructions would have them."""
        return [
            Record(
                row_id=number,
                place=pair.place,
                messages=(*pair.prompt, Message(role="assistant", content=pair.chosen)),
            )
            for number, pair in enumerate(self.pairs)
        ]

    @property
    def notes(self) -> list[str]:
        return [*left_out(self.rejected), *notes((), self.ignored_fields)]

    @property
    def sha256(self) -> str:
        """One hash over all pairs in order."""
        return json_sha256([[list(pair.prompt), pair.chosen, pair.rejected] for pair in self.pairs])


def read_pairs(source: Source) -> Pairs:
    """Raises UserError for bad pairs, each with its place and the reason, unless `source` drops them."""
    if unknown := next((ours for ours in source.columns if ours not in READ), None):
        raise UserError(f"columns: {unknown!r} is not a field of a pair; map {', '.join(READ)} to your columns")
    files: dict[str, str] = {}
    found = list(raw_rows(pieces(source), files))
    checked = list(check_pairs(found, source.columns))
    good = [each for each in checked if isinstance(each, Pair)]
    bad = [each for each in checked if isinstance(each, Rejected)]
    if bad and (source.on_bad_row == "stop" or not good):
        raise UserError(bad_rows_message(bad, str(source.data), good=len(good)))
    known = {source.columns.get(ours, ours) for ours in READ}
    unused = Counter((name, "row") for row in found if isinstance(row.value, dict) for name in row.value.keys() - known)
    return Pairs(pairs=good, rejected=bad, files=files, ignored_fields=ignored(unused))


def pairs_of(run: Path) -> Pairs:
    """What a run has learned from, read again. Raises UserError where the file is another one now."""
    data, columns, on_bad_row = (setting(run, name) for name in ("pairs", "columns", "on_bad_row"))
    found = read_pairs(Source(data=from_here(run, data), columns=columns, on_bad_row=on_bad_row))
    if found.sha256 != run_folder.read_json(run / run_folder.RUN_FILE)["data"]["rows_sha256"]:
        raise UserError(f"pairs: {data} has changed since {run} was trained, so what a step learned is not known")
    return found


def check_pairs(rows: Iterable[RawRow], columns: Mapping[str, str]) -> Iterator[Pair | Rejected]:
    """Each row as a pair, or rejected. `columns` maps our field names to the source's own."""
    for number, row in enumerate(rows):
        pair = row.problem or read_pair(row.place, row.value, columns)
        if isinstance(pair, str):
            yield Rejected(row_id=number, place=row.place, reasons=[pair], value=row.value)
        else:
            yield pair


def read_pair(place: str, row: Any, columns: Mapping[str, str]) -> Pair | str:
    """A row as a pair; or what is wrong with it."""
    if not isinstance(row, dict):
        return f"expected an object with fields, got {type_name(row)}"
    names = {ours: columns.get(ours, ours) for ours in READ}
    values = taken_apart({ours: row[theirs] for ours, theirs in names.items() if theirs in row})
    if missing := next((ours for ours in ("prompt", *ANSWERS) if ours not in values), None):
        has = f"missing (the row has {', '.join(map(repr, row)) or 'no fields'})"
        return f"field {names[missing]!r}: {has}; columns: {{{missing}: THEIRS}} names another"
    prompt, problem = read_prompt(values)
    if problem:
        return f"field {names['prompt']!r}{problem}"
    texts = []
    for ours in ANSWERS:
        text, problem = read_answer(values[ours], prompt)
        if problem:
            return f"field {names[ours]!r}{problem}"
        texts.append(text)
    if texts[0].strip() == texts[1].strip():
        return SAME
    votes, row_id = values.get("votes"), values.get("row_id")
    return Pair(
        place=place,
        prompt=tuple(prompt),
        chosen=texts[0],
        rejected=texts[1],
        row_id=row_id if isinstance(row_id, int | str) else None,
        voters=tuple(voters(votes)) if isinstance(votes, list) else (),
    )


def voters(votes: Sequence[Any]) -> Iterator[str]:
    for vote in votes:
        if isinstance(vote, dict) and isinstance(vote.get("voter"), str):
            yield vote["voter"]


def taken_apart(values: dict[str, Any]) -> dict[str, Any]:
    """The turns that both answers begin with as the prompt, where it has none or says the same."""
    conversations = [values.get(ours, ()) for ours in ANSWERS]
    if not all(turns.are_turns(each) and len(each) > 1 for each in conversations):
        return values
    before, other = (each[:-1] for each in conversations)
    if before != other or values.get("prompt") not in (None, before, turns.in_our_words(before[-1])["content"]):
        return values
    return values | {"prompt": before} | {ours: values[ours][-1:] for ours in ANSWERS}


def read_prompt(values: Mapping[str, Any]) -> tuple[list[Message], str | None]:
    """The turns before the answers, and what is wrong with them."""
    prompt, system, messages = values["prompt"], values.get("system"), list[Message]()
    if prompt in (None, "", []):
        return messages, ": there is no prompt"
    asked = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    first = [{"role": "system", "content": system}] if system else []
    if problem := turns.read_turns([*first, *asked], messages):
        return messages, f", {problem}"
    if "assistant" not in turns.expected_roles(messages):
        return messages, f": the last turn is the {messages[-1]['role']}'s; it must be one that is answered"
    return messages, None


def read_answer(answer: Any, prompt: Sequence[Message]) -> tuple[str, str | None]:
    """The text of an answer to `prompt`, and what is wrong with it."""
    said = answer if isinstance(answer, list) else [{"role": "assistant", "content": answer}]
    if len(said) != 1:
        return "", f": {count(len(said), 'turn')}, expected one; what is before both answers belongs into prompt"
    messages = list(prompt)
    if problem := turns.read_turns(said, messages):
        return "", f", {problem}"
    if unread := next((name for name in UNREAD if name in messages[-1]), None):
        return "", f": {unread!r} cannot be compared; leave it out, or write it into content"
    return messages[-1]["content"], None
