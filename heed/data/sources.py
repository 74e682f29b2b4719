"""Where rows come from: a file, a folder, a URL or a Hub id. Values are never guessed, bad rows never vanish."""

import csv
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn, cast

from heed.data.records import RawRow, Rows, RowStream, check_rows, stream_rows
from heed.data.splits import SPLITS
from heed.errors import UserError

FORMATS = (".json", ".jsonl", ".ndjson", ".csv", ".parquet")
COMPRESSIONS = (".gz", ".zst")
HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
# What stands in a row's place behind the name of its file, URL or Hub set.
IN_SOURCE = re.compile(r"(?::\d+(?: \(row \d+\))?|, (?:[\w.-]+ )?row \d+)$")
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
DAMAGED = (EOFError, OSError, zlib.error)  # what reading a compressed file raises


@dataclass(frozen=True, kw_only=True)
class Source:
    """What to read. `data` is a path, a URL, a Hub id, or one of these for each split."""

    data: str | Mapping[str, str]
    columns: Mapping[str, str] = field(default_factory=dict)
    on_bad_row: Literal["stop", "drop"] = "stop"
    data_config: str | None = None
    """The named configuration of a Hub data set that has several."""
    data_revision: str | None = None
    """Branch, tag or commit of a Hub data set."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The checked rows and what they were read from: file name -> SHA-256 of its bytes, or the Hub's fingerprint."""

    rows: Rows
    files: dict[str, str]
    prepared: str = ""
    """Of a prepared set, whose training rows are not among `rows`: what `rows_sha256` is in its prepared.json."""

    @property
    def sha256(self) -> str:
        """One hash over all conversations in order."""
        return self.prepared or self.rows.sha256


def read(source: Source) -> Reading:
    """Read and check every row of `source`.

    Raises UserError with file, line, field and reason for whatever cannot be read or is not a row.
    """
    files: dict[str, str] = {}
    name = source.data if isinstance(source.data, str) else ", ".join(source.data.values())
    rows = check_rows(raw_rows(source, files), source=name, columns=source.columns, on_bad_row=source.on_bad_row)
    return Reading(rows=rows, files=files)


def stream(source: Source) -> RowStream:
    """The same rows one by one, bad ones among them, for sources that memory does not hold.

    (A .json array is held as text nevertheless, and so is a compressed Parquet file.)
    """
    return stream_rows(raw_rows(source, {}), source.columns)


def raw_rows(source: Source, files: dict[str, str]) -> Iterator[RawRow]:
    for split, location in parts(source):
        for row in read_location(location, source, files):
            # A split named in our config wins over the one the source puts the row in.
            yield row if split is None else replace(row, source_split=split)


def parts(source: Source) -> list[tuple[str | None, str]]:
    if isinstance(source.data, str):
        return [(None, source.data)]
    unknown = [name for name in source.data if name not in SPLITS]
    if unknown:
        raise UserError(f"data: {unknown[0]!r} is not a split; use {', '.join(SPLITS)}")
    return list(source.data.items())


def source_names(source: Source) -> list[str]:
    """What the places of rows will begin with: files, URLs, a Hub id. No row is read."""
    names: list[str] = []
    for _, location in parts(source):
        path = Path(location).expanduser()
        names += map(str, folder_files(path)) if path.is_dir() else [location]
    return names


def source_name(place: str) -> str:
    """The file, URL or Hub id that a row stands in."""
    return IN_SOURCE.sub("", place)


def file_hashes(source: Source) -> dict[str, str]:
    """What `Reading.files` will hold, without reading a row."""
    hashes: dict[str, str] = {}
    for _, location in parts(source):
        path = Path(location).expanduser()
        if location.startswith(("http://", "https://")):
            hashes[location] = file_sha256(download(location))
        elif path.is_dir():
            hashes |= {str(each): file_sha256(each) for each in folder_files(path)}
        elif path.is_file():
            hashes[location] = file_sha256(path)
        else:
            for _ in read_location(location, source, hashes):
                pass  # a Hub data set knows its fingerprints once it is loaded; or it is nothing, and says so
    return hashes


def read_location(location: str, source: Source, files: dict[str, str]) -> Iterator[RawRow]:
    path = Path(location).expanduser()
    if location.startswith(("http://", "https://")):
        yield from read_file(download(location), name=location, files=files)
    elif path.is_dir():
        yield from read_folder(path, files)
    elif path.is_file():
        yield from read_file(path, name=str(location), files=files)
    elif HUB_ID.fullmatch(location) and not format_of(location):
        yield from read_hub(location, source, files)
    else:
        raise UserError(f"data: {location!r} is not a file, a folder, a URL, or a Hub id such as tatsu-lab/alpaca")


def download(url: str) -> Path:
    """Fetch a URL into the datasets cache. The name of the file decides its format, as it does on disk."""
    from datasets import DownloadManager

    try:
        return Path(DownloadManager().download(url))
    except (OSError, ValueError) as error:  # every client in there raises one of these
        raise UserError(f"data: {url} could not be downloaded ({type(error).__name__}: {error})") from error


def read_folder(folder: Path, files: dict[str, str]) -> Iterator[RawRow]:
    """Every data file of a folder, by name. Files called train.*, test.* and validation.* are those splits."""
    for path in folder_files(folder):
        stem = path.name.split(".", 1)[0]
        for row in read_file(path, name=str(path), files=files):
            yield replace(row, source_split=stem) if stem in SPLITS else row


def folder_files(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if path.is_file() and format_of(path.name))
    if not paths:
        raise UserError(f"data: {folder} holds no {', '.join(FORMATS)} file (also .gz or .zst)")
    return paths


def read_hub(repo_id: str, source: Source, files: dict[str, str]) -> Iterator[RawRow]:
    """All splits of a Hub data set, each row knowing its split."""
    from datasets import get_dataset_split_names, load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        names = get_dataset_split_names(repo_id, source.data_config, revision=source.data_revision)
        splits = load_dataset(repo_id, source.data_config, revision=source.data_revision)
    except DatasetNotFoundError as error:
        raise UserError(
            f"data: {repo_id!r} is not a file here and not a data set on the Hub that you can see "
            f"(misspelt? private: `hf auth login`?): {error}"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"data: {repo_id!r} could not be loaded from the Hub ({error})") from error
    for split in names:
        files[f"{repo_id}:{split}"] = splits[split]._fingerprint
        for number, value in enumerate(splits[split], start=1):
            yield RawRow(place=f"{repo_id}, {split} row {number}", value=value, source_split=split)


def format_of(name: str) -> str:
    """`.jsonl` for `rows.jsonl.gz`; empty when the name says nothing we read."""
    name = name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return next((suffix for suffix in FORMATS if name.endswith(suffix)), "")


def read_file(path: Path, *, name: str, files: dict[str, str]) -> Iterator[RawRow]:
    """The rows of one file; `name` is what messages call it, and its ending says how to read it."""
    suffix = format_of(name.split("?", 1)[0])
    if not suffix:
        raise UserError(f"{name}: unknown kind of file; Heed reads {', '.join(FORMATS)}, also .gz and .zst")
    files[name] = file_sha256(path)
    readers: dict[str, Callable[[Path, str], Iterator[RawRow]]] = {
        ".json": read_json,
        ".jsonl": read_jsonl,
        ".ndjson": read_jsonl,
        ".csv": read_csv,
        ".parquet": read_parquet,
    }
    empty = True
    for row in readers[suffix](path, name):
        empty = False
        yield row
    if empty:
        raise UserError(f"{name}: the file holds no row")


def file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


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
