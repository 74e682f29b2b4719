"""A training set that need not fit into memory: read and tokenized once, as Arrow shards that every machine maps in.

`python train_sft.py --config CONFIG --prepared FOLDER --prepare` writes the folder, and without `--prepare` a run
trains from it. Rows go by in chunks, so memory does not grow with their number.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow
from datasets import Dataset, concatenate_datasets
from datasets.arrow_writer import ArrowWriter

from heed.data.records import RawRow, Record, Rejected, check_columns, check_row, decide_format
from heed.data.sources import Source, raw_rows, source_name, source_names
from heed.data.splits import SPLITS, SplitName, check_shares, chosen_splits, split_of_hash
from heed.errors import UserError
from heed.files import run_folder
from heed.files.hashes import file_sha256, sync
from heed.files.lock import try_to_lock
from heed.prompts.hashes import digest, tokenizer_digest
from heed.prompts.template import Prompt
from heed.saying import Say
from heed.tokens.encoding import (
    FEATURES,
    EncodedSplit,
    Policy,
    conversation_columns,
    encode_rows,
    long_rows_message,
    processes,
    told_long,
)

FACTS_FILE = "prepared.json"
LOCK_FILE = ".lock"
CHUNK = 1000  # rows that are tokenized at once
SHARD = 500_000  # examples in a file
SAY_EVERY = 60.0  # seconds
TRAINED = ("row_id", "turn", "outcome", "prompt_ids", "response_ids", "prompt_tokens", "response_tokens")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What, beside the rows, decides what is in the folder."""

    source: Source
    policy: Policy
    prompt: Prompt
    row_format: str
    split: str
    shares: Sequence[float]
    source_splits: Mapping[SplitName, str]
    """Our split -> the source's, under split: source."""
    mixture: Mapping[str, float]
    """File name -> how often its training rows count: 2 is twice, 0.5 half of them, by the hash of their content."""

    def splits_of(self, record: Record) -> list[SplitName]:
        """Where a row goes: into one split, or none, or under `source_splits` two."""
        if self.split == "hash":
            return [split_of_hash(record, self.shares)]
        return [ours for ours, theirs in self.source_splits.items() if theirs == record.source_split]

    def weight(self, name: str) -> float:
        """How often the training rows of a file, URL or Hub set count."""
        return self.mixture.get(name, self.mixture.get(Path(name).name, 1.0))


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

    Raises UserError for bad rows, for rows over max_length, and for a folder that is there already. The folder is whole
    or absent, however this ends.
    """
    if folder.exists():
        raise UserError(f"prepared: {folder} is there already; choose another folder or delete it")
    check_columns(source.columns)
    with staging(folder) as staged:
        facts = write(source, recipe_of, staged, num_proc=num_proc, say=say)
        run_folder.write_json(staged / FACTS_FILE, facts)
        (staged / LOCK_FILE).unlink()
        sync(staged)
        os.replace(staged, folder)
    for line in told(folder, facts):
        say(line)
    return facts


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder` that nobody else writes to; what is left in it at the end is deleted."""
    staged = folder.with_name(folder.name + ".part")
    try:
        staged.mkdir(parents=True, exist_ok=True)
        lock = (staged / LOCK_FILE).open("a")
    except OSError as error:
        raise UserError(f"prepared: {folder} cannot be made ({error.strerror})") from error
    with lock:
        if not try_to_lock(lock.fileno()):
            raise UserError(f"prepared: another process is writing {folder}; wait for it, or choose another folder")
        for left in staged.iterdir():  # by one that was killed
            if left.name != LOCK_FILE:
                left.unlink()
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def write(
    source: Source, recipe_of: Callable[[str], Recipe], folder: Path, *, num_proc: int | None, say: Say
) -> dict[str, Any]:
    """Everything but prepared.json, whose contents are returned."""
    started = time.time()
    files: dict[str, str] = {}
    rows = raw_rows(source, files)
    head = list(islice(rows, CHUNK))
    row_format, ignored, _ = decide_format(iter(head), source.columns)
    recipe = recipe_of(row_format)
    check_mixture(recipe.mixture, source_names(source))
    if recipe.split == "source":
        chosen_splits({row.source_split for row in head}, {})  # refuses a source that names none
    # Nobody knows how many rows there are; but a source that ends within the first chunk has work for one.
    workers = processes(sys.maxsize if len(head) == CHUNK else 1, num_proc) or 1

    rows_sha256, counts, shards = hashlib.sha256(), Counter[str](), Shards(folder)
    held_out: dict[SplitName, Any] = {
        name: (folder / f"{name}.jsonl").open("w", encoding="utf-8") for name in SPLITS if name != "train"
    }
    said = time.monotonic()
    with (
        run_folder.whole_file(folder / run_folder.REJECTED_FILE) as bad,
        closing(in_order(recipe, numbered(head, rows), workers)) as chunks,
    ):
        for chunk in chunks:
            if chunk.rejected and source.on_bad_row == "stop":
                first = chunk.rejected[0]
                raise UserError(
                    f"{first.place}: {'; '.join(first.reasons)}. Mend it, or set on_bad_row: drop to leave bad rows out"
                )
            counts += chunk.counts
            if chunk.long and recipe.policy.on_long_row == "error":
                raise UserError(long_rows_message(chunk.long, counts["read"], recipe.policy.max_length))
            for each in chunk.rejected:
                bad.write(json.dumps(asdict(each), ensure_ascii=False, default=str) + "\n")
            for name, records in chunk.held_out.items():
                for record in records:
                    held_out[name].write(json.dumps(as_line(record), ensure_ascii=False) + "\n")
            rows_sha256.update("".join(chunk.hashes).encode())
            shards.write(chunk.train)
            if time.monotonic() - said > SAY_EVERY:
                said = time.monotonic()
                say(f"          {counts['read']:,} rows, {counts['read'] / (time.time() - started):,.0f} a second")
    for file in held_out.values():
        file.close()
    shards.close()
    if not counts["examples"]:
        raise UserError(f"data: no training row is left of {counts['read']}")
    if path := changed(files, since=started):
        raise UserError(f"data: {path} was written to while it was read; prepare the set again when it is whole")
    return identity(recipe) | {
        "rows_sha256": rows_sha256.hexdigest(),
        "files": files,
        "row_format": row_format,
        "ignored_fields": ignored,
        "rejected": counts["rejected"],
        "counts": dict(counts),
        "shards": shards.names,
        "written": run_folder.now(),
        "versions": run_folder.versions(),
    }


def check_mixture(mixture: Mapping[str, float], names: Sequence[str]) -> None:
    known = {*names, *(Path(name).name for name in names)}
    unknown = [name for name in mixture if name not in known]
    if unknown:
        raise UserError(f"mixture: {unknown[0]!r} is none of the files ({', '.join(names)})")


def told(folder: Path, facts: Mapping[str, Any]) -> list[str]:
    """What is in the folder and what is not, for a person."""
    counts = Counter(facts["counts"])
    lines = [f"prepared  {folder}: {counts['examples']:,} training examples of {counts['read']:,} rows"]
    lines += [
        f"          {number:,} {name}" for name, number in sorted(counts.items()) if name.startswith(("in ", "from "))
    ]
    lines += told_long(counts, facts["max_length"])
    if facts["rejected"]:
        lines.append(f"          {facts['rejected']:,} bad rows left out, listed in {run_folder.REJECTED_FILE}")
    if facts["ignored_fields"]:
        lines.append(f"          columns not used: {', '.join(facts['ignored_fields'])}")
    return lines


def changed(files: Mapping[str, str], *, since: float) -> str | None:
    """A file whose bytes are others than when it was read. What was not touched `since` then is not read again; what
    is not on this machine cannot be."""
    for name, sha256 in files.items():
        path = Path(name).expanduser()
        if path.is_file() and path.stat().st_ctime >= since and file_sha256(path) != sha256:
            return name
    return None


def load(folder: Path, recipe: Recipe) -> EncodedSplit:
    """The training examples, mapped into memory and not read.

    Raises UserError when the folder was made with another prompt, tokenizer or policy, or is damaged.
    """
    facts = read_facts(folder)
    refuse_other(folder, facts, identity(recipe))
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


def check_source(folder: Path, source: Source) -> None:
    """Raises UserError when the folder was made of other data than the run names, or the files have changed since."""
    facts = read_facts(folder)
    refuse_other(folder, facts, asdict(source))
    here = [name for name in source_names(source) if Path(name).expanduser().is_file()]
    new = [name for name in here if name not in facts["files"]]
    name = new[0] if new else changed(facts["files"], since=datetime.fromisoformat(facts["written"]).timestamp())
    if name is not None:
        raise UserError(
            f"prepared: {name} is not what {folder} was made of on {facts['written']}; prepare another folder of it"
        )


def refuse_other(folder: Path, facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differ = [name for name in wanted if facts.get(name) != wanted[name]]
    if differ:
        name = differ[0]
        raise UserError(
            f"prepared: {folder} was made with {name}: {facts.get(name)}, and the run says {wanted[name]} (differing: "
            f"{', '.join(differ)}); prepare another folder, or set it back"
        )


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
        **asdict(recipe.source),
        **asdict(recipe.policy),
        "template": digest(recipe.prompt.template),
        "tokenizer": tokenizer_digest(recipe.prompt.tokenizer),
        "split": recipe.split,
        "split_shares": list(recipe.shares),
        "source_splits": dict(recipe.source_splits),
        "mixture": dict(recipe.mixture),
    }


def numbered(head: Sequence[RawRow], rest: Iterator[RawRow]) -> Iterator[tuple[int, list[RawRow]]]:
    """Chunks of rows, each with the number of its first."""
    first, rows = 0, list(head)
    while rows:
        yield first, rows
        first += len(rows)
        rows = list(islice(rest, CHUNK))


def in_order(recipe: Recipe, chunks: Iterator[tuple[int, list[RawRow]]], workers: int) -> Generator[Chunk, None, None]:
    """What processes make of the chunks, in their order. Each process has one chunk at a time."""
    if workers == 1:
        yield from (make_chunk(chunk, recipe) for chunk in chunks)
        return
    busy: deque[Worker] = deque()
    with interrupts_held_back():  # what is started with them held back never gets one
        started = [Worker(recipe) for _ in range(workers)]
    try:
        for worker, chunk in zip(started, chunks, strict=False):
            worker.give(chunk)
            busy.append(worker)
        while busy:
            worker = busy.popleft()
            made = worker.take()
            if following := next(chunks, None):
                worker.give(following)
                busy.append(worker)
            yield made
    finally:
        for worker in started:
            worker.end()


class Worker:
    """A process that makes chunks. (multiprocessing.Pool waits for ever when one of its processes is killed.)"""

    def __init__(self, recipe: Recipe) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        # The recipe is sent once: to unpickle a tokenizer takes as long as a chunk.
        self.process = spawn.Process(target=work, args=(theirs, recipe), daemon=True)
        self.process.start()
        theirs.close()  # or the pipe would stay open when the process ends

    def give(self, chunk: tuple[int, list[RawRow]]) -> None:
        with self.alive():
            self.pipe.send(chunk)

    def take(self) -> Chunk:
        with self.alive():
            made: Chunk | Exception = self.pipe.recv()
        if isinstance(made, Exception):
            raise made
        return made

    @contextmanager
    def alive(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            raise UserError(
                "a process that tokenizes was killed, as the system does when memory runs out; give fewer with num_proc"
            ) from error

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def work(pipe: Connection, recipe: Recipe) -> None:
    """In the process: until nobody is at the other end of the pipe."""
    with suppress(EOFError, ConnectionError):
        while True:
            chunk = pipe.recv()
            try:
                made: Chunk | Exception = make_chunk(chunk, recipe)
            except Exception as error:
                error.add_note(traceback.format_exc())  # which a pipe does not carry
                made = error
            pipe.send(made)


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal; what is started in here leaves it to this one."""
    resource_tracker.ensure_running()  # which would let them through when it is started with the first process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def make_chunk(chunk: tuple[int, list[RawRow]], recipe: Recipe) -> Chunk:
    first, rows = chunk
    held_out: dict[SplitName, list[Record]] = {name: [] for name in SPLITS if name != "train"}
    train: list[Record] = []
    times: dict[int, int] = {}
    rejected, hashes, counts = [], [], Counter[str]()
    for number, row in enumerate(rows, start=first):
        checked = check_row(number, row, recipe.source.columns, recipe.row_format)
        if isinstance(checked, Rejected):
            rejected.append(checked)
            continue
        hashes.append(checked.content_hash)
        splits = recipe.splits_of(checked)
        counts.update([f"in {split}" for split in splits] or ["in no split"])
        for split in splits:
            if split != "train":
                held_out[split].append(checked)
        if "train" in splits:
            name = source_name(checked.place)
            times[number] = how_often(checked, recipe.weight(name))
            counts[f"from {name}"] += times[number]
            if times[number]:
                train.append(checked)
    encoded = encode_rows(conversation_columns(train), recipe.prompt, recipe.policy)
    table = pyarrow.table(encoded, schema=FEATURES.arrow_schema)
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
        rejected=len(rejected),
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
        self.names[self.path.name] = (self.path.stat().st_size, file_sha256(self.path))
        self.writer, self.rows = None, 0


FEATURES_TRAINED = type(FEATURES)({name: FEATURES[name] for name in TRAINED})


def as_line(record: Record) -> dict[str, Any]:
    """Held-out rows stay readable as data: `eval_responses.py --data FOLDER/test.jsonl`."""
    return {"messages": list(record.messages), "row_id": record.row_id, "place": record.place}


def as_record(line: Mapping[str, Any]) -> Record:
    return Record(row_id=line["row_id"], place=line["place"], messages=tuple(line["messages"]))


def recipe(
    source: Source,
    prompt: Prompt,
    policy: Policy,
    *,
    row_format: str,
    split: str | None,
    shares: Sequence[float],
    source_splits: Mapping[str, str],
    mixture: Mapping[str, float],
) -> Recipe:
    """Raises UserError for splits that need all rows at once, and for weights that are none."""
    if split not in ("hash", "source"):
        raise UserError(
            "split: a set that is prepared is split as its rows go by: set split: hash, or split: source with files "
            "named train.*, test.* and validation.*"
        )
    if split == "hash":
        check_shares(shares)
    chosen = cast("dict[SplitName, str]", dict(source_splits) or {name: name for name in SPLITS})
    for ours in chosen:
        if ours not in SPLITS:
            raise UserError(f"source_splits: {ours!r} is not one of {', '.join(SPLITS)}")
    for name, weight in mixture.items():
        if not 0 <= weight <= 100:
            raise UserError(f"mixture: {name}: {weight} is no weight; give how often its rows count, from 0 to 100")
    return Recipe(
        source=source,
        policy=policy,
        prompt=prompt,
        row_format=row_format,
        split=split,
        shares=tuple(shares) if split == "hash" else (),
        source_splits=chosen if split == "source" else {},
        mixture=mixture,
    )
