"""Where rows come from: a file, a folder, a URL or a Hub id. Values are never guessed, and bad rows never vanish."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from heed.data.kept import keep_rows, kept_file, kept_rows
from heed.data.pieces import Piece, hub_pieces, is_on_hub, local_pieces
from heed.data.records import RawRow, Record
from heed.data.rows import Refusal, Rows, RowStream, check_rows, stream_rows
from heed.data.splits import SPLITS
from heed.errors import UserError

# What follows the name of its file in a row's place, URL or Hub set.
IN_SOURCE = re.compile(r"(?::\d+(?: \(row \d+\))?|, (?:[\w.-]+ )?row \d+)$")
# Of a validation set; "cut" would make eval_cut_rows of its rows.
SET_NAME = re.compile(r"[\w-]+(?<!cut)")
Data = str | Mapping[str, str | Mapping[str, str]]
"""A path, a URL, a Hub id, or one of these for each split; for validation also several with names."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What to read."""

    data: Data
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
    found = list(pieces(source))
    files = {name: sha256 for piece in found for name, sha256 in piece.hashes().items()}
    kept = kept_file(source, files) if source.on_bad_row == "stop" else None
    rows = kept_rows(kept) if kept is not None else None
    if rows is None:
        rows = check_rows(
            raw_rows(found),
            source=", ".join(locations(source.data)),
            columns=source.columns,
            on_bad_row=source.on_bad_row,
            refusal=where_dropped(source, refusal),
        )
        if kept is not None:
            keep_rows(kept, rows)
    return Reading(rows=replace(rows, understood=[*understood(found), *rows.understood]), files=files)


def where_dropped(source: Source, refusal: Refusal | None) -> Refusal | None:
    """A run that stops at bad rows stops at these too, when they are tokenized."""
    return refusal if source.on_bad_row == "drop" else None


def stream(source: Source, refusal: Refusal | None = None) -> RowStream:
    """The same rows one by one, including bad ones, for sources that do not fit into memory.

    (A compressed Parquet file must fit nevertheless.)
    """
    found = list(pieces(source))
    rows = stream_rows(raw_rows(found), source.columns, where_dropped(source, refusal))
    return replace(rows, shape=replace(rows.shape, understood=(*understood(found), *rows.shape.understood)))


def raw_rows(found: Iterable[Piece], files: dict[str, str] | None = None) -> Iterator[RawRow]:
    """The rows of each piece; `files`, where it is given, gets the piece's hashes first."""
    for piece in found:
        if files is not None:
            files |= piece.hashes()
        empty = True
        for row in piece.rows():
            empty = False
            yield row if piece.split is None else replace(row, source_split=piece.split)
        if empty:
            raise UserError(f"{piece.name}: the file has no rows")


def pieces(source: Source) -> Iterator[Piece]:
    for split, location in parts(source):
        is_local = not is_on_hub(location)
        found = (
            local_pieces(location, source.data_config)
            if is_local
            else hub_pieces(location, source.data_config, source.data_revision)
        )
        named = sorted({str(piece.split) for piece in found})
        if split is not None and len(named) > 1:
            raise UserError(
                f"data: {split}: {location} has several splits ({', '.join(named)}); "
                + ("name a file or folder of it, or " if is_local else "")
                + f"give data: {location} for all of them"
            )
        # A split named in our config wins over the one the source puts the row in.
        yield from (piece if split is None else replace(piece, split=split) for piece in found)


def understood(found: Iterable[Piece]) -> list[str]:
    """How the files are read, where a person may not expect it."""
    said = [piece.understood() for piece in found]
    return [
        how if number == len(said) else f"{how} (in {number:,} of {len(said):,} files)"
        for how, number in Counter(filter(None, said)).items()
    ]


def parts(source: Source) -> list[tuple[str | None, str]]:
    if isinstance(source.data, str):
        return [(None, source.data)]
    unknown = [name for name in source.data if name not in SPLITS]
    if unknown:
        raise UserError(f"data: {unknown[0]!r} is not a split; use {', '.join(SPLITS)}")
    several = [name for name, given in source.data.items() if name != "validation" and not isinstance(given, str)]
    if several:
        raise UserError(
            f"data: {several[0]}: only validation may be several sets with names; put the files of {several[0]} into "
            "one folder and name that"
        )
    return [(split, location) for split, given in source.data.items() for location in locations(given)]


def locations(data: Data) -> list[str]:
    """Every file, folder, URL and Hub id that `data` names."""
    return [data] if isinstance(data, str) else [each for given in data.values() for each in locations(given)]


def validation_sets(source: Source, validation: Sequence[Record]) -> dict[str, list[int]]:
    """The row ids of each validation set that has a name, in the order of the config; empty where none has one.

    Raises UserError for names that a log cannot have, and for sets that share a file or have no row.
    """
    given = "" if isinstance(source.data, str) else source.data.get("validation", "")
    if isinstance(given, str):
        return {}
    set_of: dict[str, str] = {}
    for name, location in given.items():
        if not SET_NAME.fullmatch(name):
            raise UserError(f"data: validation: {name!r} is no name for a set; use letters, digits, - and _, as near")
        for file in source_names(replace(source, data=location)):
            if file in set_of:
                raise UserError(f"data: validation: {file} is in {set_of[file]} and in {name}; leave it in one")
            set_of[file] = name
    sets: dict[str, list[int]] = {name: [] for name in given}
    for record in validation:
        if (file := source_name(record.place)) not in set_of:
            raise UserError(f"data: validation: {file} is in none of {', '.join(given)}; is it where it was?")
        sets[set_of[file]].append(record.row_id)
    for name, rows in sets.items():
        if not rows:
            raise UserError(f"data: validation: {name} ({given[name]}) has no row; leave it out")
    return sets


def source_names(source: Source) -> list[str]:
    """What the places of rows begin with: files, URLs, a Hub id. No row is read, and the Hub is not asked."""
    names: list[str] = []
    for _, location in parts(source):
        is_here = Path(location).expanduser().exists()
        names += [piece.name for piece in local_pieces(location, source.data_config)] if is_here else [location]
    return names


def source_name(place: str) -> str:
    """The file, URL or Hub id that a row is in."""
    return IN_SOURCE.sub("", place)


def file_hashes(source: Source) -> dict[str, str]:
    """What `Reading.files` will contain, without reading a row."""
    hashes: dict[str, str] = {}
    for piece in pieces(source):
        hashes |= piece.hashes()
    return hashes


def named_splits(source: Source) -> set[str]:
    """The splits that the source names, without reading a row."""
    return {piece.split for piece in pieces(source) if piece.split is not None}
