"""What every row of a source would teach: one pass over the rows, a few numbers kept of each.

Rows come as a stream and are looked at by several processes. What is kept of a row takes about 220 bytes, so a million
rows fit beside the libraries. The result, and the ids that were looked at, are cached under a hash of everything they
depend on; thresholds are not (see `heed.audit.findings`).
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from heed import workers
from heed.audit.likeness import judge_likeness
from heed.audit.looker import Looker, whole_text
from heed.audit.overlap import References, questions
from heed.audit.relations import compare, judge_languages, judge_lengths
from heed.audit.row import BIT, FLAGS, ROW
from heed.data.records import Record, Rejected, normalized
from heed.data.rows import ignored
from heed.data.sources import Source, read
from heed.errors import UserError
from heed.prompts.template import Prompt
from heed.saying import Progress
from heed.tokens.encoding import Policy
from heed.tokens.shards import whole_file

CHUNK = 500  # rows that a process looks at in one go
REJECTED_KEPT = 1000


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A source looked through."""

    rows: np.ndarray
    """One ROW for each usable row, in the order of the source."""
    files: list[str]
    """The first parts of places, by number."""
    rejected: list[dict[str, Any]]
    """The first 1,000 rows that could not be read: place and reasons."""
    rejected_count: int
    examples: int
    against: dict[str, dict[str, Any]]
    """For each evaluation file: sha256, questions, and known: row id there, as text -> position here."""
    likeness: list[str]
    """What can be said of the likeness of held-out and training rows."""
    seconds: float
    ignored_fields: list[str]
    from_cache: bool = False

    def place(self, position: int) -> str:
        """Where a person finds the row."""
        row = self.rows[position]
        counted = f" (row {row['row']})" if row["row"] >= 0 else ""
        return f"{self.files[row['file']]}{row['line']}{counted}"

    def flags(self, position: int) -> tuple[str, ...]:
        return tuple(name for name in FLAGS if self.rows["flags"][position] & BIT[name])

    def other_answer(self, position: int) -> int:
        """The first row that has the same question and another answer; only for rows flagged conflicting_answers."""
        rows = self.rows
        same = rows["question"] == rows["question"][position]
        return int(np.flatnonzero(same & (rows["answer"] != rows["answer"][position]))[0])

    def flagged(self, name: str) -> np.ndarray:
        """Positions of the rows with a flag."""
        return np.flatnonzero(self.rows["flags"] & BIT[name])


RowSource = Callable[[], Iterable[Record | Rejected]]
"""Gives the rows from the beginning; called again when texts are needed once more."""
SplitRule = Callable[[np.ndarray, np.ndarray, list[str | None]], np.ndarray]
"""`splits.split_numbers` with everything but the rows known."""


def read_references(names: Sequence[str]) -> tuple[References, dict[str, dict[str, Any]]]:
    """The questions of evaluation files, and what is known of the files. Raises UserError for what cannot be read."""
    references, facts = {}, {}
    for name in names:
        reading = read(Source(data=name))
        references[name] = questions(reading.rows.records)
        facts[name] = {"sha256": "".join(reading.files.values()), "questions": len(reading.rows.records), "known": {}}
    return references, facts


def scan(
    rows: RowSource,
    prompt: Prompt,
    policy: Policy,
    split_rule: SplitRule,
    *,
    against: Sequence[str] = (),
    num_proc: int | None = None,
    total: int | None = None,
    tokens: Path | None = None,
) -> Scan:
    """Look at every row. `total` is for the progress bar; None when it is not known.

    The examples that were looked at are kept in the file `tokens`, so that nothing is tokenized again to train on them.
    """
    started = time.perf_counter()
    references, evaluations = read_references(against)
    looker = Looker(prompt=prompt, policy=policy, references=references)
    files: dict[str, int] = {}
    sources: dict[str | None, int] = {}
    rejected: list[dict[str, Any]] = []
    unused: Counter[tuple[str, str]] = Counter()
    rejected_count = examples = 0
    pieces: list[np.ndarray] = []
    signatures: list[np.ndarray] = []

    def records() -> Iterator[Record]:
        nonlocal rejected_count
        for row in rows():
            if isinstance(row, Record):
                unused.update(row.unused)
                yield row
                continue
            rejected_count += 1
            if len(rejected) < REJECTED_KEPT:
                rejected.append({"row_id": row.row_id, "place": row.place, "reasons": row.reasons})

    bar = Progress("looking at rows", total)
    held = records()
    given = iter(lambda: list(islice(held, CHUNK)), [])
    count = workers.how_many(total if total is not None else sys.maxsize, num_proc)
    keeping = whole_file(tokens) if tokens is not None else nullcontext()
    with keeping as kept, bar, closing(workers.in_order(looker.look, given, count, task="looks at rows")) as chunks:
        for seen in chunks:
            table = seen.table
            table["file"] = [files.setdefault(name, len(files)) for name in seen.files]
            table["source"] = [sources.setdefault(name, len(sources)) for name in seen.sources]
            for name, known in seen.known.items():
                offset = sum(map(len, pieces))
                for row_id, place in known:
                    evaluations[name]["known"].setdefault(str(row_id), offset + place)
            pieces.append(table)
            signatures.append(seen.signatures)
            examples += seen.tokens.num_rows
            if kept is not None:
                kept.write_table(seen.tokens)
            bar.update(len(table))
    table = np.concatenate([np.empty(0, dtype=ROW), *pieces])
    if not len(table):
        first = [f" ({rejected_count} bad), first {row['place']}: {'; '.join(row['reasons'])}" for row in rejected[:1]]
        raise UserError(f"no usable row{''.join(first)}")
    pieces.clear()
    table["split"] = split_rule(table["point"], table["source"], list(sources))
    compare(table, np.concatenate(signatures), lambda wanted: texts(rows(), wanted))
    likeness = judge_likeness(table, list(files), lambda wanted: texts(rows(), wanted))
    judge_lengths(table)
    judge_languages(table)
    return Scan(
        rows=table,
        files=list(files),
        rejected=rejected,
        rejected_count=rejected_count,
        examples=examples,
        against=evaluations,
        likeness=likeness,
        seconds=time.perf_counter() - started,
        ignored_fields=ignored(unused),
    )


def texts(rows: Iterable[Record | Rejected], wanted: set[int]) -> Iterator[tuple[int, str]]:
    records = (row for row in rows if isinstance(row, Record))
    return ((place, normalized(whole_text(record))) for place, record in enumerate(records) if place in wanted)
