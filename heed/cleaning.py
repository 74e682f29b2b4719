"""Rows put right as far as that needs no judgement: repeated and useless ones left out, each with its reasons."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heed.encoding import encode_turns
from heed.prompts import Prompt
from heed.records import Record, Rejected
from heed.scan import Scan

# Flags that leave a row out. An overlap of splits leaves out the training row, so that the held-out one stays clean.
LEFT_OUT = ("no_target", "eos_not_learned", "too_long", "double_bos", "duplicate", "near_duplicate")
LEFT_OUT_OF_TRAINING = ("split_overlap", "near_split_overlap", "contaminated")


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """How many rows went where."""

    kept: int
    left_out: int
    rejected_file: Path


def judged(rows: Iterable[Record | Rejected], scan: Scan) -> Iterator[tuple[Record | Rejected, list[str]]]:
    """Every row with the reasons to leave it out, if there are any. `rows` are those of the scan, from the start."""
    position = 0
    for row in rows:
        if isinstance(row, Rejected):
            yield row, row.reasons
            continue
        flags = scan.flags(position)
        names = LEFT_OUT + (LEFT_OUT_OF_TRAINING if scan.rows["split"][position] == 0 else ())
        like = int(scan.rows["like"][position])
        yield row, [f"{name} of {scan.place(like)}" if "duplicate" in name else name for name in names if name in flags]
        position += 1


def export_rows(path: Path, rows: Iterable[Record | Rejected], scan: Scan) -> Cleaned:
    """Write the cleaned rows as JSONL, and those left out with their reasons as `FILE.rejected.jsonl`."""
    rejected_file = path.with_name(path.name + ".rejected.jsonl")
    kept = left_out = 0
    with path.open("w", encoding="utf-8") as good, rejected_file.open("w", encoding="utf-8") as bad:
        for row, reasons in judged(rows, scan):
            if isinstance(row, Record) and not reasons:
                kept += 1
                good.write(as_line(plain_row(row)))
            else:
                left_out += 1
                value = plain_row(row) if isinstance(row, Record) else row.value
                bad.write(as_line({"row_id": row.row_id, "place": row.place, "reasons": reasons, "value": value}))
    return Cleaned(kept=kept, left_out=left_out, rejected_file=rejected_file)


def export_pairs(path: Path, rows: Iterable[Record | Rejected], scan: Scan, prompt: Prompt, policy: Any) -> int:
    """Write what a model is asked and what it is to answer, as {"input": prompt, "output": answer}; returns how many.

    The same rows as `export_rows` keeps; a conversation gives a pair for each answer that is learned.
    """
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row, reasons in judged(rows, scan):
            if not isinstance(row, Record) or reasons:
                continue
            for turn, _ in encode_turns(row.messages, prompt, policy.loss_on, row.place):
                asked = prompt.render(row.messages[:turn], generation_prompt=True)
                file.write(as_line({"input": asked, "output": row.messages[turn]["content"]}))
                count += 1
    return count


def plain_row(record: Record) -> dict[str, Any]:
    """Alpaca's fields where they say all of it, else `messages`."""
    if len(record.messages) == 2:
        return {"instruction": record.instruction, "input": record.input, "output": record.output}
    return {"messages": list(record.messages)}


def as_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str) + "\n"
