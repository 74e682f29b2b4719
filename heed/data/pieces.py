"""What a source consists of: files, or splits of a saved or a Hub set, each with its split before it is read."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from heed.config.notation import NotYaml, parse
from heed.data.formats import (
    FORMATS,
    SEPARATORS,
    format_of,
    read_csv,
    read_json,
    read_jsonl,
    read_parquet,
    separator_of,
)
from heed.data.records import RawRow
from heed.data.splits import split_named, splits_in
from heed.errors import UserError
from heed.files.hashes import file_sha256
from heed.files.run_folder import RUN_FILE

HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
CARD, CARD_HEAD, LONGEST_CARD = "README.md", re.compile(r"\s*---\n(.*?)\n---", re.DOTALL), 1_000_000
# What save_to_disk leaves in the folder of a DatasetDict, and of a Dataset.
SAVED = (("dataset_dict.json",), ("state.json", "dataset_info.json"))
# JSON that tools put beside the rows.
NOT_ROWS = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json", "config.json")
READERS: dict[str, Callable[[Path, str], Iterator[RawRow]]] = {
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
}


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What is read in one go."""

    name: str
    """What the places of its rows begin with."""
    split: str | None
    """What its name, or its set, says of its split: one of ours if that is plain."""
    rows: Callable[[], Iterator[RawRow]]
    hashes: Callable[[], dict[str, str]]
    """File name -> SHA-256 of its bytes, or the Hub's fingerprint."""
    understood: Callable[[], str | None] = lambda: None
    """How it is read, if that had to be guessed from the file."""


def is_on_hub(location: str) -> bool:
    is_here = Path(location).expanduser().exists()
    return not is_here and HUB_ID.fullmatch(location) is not None and not format_of(location)


def is_url(location: str) -> bool:
    return location.startswith(("http://", "https://"))


def plain_name(name: str) -> str:
    """A file's name, or that of a URL without what asks for it."""
    return urlsplit(name).path if is_url(name) else name


def local_pieces(location: str, config: str | None) -> list[Piece]:
    """Of a file, a folder or a URL; `config` is the one of a folder's card."""
    path = Path(location).expanduser()
    if is_url(location):
        fetched = cache(partial(download, location))
        return [file_piece(location, split_named([Path(plain_name(location)).name]), fetched)]
    if path.is_file():
        [split] = splits_of([path], path.parent)
        return [file_piece(location, split, lambda: path)]
    if not path.is_dir():
        raise UserError(f"data: {location!r} is not a file, a folder, a URL, or a Hub id such as tatsu-lab/alpaca")
    if any(all((path / name).is_file() for name in names) for names in SAVED):
        return saved_pieces(path)
    if (of_card := card_files(path, config)) is not None:
        how = f"files and splits as {CARD} lists them"
        return [file_piece(str(file), split, partial(Path, file), how) for split, file in of_card]
    files = data_files(path)
    return [
        file_piece(str(file), split, partial(Path, file))
        for file, split in zip(files, splits_of(files, path), strict=True)
    ]


def file_piece(name: str, split: str | None, fetch: Callable[[], Path], how: str | None = None) -> Piece:
    """`name` is what messages call the file, and its ending says how to read it."""
    suffix = format_of(plain_name(name))
    if not suffix:
        raise UserError(f"{name}: unknown kind of file; Heed reads {', '.join(FORMATS)}, also .gz and .zst")

    def understood() -> str | None:
        separator = separator_of(fetch(), name) if READERS[suffix] is read_csv else ","
        return how if separator == "," else f"columns separated by {SEPARATORS[separator]}"

    return Piece(
        name=name,
        split=split,
        rows=lambda: READERS[suffix](fetch(), name),
        hashes=lambda: {name: file_sha256(fetch())},
        understood=understood,
    )


def download(url: str) -> Path:
    """Fetch a URL into the datasets cache. The file's name decides its format, as on disk."""
    from datasets import DownloadManager

    try:
        return Path(DownloadManager().download(url))
    except (OSError, ValueError) as error:  # every client in datasets raises one of these
        raise UserError(f"data: {url} could not be downloaded ({type(error).__name__}: {error})") from error


def data_files(folder: Path) -> list[Path]:
    """Every data file of a folder and of those in it, by name, without hidden files and runs."""

    def stop(error: OSError) -> None:
        raise UserError(f"data: {error.filename} cannot be read ({error.strerror})") from error

    found, seen = [], {folder.resolve()}
    for name, folders, files in os.walk(folder, onerror=stop, followlinks=True):
        here = Path(name)
        for each in sorted(folders):
            whole = (here / each).resolve()
            hidden = each.startswith((".", "__")) or (whole / RUN_FILE).is_file()
            if hidden or whole in seen:  # links may form a circle
                folders.remove(each)
            seen.add(whole)
        found += [
            here / each for each in files if format_of(each) and not each.startswith(".") and each not in NOT_ROWS
        ]
    if not found:
        raise UserError(f"data: {folder} has no {', '.join(FORMATS)} file (also .gz or .zst), not even in its folders")
    return sorted(found)


def splits_of(files: Sequence[Path], folder: Path) -> list[str | None]:
    """What each file says of its split, by its own name and by the folders in `folder` that it is in.

    Where none says anything, `folder` does, if a folder called train is beside it.
    Raises UserError when only some of the names say it.
    """
    splits = [split_named(file.relative_to(folder).parts) for file in files]
    if not any(splits):
        whole = folder.absolute()
        own = split_named([whole.name])
        beside = whole.parent.glob("*") if own else ()  # a home of thousands need not be listed for every file
        trained = any(splits_in(each.name) == {"train"} and each.is_dir() for each in beside)
        return [own if trained else None] * len(files)
    if None in splits:
        silent = files[splits.index(None)]
        speaking = next(file for file, split in zip(files, splits, strict=True) if split is not None)
        raise UserError(
            f"data: {folder} has {speaking.relative_to(folder)}, which names a split, and "
            f"{silent.relative_to(folder)}, which names none; say which file is for what, as data: "
            "{train: FILE, test: FILE}"
        )
    return splits


def card_files(folder: Path, config: str | None) -> list[tuple[str, Path]] | None:
    """The splits and files that the card of a cloned Hub set lists, or None; the library reads its patterns."""
    if not (folder / CARD).is_file():
        return None
    with (folder / CARD).open(encoding="utf-8", errors="replace") as file:
        head = CARD_HEAD.match(file.read(LONGEST_CARD))
    try:
        facts = parse(head[1]) if head else None
    except NotYaml as error:
        raise UserError(f"{folder / CARD}: {error}") from error
    if not isinstance(facts, dict) or not facts.get("configs"):
        return None
    from datasets import load_dataset_builder

    try:
        listed = load_dataset_builder(str(folder), config).config.data_files
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{folder / CARD}: its configs cannot be followed ({error}); set data_config, or name files"
        ) from error
    found = [(str(split), Path(file)) for split, files in listed.items() for file in sorted(files)]
    for _, path in found:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{folder / CARD}: {path} is not in the folder; name the files in data")
    return found


def saved_pieces(folder: Path) -> list[Piece]:
    """Of what save_to_disk has written: a Dataset, or a DatasetDict, whose splits are folders in it."""
    from datasets import Dataset, load_from_disk

    try:
        loaded = load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"data: {folder} is not a readable set of save_to_disk ({error})") from error
    if not isinstance(loaded, Dataset):
        return [saved_piece(folder / str(split), str(split), dataset) for split, dataset in loaded.items()]
    [beside] = splits_of([folder / CARD], folder)
    return [saved_piece(folder, split_named([str(loaded.split or "")]) or beside, loaded)]


def saved_piece(folder: Path, split: str | None, dataset: Any) -> Piece:
    name = str(folder)
    return Piece(
        name=name,
        split=split,
        rows=partial(set_rows, dataset, f"{name},"),
        hashes=lambda: {file["filename"]: file_sha256(Path(file["filename"])) for file in dataset.cache_files},
        understood=lambda: "what save_to_disk wrote",
    )


def hub_pieces(repo_id: str, config: str | None, revision: str | None) -> list[Piece]:
    """All splits of a Hub data set."""
    from datasets import get_dataset_split_names

    with hub_errors(repo_id):
        names = get_dataset_split_names(repo_id, config, revision=revision)
    return [hub_piece(repo_id, config, revision, split) for split in names]


def hub_piece(repo_id: str, config: str | None, revision: str | None, split: str) -> Piece:
    from datasets import load_dataset

    @cache
    def loaded() -> Any:
        with hub_errors(repo_id):
            return load_dataset(repo_id, config, revision=revision, split=split)

    return Piece(
        name=repo_id,
        split=split,
        rows=lambda: set_rows(loaded(), f"{repo_id}, {split}"),
        hashes=lambda: {f"{repo_id}:{split}": loaded()._fingerprint},
    )


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    from datasets.exceptions import DatasetNotFoundError

    try:
        yield
    except DatasetNotFoundError as error:
        raise UserError(
            f"data: {repo_id!r} is not a file here and not a data set on the Hub that you can see "
            f"(misspelled? private: `hf auth login`?): {error}"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"data: {repo_id!r} could not be loaded from the Hub ({error})") from error


def set_rows(dataset: Any, place: str) -> Iterator[RawRow]:
    for number, value in enumerate(dataset.with_format(None), start=1):
        yield RawRow(place=f"{place} row {number}", value=value)
