"""Rows as files hold them: JSON, JSONL, CSV and Parquet, plain or compressed, every complaint with its line."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from heed.data.records import RawRow
from heed.errors import UserError

FORMATS = (".json", ".jsonl", ".ndjson", ".csv", ".parquet")


COMPRESSIONS = (".gz", ".zst")


GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


DAMAGED = (EOFError, OSError, zlib.error)  # what reading a compressed file raises


def format_of(name: str) -> str:
    """`.jsonl` for `rows.jsonl.gz`; empty when the name says nothing we read."""
    name = name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return next((suffix for suffix in FORMATS if name.endswith(suffix)), "")


def open_bytes(path: Path) -> BinaryIO:
    """A file's bytes, decompressed. The first bytes decide, not the name, so a wrong ending does no harm."""
    file = path.open("rb")
    magic = file.read(4)
    file.seek(0)
    if magic[:2] == GZIP_MAGIC:
        return cast(BinaryIO, gzip.open(file))
    if magic == ZSTD_MAGIC:
        import pyarrow

        return cast(BinaryIO, pyarrow.input_stream(file, compression="zstd"))
    return file


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a text file; `text` is None where the bytes are not UTF-8, and `problem` says so."""

    number: int
    text: str | None
    problem: str | None = None


def read_lines(path: Path, name: str) -> Iterator[Line]:
    """Decode a text file line by line, so that a wrong byte is named with its line.

    Lines end at newlines only: other separators that Unicode knows (U+2028) are part of the text.
    """
    try:
        with open_bytes(path) as stream:
            # pyarrow's decompressing stream iterates in blocks, not lines.
            for number, raw in enumerate(split_lines(stream), start=1):
                if number == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    raise UserError(f"{name}: the file is UTF-16; save it as UTF-8")
                data = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
                try:
                    yield Line(number=number, text=data.decode("utf-8"))
                except UnicodeDecodeError as error:
                    byte = data[error.start]
                    problem = f"not UTF-8 (byte {byte:#04x} at column {error.start + 1}); save the file as UTF-8"
                    yield Line(number=number, text=None, problem=problem)
    except DAMAGED as error:
        raise UserError(f"{name}: the compressed file is damaged or cut off ({error})") from error


def split_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines with their newline, from any binary stream that can read(n)."""
    rest = b""
    while block := stream.read(1 << 20):
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json: a key given twice is an error, since one of the two values would vanish."""
    row: dict[str, Any] = {}
    for key, value in pairs:
        if key in row:
            raise ValueError(f"key {key!r} is given twice")
        row[key] = value
    return row


def refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


DECODER = json.JSONDecoder(object_pairs_hook=unique_keys, parse_constant=refuse_constant)


def read_jsonl(path: Path, name: str) -> Iterator[RawRow]:
    """One JSON object a line; blank lines are passed over. A file that is one array is read as such."""
    started = False
    for line in read_lines(path, name):
        place = f"{name}:{line.number}"
        if line.text is None:
            yield RawRow(place=place, value=None, problem=line.problem)
        elif text := line.text.strip():
            if not started and text.startswith("["):
                yield from read_json(path, name)
                return
            started = True
            try:
                yield RawRow(place=place, value=DECODER.decode(text))
            except json.JSONDecodeError as error:
                yield RawRow(place=place, value=text, problem=f"not JSON: {error.msg} (column {error.colno})")
            except (ValueError, RecursionError) as error:
                yield RawRow(place=place, value=text, problem=f"not JSON: {error}")


def read_json(path: Path, name: str) -> Iterator[RawRow]:
    """A JSON array of objects, decoded one at a time so that every row knows the line it starts on."""
    pieces = []
    for line in read_lines(path, name):
        if line.text is None:
            raise UserError(f"{name}:{line.number}: {line.problem}")
        pieces.append(line.text)
    text = "".join(pieces)
    start = len(text) - len(text.lstrip())
    if not text.startswith("[", start):
        refuse_json(text, start, name)
    position, line_number, counted, row = start + 1, 1, 0, 0
    while True:
        position = skip_space(text, position)
        if text.startswith("]", position):
            break
        if row:
            if not text.startswith(",", position):
                raise json_error(text, position, name, "expected ',' or ']' after a row")
            position = skip_space(text, position + 1)
        row += 1
        line_number += text.count("\n", counted, position)
        counted = position
        try:
            value, position = DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise json_error(text, error.pos, name, error.msg) from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{name}:{line_number}: not JSON: {error}") from error
        yield RawRow(place=f"{name}:{line_number} (row {row})", value=value)
    end = skip_space(text, position + 1)
    if end != len(text):
        raise json_error(text, end, name, "text after the closing ']'")


def skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def json_error(text: str, position: int, name: str, message: str) -> UserError:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return UserError(f"{name}:{line}: not JSON: {message} (column {column})")


def refuse_json(text: str, start: int, name: str) -> NoReturn:
    """Say what a .json file is, when it is not an array of rows."""
    if start == len(text):
        raise UserError(f"{name}: the file holds no row")
    try:
        value = DECODER.decode(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            raise UserError(f"{name}: several JSON values, one a line; name the file .jsonl") from error
        raise json_error(text, error.pos, name, error.msg) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: not JSON: {error}") from error
    has = f" with the keys {', '.join(map(repr, list(value)[:5]))}" if isinstance(value, dict) else ""
    raise UserError(f"{name}: expected a list of rows, got {type(value).__name__}{has}")


def read_csv(path: Path, name: str) -> Iterator[RawRow]:
    """Comma-separated values with a header. Every cell is text: "NA" and "1" stay what they are."""
    undecodable: list[str] = []  # of the row that is being read: lines are read as it needs them

    def texts() -> Iterator[str]:
        for line in read_lines(path, name):
            if line.problem:
                undecodable.append(line.problem)
            yield line.text or "\n"

    csv.field_size_limit(1 << 30)  # the module's own limit is 131,072 characters a cell
    # strict: a quote in the wrong place is an error, not a guess.
    reader = csv.reader(texts(), strict=True)
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
                header = cells
                refuse_twice(header, f"{place}: the header")
            elif bad:
                yield RawRow(place=place, value=cells, problem=bad[0])
            elif cells and len(cells) != len(header):
                problem = f"{len(cells)} cells, but the header has {len(header)}"
                yield RawRow(place=place, value=cells, problem=problem)
            elif cells:
                yield RawRow(place=place, value=dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise UserError(f"{name}:{reader.line_num}: not CSV: {error}") from error


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
        # Parquet needs to seek, so a compressed file is unpacked in memory.
        file = pyarrow.BufferReader(open_bytes(path).read()) if name.lower().endswith(COMPRESSIONS) else str(path)
        parquet = pyarrow.parquet.ParquetFile(file)
        refuse_twice(parquet.schema_arrow.names, f"{name}: the schema")
        for batch in parquet.iter_batches():
            for value, problem in parquet_values(batch):
                number += 1
                yield RawRow(place=f"{name}, row {number}", value=value, problem=problem)
    except (pyarrow.ArrowInvalid, *DAMAGED) as error:
        after = f" after row {number}" if number else ""
        raise UserError(f"{name}: not a readable Parquet file{after} ({error})") from error


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
