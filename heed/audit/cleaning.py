"""Rows put right as far as that needs no judgement: repeated and useless ones left out, each with its reasons."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from heed.audit.scan import Scan
from heed.data.records import Record, Rejected, learned_turns, said
from heed.data.rows import RowStream
from heed.data.shapes import TURNS
from heed.data.splits import SPLITS, UNUSED
from heed.errors import UserError
from heed.files import run_folder
from heed.files.run_folder import whole_file
from heed.files.whole_folder import whole_folder
from heed.prompts.template import Prompt

# Flags that leave a row out. An overlap of splits leaves out the training row, so that the held-out one stays clean.
LEFT_OUT = ("no_target", "eos_not_learned", "too_long", "double_bos", "duplicate", "near_duplicate")
LEFT_OUT_OF_TRAINING = ("split_overlap", "near_split_overlap", "contaminated")
LISTED = "listed in leave_out"
NOTHING: Mapping[int, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """How many rows went where."""

    kept: int
    left_out: int
    rejected_file: Path


def read_list(path: Path) -> dict[int, str]:
    """Row id -> place, of the rows that somebody wants left out. Raises UserError for a line that names no row."""
    listed = {}
    for number, line in enumerate(run_folder.read_lines(path), 1):
        if not isinstance(line.get("row_id"), int) or not isinstance(line.get("place"), str):
            raise UserError(f"leave_out: {path}:{number}: no row_id and place, as inspect_data.py --map writes them")
        listed[line["row_id"]] = line["place"]
    return listed


def judged(
    rows: Iterable[Record | Rejected], scan: Scan, listed: Mapping[int, str]
) -> Iterator[tuple[Record | Rejected, int, list[str]]]:
    """Every row, the number of its split, and the reasons to leave it out, if there are any.

    `rows` are those of the scan, from the start; `listed` are to be left out. Raises UserError where a listed row is
    another one in these rows.
    """
    position = 0
    for row in rows:
        if isinstance(row, Rejected):
            yield row, UNUSED, row.reasons
            continue
        flags, split = scan.flags(position), int(scan.rows["split"][position])
        names = LEFT_OUT + (LEFT_OUT_OF_TRAINING if split == SPLITS.index("train") else ())
        like = int(scan.rows["like"][position])
        found = [name for name in names if name in flags]
        if (place := listed.get(row.row_id)) is not None:
            if place != row.place:
                raise UserError(f"leave_out: row {row.row_id} is {place} in the list, and {row.place} here: other data")
            found.append(LISTED)
        yield row, split, [f"{name} of {scan.place(like)}" if "duplicate" in name else name for name in found]
        position += 1


def is_folder(export: Path) -> bool:
    """Whether cleaned rows go into a folder with a file for each split, rather than into one file."""
    return not export.suffix


def export_rows(path: Path, stream: RowStream, scan: Scan, listed: Mapping[int, str] = NOTHING) -> Cleaned:
    """Write the cleaned rows as JSONL, and those left out with their reasons as `PATH.rejected.jsonl`.

    In a folder every row stays in its split; the rows of one file are split again when it is read.
    Raises UserError when no row is left.
    """
    rejected_file = path.with_name(path.name + ".rejected.jsonl")
    in_splits = is_folder(path)
    kept = left_out = 0
    with whole_folder(path, key="export") if in_splits else nullcontext(path) as place:
        with ExitStack() as opened:
            bad = opened.enter_context(whole_file(rejected_file))

            @cache  # a file is made for its first row, since one without a row could not be read
            def good(name: str | None) -> TextIO:
                return opened.enter_context(whole_file(place / f"{name}.jsonl" if name is not None else place))

            for row, split, reasons in judged(stream.rows, scan, listed):
                if in_splits and split == UNUSED and not reasons:
                    reasons = ["in a split that is not used"]
                if isinstance(row, Record) and not reasons:
                    kept += 1
                    good(SPLITS[split] if in_splits else None).write(as_line(plain_row(row, stream.shape.row_format)))
                else:
                    left_out += 1
                    value = plain_row(row, stream.shape.row_format) if isinstance(row, Record) else row.value
                    bad.write(as_line({"row_id": row.row_id, "place": row.place, "reasons": reasons, "value": value}))
        if not kept:
            raise UserError(f"export: no row is left; {rejected_file} says why")
    return Cleaned(kept=kept, left_out=left_out, rejected_file=rejected_file)


def export_pairs(
    path: Path,
    rows: Iterable[Record | Rejected],
    scan: Scan,
    prompt: Prompt,
    policy: Any,
    listed: Mapping[int, str] = NOTHING,
) -> int:
    """Write what a model is asked and what it is to answer, as {"input": prompt, "output": answer}; returns how many.

    The same rows as `export_rows` keeps; a conversation gives a pair for each answer that is learned.
    """
    count = 0
    with whole_file(path) as file:
        for row, _, reasons in judged(rows, scan, listed):
            if not isinstance(row, Record) or reasons:
                continue
            turns = learned_turns(row.messages)
            for turn in turns if policy.loss_on == "response" else turns[-1:]:
                asked = prompt.render(row.messages[:turn], generation_prompt=True)
                file.write(as_line({"input": asked, "output": said(row.messages[turn])}))
                count += 1
    return count


def plain_row(record: Record, row_format: str) -> dict[str, Any]:
    """Alpaca's fields, or `messages` where the source has turns: the rows of a file are of one format."""
    if row_format in ("messages", TURNS):
        return {"messages": list(record.messages)}
    before = {"system": record.system, "history": record.history}
    return {"instruction": record.instruction, "input": record.input, "output": record.output} | {
        name: value for name, value in before.items() if value
    }


def as_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str) + "\n"
