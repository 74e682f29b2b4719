"""Rows as files have them: JSON, JSONL, CSV and Parquet, plain or compressed, every complaint with its line."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from heed.data.records import RawRow
from heed.data.texts import (
    DAMAGED,
    DECODER,
    LONGEST,
    MB,
    TOO_DEEP,
    TOO_LONG,
    JsonText,
    depth_problem,
    open_bytes,
    open_text,
    read_lines,
)
from heed.errors import UserError
from heed.saying import count

FORMATS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
COMPRESSIONS = (".gz", ".zst")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
UNPACKED = 2000 * MB  # of a compressed Parquet file, which is unpacked in memory


def format_of(name: str) -> str:
    """`.jsonl` for `rows.jsonl.gz`; empty when the name is of no format we read."""
    name = name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return next((suffix for suffix in FORMATS if name.endswith(suffix)), "")


def read_jsonl(path: Path, name: str) -> Iterator[RawRow]:
    """One JSON object per line; blank lines are skipped. A file that is one array is read as such."""
    with open_text(path, name) as stream:
        is_array = stream.peek(1).lstrip().startswith(b"[")
    if is_array:
        yield from read_json(path, name)
        return
    for line in read_lines(path, name):
        place = f"{name}:{line.number}"
        if line.text is None:
            yield RawRow(place=place, value=None, problem=line.problem)
        elif text := line.text.strip():
            try:
                value = DECODER.decode(text)
            except json.JSONDecodeError as error:
                yield RawRow(place=place, value=text, problem=f"not JSON: {error.msg} (column {error.colno})")
            except RecursionError:
                yield RawRow(place=place, value=text, problem=TOO_DEEP)
            except ValueError as error:
                yield RawRow(place=place, value=text, problem=f"not JSON: {error}")
            else:
                yield RawRow(place=place, value=value, problem=depth_problem(value, text))


def read_json(path: Path, name: str) -> Iterator[RawRow]:
    """A JSON array of objects, decoded one at a time so that every row knows the line it starts on."""
    text = JsonText(path, name)
    if text.next_sign() != "[":
        refuse_json(text)
    text.move(text.at + 1)
    row = 0
    while (sign := text.next_sign()) != "]":
        if row:
            if sign != ",":
                raise text.error("expected ',' or ']' after a row", text.at)
            text.move(text.at + 1)
            text.next_sign()
        row += 1
        place = f"{name}:{text.line} (row {row})"
        value, problem = text.value()
        yield RawRow(place=place, value=value, problem=problem)
    text.move(text.at + 1)
    if text.next_sign():
        raise text.error("text after the closing ']'", text.at)


def refuse_json(text: JsonText) -> NoReturn:
    """Say what a .json file is, when it is not an array of rows."""
    if not text.next_sign():
        raise UserError(f"{text.name}: the file has no rows")
    value, _ = text.value()
    if text.next_sign():
        raise UserError(f"{text.name}: several JSON values, one per line; name the file .jsonl")
    has = f" with the keys {', '.join(map(repr, list(value)[:5]))}" if isinstance(value, dict) else ""
    raise UserError(f"{text.name}: expected a list of rows, got {type(value).__name__}{has}")


def separator_of(path: Path, name: str) -> str:
    """A comma, or the semicolon or tab if only that splits the header into columns."""
    header = next((line.text for line in read_lines(path, name) if line.text and line.text.strip()), "")
    found = [separator for separator in SEPARATORS if columns_by(separator, header) > 1]
    return found[0] if len(found) == 1 else ","


def columns_by(separator: str, line: str) -> int:
    try:
        cells = next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error:
        return 0
    return 0 if any('"' in cell for cell in cells) else len(cells)  # a quotation mark in the wrong place


NO_HEADER = ("column 1 (the file has no header)", "column 2")
NO_HEADER_OF_THREE = (NO_HEADER[0], "column 2 of 3", "column 3 of 3")


def read_csv(path: Path, name: str) -> Iterator[RawRow]:
    """Separated values with a header. Every cell is text: "NA" and "1" stay what they are."""
    undecodable: list[str] = []  # of the row being read: lines are read as it needs them

    def texts() -> Iterator[str]:
        for line in read_lines(path, name):
            if line.problem:
                undecodable.append(line.problem)
            yield line.text or "\n"

    csv.field_size_limit(LONGEST)  # the module's own limit is 131,072 characters a cell
    # strict: a quote in the wrong place is an error, not a guess.
    reader = csv.reader(texts(), delimiter=separator_of(path, name), strict=True)
    header: list[str] = []
    last_line = 0
    try:
        for cells in reader:
            first_line, last_line = last_line + 1, reader.line_num
            place = f"{name}:{first_line}"
            bad, undecodable[:] = list(undecodable), []
            if not header and bad:
                raise UserError(f"{place}: the header is {bad[0]}")
            if not header:
                header = names_of(cells, place) if has_no_header(cells) else cells
                refuse_twice(header, f"{place}: the header")
                if header is not cells:
                    yield RawRow(place=place, value=dict(zip(header, cells, strict=True)))
            elif bad:
                yield RawRow(place=place, value=cells, problem=bad[0])
            elif cells and len(cells) != len(header):
                problem = f"{count(len(cells), 'cell')}, but the header has {len(header)}"
                yield RawRow(place=place, value=cells, problem=problem)
            elif cells:
                yield RawRow(place=place, value=dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        problem = f"{TOO_LONG} (is a quotation mark missing?)" if "field limit" in str(error) else f"not CSV: {error}"
        raise UserError(f"{name}:{reader.line_num}: {problem}") from error


def has_no_header(cells: Sequence[str]) -> bool:
    """Whether the first line is a row, with a question and an answer: names are shorter, and end in no full stop."""
    first, *others = (cell.strip() for cell in cells)
    if not others:
        return False
    if first.isdigit():  # a number of the row
        return any(map(is_sentence, others[:-1]))
    answer = others[-1]
    said = len(answer.split()) > 2 or answer.endswith(".") or answer.isdigit()
    return said and not answer.endswith("?") and is_sentence(first)


def is_sentence(cell: str) -> bool:
    return cell.endswith(("?", ".")) and len(cell.split()) > 2


def names_of(cells: Sequence[str], place: str) -> list[str]:
    """Names for columns that have none. Raises UserError where it is not plain what they mean."""
    if len(cells) == 2:
        return list(NO_HEADER)
    question = [is_sentence(cell.strip()) for cell in cells].index(True)
    if len(cells) == 3 and question == 0 and len(cells[1].split()) not in (1, 2):
        return list(NO_HEADER_OF_THREE)
    names = [f"column_{number}" for number in range(1, len(cells) + 1)]
    names[question], names[-1] = "question", "answer"
    raise UserError(
        f"{place}: the file has no header, and what its {len(cells)} columns mean is not plain; put a line of names "
        f"above the rows, as {','.join(names)}"
    )


def refuse_twice(names: Sequence[str], what: str) -> None:
    """One of two columns with the same name would vanish."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{what} names {twice[0]!r} twice")


def read_parquet(path: Path, name: str) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with open_bytes(path, name) as stream:
            # Parquet needs to seek, so a compressed file is unpacked in memory.
            packed = not isinstance(stream, io.BufferedReader)
            file = pyarrow.BufferReader(unpacked(stream, name)) if packed else str(path)
        parquet = pyarrow.parquet.ParquetFile(file)
        refuse_twice(parquet.schema_arrow.names, f"{name}: the schema")
        for batch in parquet.iter_batches():
            for value, problem in parquet_values(batch):
                number += 1
                yield RawRow(place=f"{name}, row {number}", value=value, problem=problem)
    except (pyarrow.ArrowInvalid, *DAMAGED) as error:
        after = f" after row {number}" if number else ""
        raise UserError(f"{name}: not a readable Parquet file{after} ({error})") from error


def unpacked(stream: BinaryIO, name: str) -> bytes:
    data = stream.read(UNPACKED + 1)
    if len(data) > UNPACKED:
        raise UserError(
            f"{name}: unpacks to more than {UNPACKED // MB:,} MB; give it unpacked: Parquet compresses by itself"
        )
    return data


def parquet_values(batch: Any) -> Iterator[tuple[Any, str | None]]:
    """The rows of a RecordBatch, each with what is wrong with it: nobody checks texts when they are written."""
    try:
        yield from ((value, None) for value in batch.to_pylist())
    except UnicodeDecodeError:
        for place in range(batch.num_rows):
            try:
                yield batch.slice(place, 1).to_pylist()[0], None
            except UnicodeDecodeError as error:
                yield None, f"not UTF-8 (byte {error.object[error.start]:#04x} in a text)"
