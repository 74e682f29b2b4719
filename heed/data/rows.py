"""The rows of a source, checked where they enter: each is a record, or rejected with its place and its reasons."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Literal

from heed.data.recognition import decide_shape
from heed.data.records import RawRow, Record, Rejected, rows_sha256
from heed.data.shapes import Shape, read_messages, unused_fields
from heed.errors import UserError
from heed.saying import count

MAX_PROBLEMS_SHOWN = 20
REASONS_SHOWN = 5
Refusal = Callable[[Record], str | None]
"""Why a row that is right in itself cannot be used, such as what a template says of its roles."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A whole source, checked."""

    records: list[Record]
    rejected: list[Rejected]
    row_format: str
    understood: Sequence[str] = ()
    ignored_fields: list[str] = field(default_factory=list)

    @cached_property
    def sha256(self) -> str:
        return rows_sha256(self.records)

    @property
    def notes(self) -> list[str]:
        return [*left_out(self.rejected), *notes(self.understood, self.ignored_fields)]


def left_out(rejected: Sequence[Rejected], shown: int = REASONS_SHOWN) -> list[str]:
    """How many rows each reason has cost, the commonest first."""
    alike: dict[str, list[Rejected]] = {}
    for row in rejected:
        alike.setdefault("; ".join(row.reasons), []).append(row)
    bad = [
        f"{count(len(rows), 'bad row')} left out, first {rows[0].place}: {reason}"
        for reason, rows in sorted(alike.items(), key=lambda each: -len(each[1]))
    ]
    more = [f"{count(len(bad) - shown, 'more reason')} in rejected.jsonl"] if bad[shown:] else []
    return [*bad[:shown], *more]


def notes(understood: Sequence[str], ignored_fields: Sequence[str]) -> list[str]:
    """What a person should know about how rows were read, a line for each."""
    read = [f"read {', '.join(understood)}"] if understood else []
    return read + ([f"not used: {', '.join(ignored_fields)}"] if ignored_fields else [])


def check_rows(
    rows: Iterable[RawRow],
    *,
    source: str,
    columns: Mapping[str, str],
    on_bad_row: Literal["stop", "drop"],
    refusal: Refusal | None = None,
) -> Rows:
    """Turn raw rows into records; every bad row is named with its place, its field and the reason.

    `columns` maps our field names to the source's own (`{"instruction": "task"}`). The shape is decided by the
    first row that shows one, and every later row must have it. A row for which `refusal` gives a reason is bad too.

    Raises UserError when a row is bad and `on_bad_row` is "stop", or when no row is left.
    """
    stream = stream_rows(rows, columns, refusal)
    records: list[Record] = []
    rejected: list[Rejected] = []
    for row in stream.rows:
        if isinstance(row, Record):
            records.append(row)
        else:
            rejected.append(row)
    if rejected and (on_bad_row == "stop" or not records):
        raise UserError(bad_rows_message(rejected, source, good=len(records)))
    if not records:
        raise UserError(f"{source}: no usable row")
    return Rows(
        records=records,
        rejected=rejected,
        row_format=stream.shape.row_format,
        understood=stream.shape.understood,
        ignored_fields=ignored(unused(records)),
    )


@dataclass(frozen=True, kw_only=True)
class RowStream:
    """A source being read: its shape is known, its rows are checked as they come."""

    shape: Shape
    rows: Iterator[Record | Rejected]


def stream_rows(rows: Iterable[RawRow], columns: Mapping[str, str], refusal: Refusal | None = None) -> RowStream:
    """Records and rejected rows in the order of the source, without keeping them; see `check_rows`.

    Rows before the first one that shows a shape are kept until it is found.
    Raises UserError when no row shows a shape, or one fits two.
    """
    coming = iter(rows)
    shape, seen = decide_shape(coming, columns)
    return RowStream(
        shape=shape,
        rows=(check_row(row_id, row, shape, refusal) for row_id, row in enumerate(chain(seen, coming))),
    )


def check_row(row_id: int, row: RawRow, shape: Shape, refusal: Refusal | None = None) -> Record | Rejected:
    messages, problems = ((), [row.problem]) if row.problem is not None else read_messages(row.value, shape)
    if not problems:
        record = Record(
            row_id=row_id,
            place=row.place,
            messages=messages,
            source_split=row.source_split,
            unused=unused_fields(row.value, shape),
        )
        reason = refusal(record) if refusal is not None else None
        if reason is None:
            return record
        problems = [reason]
    return Rejected(row_id=row_id, place=row.place, reasons=problems, value=row.value)


def unused(records: Iterable[Record]) -> Counter[tuple[str, str]]:
    return Counter(name for record in records for name in record.unused)


def ignored(unused: Counter[tuple[str, str]]) -> list[str]:
    """The fields that nobody reads, each with how many rows or turns have it."""
    return [f"{name} of {count(number, what)}" for (name, what), number in sorted(unused.items())]


def bad_rows_message(rejected: Sequence[Rejected], source: str, *, good: int) -> str:
    lines = [f"{row.place}: {reason}" for row in rejected for reason in row.reasons]
    more = len(lines) - MAX_PROBLEMS_SHOWN
    shown = lines[:MAX_PROBLEMS_SHOWN] + ([f"... and {more} more"] if more > 0 else [])
    way_out = ", or set on_bad_row: drop to leave them out and list them in rejected.jsonl" if good else ""
    rows = count(len(rejected), "bad row") if good else f"no usable row, {len(rejected)} bad"
    return f"{source}: {rows}\n  " + "\n  ".join(shown) + f"\nFix them{way_out}."
