"""Where rows come from: a file, a folder, a URL or a Hub id. Values are never guessed, bad rows never vanish."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from heed.data.formats import FORMATS, format_of, read_csv, read_json, read_jsonl, read_parquet
from heed.data.records import RawRow
from heed.data.rows import Refusal, Rows, RowStream, check_rows, stream_rows
from heed.data.splits import SPLITS, split_of
from heed.errors import UserError
from heed.files.hashes import file_sha256

HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
# What follows the name of its file in a row's place, URL or Hub set.
IN_SOURCE = re.compile(r"(?::\d+(?: \(row \d+\))?|, (?:[\w.-]+ )?row \d+)$")


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


def read(source: Source, refusal: Refusal | None = None) -> Reading:
    """Read and check every row of `source`; those that `refusal` gives a reason for are bad where bad ones are dropped.

    Raises UserError with file, line, field and reason for whatever cannot be read or is not a row.
    """
    files: dict[str, str] = {}
    name = source.data if isinstance(source.data, str) else ", ".join(source.data.values())
    rows = check_rows(
        raw_rows(source, files),
        source=name,
        columns=source.columns,
        on_bad_row=source.on_bad_row,
        refusal=where_dropped(source, refusal),
    )
    return Reading(rows=rows, files=files)


def where_dropped(source: Source, refusal: Refusal | None) -> Refusal | None:
    """A run that stops at bad rows stops at these too, when they are tokenized."""
    return refusal if source.on_bad_row == "drop" else None


def stream(source: Source, refusal: Refusal | None = None) -> RowStream:
    """The same rows one by one, bad ones among them, for sources that memory does not hold.

    (A compressed Parquet file is held nevertheless.)
    """
    return stream_rows(raw_rows(source, {}), source.columns, where_dropped(source, refusal))


def raw_rows(source: Source, files: dict[str, str]) -> Iterator[RawRow]:
    for split, location in parts(source):
        for row in read_location(location, source, files):
            # A split named in our config wins over the one the source puts the row in.
            yield row if split in (None, row.source_split) else replace(row, source_split=split)


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
    """Every data file of a folder, by name.

    Raises UserError when only some of the names say which split their rows belong to.
    """
    paths = folder_files(folder)
    silent = next((path for path in paths if split_of(path.name) is None), None)
    speaking = next((path for path in paths if split_of(path.name) is not None), None)
    if silent is not None and speaking is not None:
        raise UserError(
            f"data: {folder} holds {speaking.name}, which names a split, and {silent.name}, which names none; say "
            "which file is for what, as data: {train: FILE, test: FILE}"
        )
    for path in paths:
        yield from read_file(path, name=str(path), files=files)


def folder_files(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if path.is_file() and format_of(path.name))
    if not paths:
        raise UserError(f"data: {folder} holds no {', '.join(FORMATS)} file (also .gz or .zst)")
    return paths


def read_hub(repo_id: str, source: Source, files: dict[str, str]) -> Iterator[RawRow]:
    """All splits of a Hub data set, each row knowing its split."""
    from datasets import disable_progress_bars, get_dataset_split_names, load_dataset
    from datasets.exceptions import DatasetNotFoundError

    disable_progress_bars()  # not those of downloads
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


def read_file(path: Path, *, name: str, files: dict[str, str]) -> Iterator[RawRow]:
    """The rows of one file; `name` is what messages call it, its ending says how to read it, and it may say a split."""
    plain_name = name.split("?", 1)[0]
    suffix, split = format_of(plain_name), split_of(Path(plain_name).name)
    if not suffix:
        raise UserError(f"{name}: unknown kind of file; Heed reads {', '.join(FORMATS)}, also .gz and .zst")
    files[name] = file_sha256(path)
    readers: dict[str, Callable[[Path, str], Iterator[RawRow]]] = {
        ".json": read_json,
        ".jsonl": read_jsonl,
        ".ndjson": read_jsonl,
        ".csv": read_csv,
        ".tsv": read_csv,
        ".parquet": read_parquet,
    }
    empty = True
    for row in readers[suffix](path, name):
        empty = False
        yield row if split is None else replace(row, source_split=split)
    if empty:
        raise UserError(f"{name}: the file holds no row")
