"""A training set that need not fit into memory: read and tokenized once, as Arrow shards that every machine maps in.

`python train_sft.py --config CONFIG --prepared FOLDER --prepare` writes the folder, and without `--prepare` a run
trains from it. Rows go by in chunks, so memory does not grow with their number.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from datasets import Dataset, concatenate_datasets
from datasets.arrow_writer import ArrowWriter

from heed import run_folder
from heed.checkpoints import sync
from heed.encoding import (
    FEATURES,
    EncodedSplit,
    Policy,
    encode_rows,
    long_rows_message,
    processes,
)
from heed.errors import UserError
from heed.fingerprint import digest, tokenizer_digest
from heed.prompts import Prompt
from heed.records import RawRow, Record, Rejected, check_columns, check_row, decide_format
from heed.sources import Source, raw_rows
from heed.splits import SPLITS, SplitName, check_shares, split_of_hash

FACTS_FILE = "prepared.json"
CHUNK = 1000  # rows that are tokenized at once
SHARD = 500_000  # examples in a file
TRAINED = ("row_id", "turn", "outcome", "prompt_ids", "response_ids", "prompt_tokens", "response_tokens")
Say = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What, beside the rows, decides what is in the folder."""

    policy: Policy
    prompt: Prompt
    row_format: str
    columns: Mapping[str, str]
    split: str
    shares: Sequence[float]
    mixture: Mapping[str, float]
    """File name -> how often its training rows count: 2 is twice, 0.5 half of them, by the hash of their content."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What a process makes of some rows."""

    train: pyarrow.Table
    held_out: dict[SplitName, list[Record]]
    rejected: list[Rejected]
    hashes: list[str]
    counts: Counter[str]
    long: list[str]


def prepare(
    source: Source,
    recipe_of: Callable[[str], Recipe],
    folder: Path,
    *,
    num_proc: int | None,
    say: Say,
) -> dict[str, Any]:
    """Write the folder and return what prepared.json says; `recipe_of` is told the format of the rows.

    Raises UserError for bad rows, for rows over max_length, and for a folder that is there already.
    """
    if folder.exists():
        raise UserError(f"prepared: {folder} is there already; choose another folder or delete it")
    check_columns(source.columns)
    files: dict[str, str] = {}
    rows = raw_rows(source, files)
    head = list(islice(rows, CHUNK))
    row_format, ignored, _ = decide_format(iter(head), source.columns)
    recipe = recipe_of(row_format)
    staged = folder.with_name(folder.name + ".part")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    workers = processes(sys.maxsize, num_proc) or 1  # nobody knows how many rows there are

    rows_sha256, counts, shards, rejected = hashlib.sha256(), Counter[str](), Shards(staged), 0
    held_out: dict[SplitName, Any] = {
        name: (staged / f"{name}.jsonl").open("w", encoding="utf-8") for name in SPLITS if name != "train"
    }
    with run_folder.whole_file(staged / run_folder.REJECTED_FILE) as bad:
        for chunk in in_order(recipe, numbered(head, rows), workers):
            if chunk.rejected and source.on_bad_row == "stop":
                first = chunk.rejected[0]
                raise UserError(
                    f"{first.place}: {'; '.join(first.reasons)}. Mend it, or set on_bad_row: drop to leave bad rows out"
                )
            if chunk.long and recipe.policy.on_long_row == "error":
                raise UserError(long_rows_message(chunk.long, counts["read"], recipe.policy.max_length))
            for each in chunk.rejected:
                bad.write(json.dumps(asdict(each), ensure_ascii=False, default=str) + "\n")
            for name, records in chunk.held_out.items():
                for record in records:
                    held_out[name].write(json.dumps(as_line(record), ensure_ascii=False) + "\n")
            rows_sha256.update("".join(chunk.hashes).encode())
            counts += chunk.counts
            rejected += len(chunk.rejected)
            shards.write(chunk.train)
    for file in held_out.values():
        file.close()
    shards.close()
    if not counts["examples"]:
        raise UserError(f"data: no training row is left of {counts['read']}")
    unknown = sorted(set(recipe.mixture) - {Path(name).name for name in files})
    if unknown:
        raise UserError(f"mixture: {unknown[0]!r} is none of the files ({', '.join(sorted(files))})")
    facts = identity(recipe) | {
        "rows_sha256": rows_sha256.hexdigest(),
        "files": files,
        "row_format": row_format,
        "ignored_fields": ignored,
        "rejected": rejected,
        "counts": dict(counts),
        "shards": shards.names,
        "written": run_folder.now(),
        "versions": run_folder.versions(),
    }
    run_folder.write_json(staged / FACTS_FILE, facts)
    sync(staged)
    os.replace(staged, folder)
    say(f"prepared  {folder}: {counts['examples']:,} training examples of {counts['read']:,} rows")
    for source_name, number in sorted(counts.items()):
        if source_name.startswith("from "):
            say(f"          {number:,} {source_name}")
    return facts


def load(folder: Path, recipe: Recipe) -> EncodedSplit:
    """The training examples, mapped into memory and not read.

    Raises UserError when the folder was made with another prompt, tokenizer or policy, or is damaged.
    """
    facts = read_facts(folder)
    wanted = identity(recipe)
    differ = [name for name in wanted if facts.get(name) != wanted[name]]
    if differ:
        name = differ[0]
        raise UserError(
            f"prepared: {folder} was made with {name}: {facts.get(name)}, and the run says {wanted[name]} (differing: "
            f"{', '.join(differ)}); prepare another folder, or set it back"
        )
    parts = []
    for name, (size, _) in facts["shards"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise UserError(f"{path} is missing or not as long as when it was written; prepare the folder again")
        parts.append(Dataset.from_file(str(path)))
    counts = Counter(facts["counts"])
    names = ("rows", "examples", "tokens", "response_tokens", "whole", "cut_prompt", "cut_response", "too_long")
    train = EncodedSplit(
        dataset=concatenate_datasets(parts),
        counts={name: counts[name] for name in names},
        cache_key=digest(facts["shards"]),
    )
    return train


def read_facts(folder: Path) -> dict[str, Any]:
    if not (folder / FACTS_FILE).is_file():
        raise UserError(f"prepared: {folder} holds no {FACTS_FILE}; write the folder with --prepare first")
    facts: dict[str, Any] = run_folder.read_json(folder / FACTS_FILE)
    return facts


def read_held_out(folder: Path, split: SplitName) -> list[Record]:
    """The rows of the test or validation split."""
    return [as_record(line) for line in run_folder.read_lines(folder / f"{split}.jsonl")]


def identity(recipe: Recipe) -> dict[str, Any]:
    return {
        **asdict(recipe.policy),
        "template": digest(recipe.prompt.template),
        "tokenizer": tokenizer_digest(recipe.prompt.tokenizer),
        "split": recipe.split,
        "split_shares": list(recipe.shares),
        "mixture": dict(recipe.mixture),
    }


def numbered(head: Sequence[RawRow], rest: Iterator[RawRow]) -> Iterator[tuple[int, list[RawRow]]]:
    """Chunks of rows, each with the number of its first."""
    first, rows = 0, list(head)
    while rows:
        yield first, rows
        first += len(rows)
        rows = list(islice(rest, CHUNK))


def in_order(recipe: Recipe, chunks: Iterator[tuple[int, list[RawRow]]], workers: int) -> Iterator[Chunk]:
    """What processes make of the chunks, in their order; no more chunks are read ahead than there is work for."""
    if workers == 1:
        yield from (make_chunk(chunk, recipe) for chunk in chunks)
        return
    slots = threading.Semaphore(3 * workers)

    def admitted() -> Iterator[tuple[int, list[RawRow]]]:
        for chunk in chunks:
            slots.acquire()
            yield chunk

    # The recipe is sent once: to unpickle a tokenizer takes as long as a chunk.
    with multiprocessing.get_context("spawn").Pool(workers, keep, (recipe,)) as pool:
        for made in pool.imap(make_from_kept, admitted()):
            slots.release()
            yield made


KEPT: dict[str, Recipe] = {}


def keep(recipe: Recipe) -> None:
    KEPT["recipe"] = recipe


def make_from_kept(chunk: tuple[int, list[RawRow]]) -> Chunk:
    return make_chunk(chunk, KEPT["recipe"])


def make_chunk(chunk: tuple[int, list[RawRow]], recipe: Recipe) -> Chunk:
    first, rows = chunk
    held_out: dict[SplitName, list[Record]] = {name: [] for name in SPLITS if name != "train"}
    train: list[Record] = []
    times: dict[int, int] = {}
    rejected, hashes, counts = [], [], Counter[str]()
    for number, row in enumerate(rows, start=first):
        checked = check_row(number, row, recipe.columns, recipe.row_format)
        if isinstance(checked, Rejected):
            rejected.append(checked)
            continue
        hashes.append(checked.content_hash)
        split = checked.source_split if recipe.split == "source" else split_of_hash(checked, recipe.shares)
        counts[f"in {split}"] += 1
        if split != "train":
            if split in held_out:
                held_out[split].append(checked)
            continue
        name = checked.place.split(":")[0].split(", ")[0]
        times[number] = how_often(checked, recipe.mixture.get(Path(name).name, 1.0))
        counts[f"from {name}"] += times[number]
        if times[number]:
            train.append(checked)
    columns: dict[str, list[Any]] = {
        "row_id": [record.row_id for record in train],
        "place": [record.place for record in train],
        "messages": [json.dumps(record.messages) for record in train],
    }
    table = pyarrow.table(encode_rows(columns, recipe.prompt, recipe.policy), schema=FEATURES.arrow_schema)
    repeats = [times[row_id] for row_id in table["row_id"].to_pylist()]
    table = table.take(np.repeat(np.arange(table.num_rows), repeats))
    outcomes = table["outcome"].to_pylist()
    kept = [outcome != "too_long" for outcome in outcomes]
    places = {record.row_id: record.place for record in train}
    long = [places[row_id] for row_id, keep in zip(table["row_id"].to_pylist(), kept, strict=True) if not keep]
    table = table.filter(pyarrow.array(kept, type=pyarrow.bool_())).select(TRAINED)
    learned = sum(table["response_tokens"].to_pylist())
    counts.update(Counter(outcomes))
    counts.update(
        read=len(rows),
        rows=len(set(table["row_id"].to_pylist())),
        examples=table.num_rows,
        tokens=learned + sum(table["prompt_tokens"].to_pylist()),
        response_tokens=learned,
    )
    return Chunk(train=table, held_out=held_out, rejected=rejected, hashes=hashes, counts=counts, long=long)


def how_often(record: Record, weight: float) -> int:
    """The whole part of a weight for every row, and one more for the share of rows that its fraction says."""
    point = int(record.content_hash[16:32], 16) / 2**64  # not the digits that say which split it is in
    return int(weight) + (point < weight % 1)


class Shards:
    """The training examples on their way to the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, tuple[int, str]] = {}
        self.writer: ArrowWriter | None = None
        self.rows = 0

    def write(self, table: pyarrow.Table) -> None:
        if self.writer is None:
            self.path = self.folder / f"train-{len(self.names):05}.arrow"
            self.writer = ArrowWriter(path=str(self.path), features=FEATURES_TRAINED)
        self.writer.write_table(table)
        self.rows += table.num_rows
        if self.rows >= SHARD:
            self.close()

    def close(self) -> None:
        if self.writer is None:
            return
        self.writer.finalize()
        sync(self.path)
        with self.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self.names[self.path.name] = (self.path.stat().st_size, sha256)
        self.writer, self.rows = None, 0


FEATURES_TRAINED = type(FEATURES)({name: FEATURES[name] for name in TRAINED})


def as_line(record: Record) -> dict[str, Any]:
    """Held-out rows stay readable as data: `eval_responses.py --data FOLDER/test.jsonl`."""
    return {"messages": list(record.messages), "row_id": record.row_id, "place": record.place}


def as_record(line: Mapping[str, Any]) -> Record:
    return Record(row_id=line["row_id"], place=line["place"], messages=tuple(line["messages"]))


def recipe(
    prompt: Prompt,
    policy: Policy,
    *,
    row_format: str,
    columns: Mapping[str, str],
    split: str | None,
    shares: Sequence[float],
    mixture: Mapping[str, float],
) -> Recipe:
    """Raises UserError for splits that need all rows at once."""
    if split not in ("hash", "source"):
        raise UserError(
            "split: a set that is prepared is split as its rows go by: set split: hash, or split: source with files "
            "named train.*, test.* and validation.*"
        )
    if split == "hash":
        check_shares(shares)
    for name, weight in mixture.items():
        if not 0 <= weight <= 100:
            raise UserError(f"mixture: {name}: {weight} is no weight; give how often its rows count, from 0 to 100")
    return Recipe(
        policy=policy,
        prompt=prompt,
        row_format=row_format,
        columns=columns,
        split=split,
        shares=tuple(shares) if split == "hash" else (),
        mixture=mixture,
    )
