"""A training set that need not fit into memory: read and tokenized once, as memory-mapped Arrow shards.

`python train_sft.py --config CONFIG --prepared FOLDER --prepare` writes the folder, and without `--prepare` a run
trains from it. Rows are read in chunks, so memory does not grow with their number.
"""

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets

from heed import workers
from heed.data.recognition import check_columns, decide_shape
from heed.data.records import Record
from heed.data.rows import bad_rows_message, ignored, notes
from heed.data.sources import Source, pieces, raw_rows, source_names, understood
from heed.data.splits import SPLITS, SplitName, chosen_splits
from heed.errors import UserError
from heed.files import run_folder
from heed.files.hashes import file_sha256
from heed.files.whole_folder import whole_folder
from heed.prompts.hashes import digest
from heed.saying import Say, count
from heed.tokens import chunks
from heed.tokens.encoding import COUNTS, EncodedSplit, accounted, long_rows_message
from heed.tokens.examples import FORMAT
from heed.tokens.recipe import Recipe, check_mixture, identity
from heed.tokens.shards import Shards

FACTS_FILE = "prepared.json"
SAY_EVERY = 60.0  # seconds


def prepare(recipe: Recipe, folder: Path, *, num_proc: int | None, say: Say) -> dict[str, Any]:
    """Write the folder and return what prepared.json says.

    Raises UserError for bad rows, for rows over max_length, and for a folder that exists already. The folder is whole
    or absent, however this ends.
    """
    if folder.exists():
        raise UserError(f"prepared: {folder} exists already; choose another folder or delete it")
    check_columns(recipe.source.columns)
    with whole_folder(folder, key="prepared") as staged:
        facts = write(recipe, staged, num_proc=num_proc, say=say)
        run_folder.write_json(staged / FACTS_FILE, facts)
    for line in told(folder, facts):
        say(line)
    return facts


def write(recipe: Recipe, folder: Path, *, num_proc: int | None, say: Say) -> dict[str, Any]:
    """Write everything but prepared.json, and return its contents."""
    started, source = time.time(), recipe.source
    files: dict[str, str] = {}
    found = list(pieces(source))
    rows = raw_rows(found, files)
    head = list(islice(rows, chunks.CHUNK))
    shape, _ = decide_shape(iter(head), source.columns)
    check_mixture(recipe.mixture, [*dict.fromkeys(piece.name for piece in found)])
    if recipe.split == "source":
        chosen_splits({row.source_split for row in head}, {})  # refuses a source that names none
    # The number of rows is unknown, but a source that ends within the first chunk has work for one process only.
    processes = workers.how_many(sys.maxsize if len(head) == chunks.CHUNK else 1, num_proc)

    rows_sha256, counts, shards = hashlib.sha256(), Counter[str](), Shards(folder)
    unused: Counter[tuple[str, str]] = Counter()
    held_out: dict[SplitName, Any] = {
        name: (folder / f"{name}.jsonl").open("w", encoding="utf-8") for name in SPLITS if name != "train"
    }
    work = partial(chunks.make_chunk, recipe=recipe, shape=shape)
    said = time.monotonic()
    with (
        run_folder.whole_file(folder / run_folder.REJECTED_FILE) as bad,
        closing(workers.in_order(work, chunks.numbered(head, rows), processes, task="tokenizes")) as finished,
    ):
        for chunk in finished:
            counts += chunk.counts
            unused += chunk.unused
            if chunk.rejected and source.on_bad_row == "stop":
                good = counts["read"] - counts["rejected"]
                raise UserError(bad_rows_message(chunk.rejected, str(source.data), good=good))
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
        "format": FORMAT,
        "rows_sha256": rows_sha256.hexdigest(),
        "files": files,
        "row_format": shape.row_format,
        "understood": [*understood(found), *shape.understood],
        "ignored_fields": ignored(unused),
        "rejected": counts["rejected"],
        "counts": dict(counts),
        "shards": shards.names,
        "written": run_folder.now(),
        "versions": run_folder.versions(),
    }


def told(folder: Path, facts: Mapping[str, Any]) -> list[str]:
    """Lines on what is in the folder and what is not."""
    counts = Counter(facts["counts"])
    lines = [f"prepared  {folder}: {count(counts['examples'], 'training example')} of {count(counts['read'], 'row')}"]
    lines += [
        f"          {number:,} {name}" for name, number in sorted(counts.items()) if name.startswith(("in ", "from "))
    ]
    lines += accounted(counts, facts["max_length"])
    if facts["rejected"]:
        lines.append(f"          {count(facts['rejected'], 'bad row')} left out, listed in {run_folder.REJECTED_FILE}")
    return lines + [f"          {note}" for note in notes(facts["understood"], facts["ignored_fields"])]


def changed(files: Mapping[str, str], *, since: float) -> str | None:
    """A file whose bytes have changed since it was read. Files that were not touched `since` then, or are not on this
    machine, are not read again."""
    for name, sha256 in files.items():
        path = Path(name).expanduser()
        if path.is_file() and path.stat().st_ctime >= since and file_sha256(path) != sha256:
            return name
    return None


def load(folder: Path, recipe: Recipe) -> EncodedSplit:
    """The training examples, memory-mapped and not read.

    Raises UserError when the folder was made with another prompt, tokenizer or policy, or is damaged.
    """
    facts = read_facts(folder)
    refuse_other(folder, facts, identity(recipe))
    parts = []
    for name, (size, _) in facts["shards"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise UserError(f"{path} is missing or has changed in size since it was written; prepare the folder again")
        parts.append(Dataset.from_file(str(path)))
    counts = Counter(facts["counts"])
    return EncodedSplit(
        dataset=concatenate_datasets(parts),
        counts={name: counts[name] for name in COUNTS},
        cache_key=digest(facts["shards"]),
    )


def check_source(folder: Path, source: Source) -> None:
    """Raises UserError when the folder was made from other data than the run names, or the files have changed since."""
    facts = read_facts(folder)
    refuse_other(folder, facts, asdict(source))
    here = [name for name in source_names(source) if Path(name).expanduser().is_file()]
    new = [name for name in here if name not in facts["files"]]
    name = new[0] if new else changed(facts["files"], since=datetime.fromisoformat(facts["written"]).timestamp())
    if name is not None:
        raise UserError(
            f"prepared: {name} is not what {folder} was made from on {facts['written']}; prepare another folder from it"
        )


def refuse_other(folder: Path, facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if facts.get("format") != FORMAT:
        raise UserError(
            f"prepared: {folder} was written by another version of Heed, which stored examples differently; prepare it "
            "again"
        )
    differ = [name for name in wanted if facts.get(name) != wanted[name]]
    if differ:
        name = differ[0]
        raise UserError(
            f"prepared: {folder} was made with {name}: {facts.get(name)}, and the run says {wanted[name]} (differing: "
            f"{', '.join(differ)}); prepare another folder, or set it back"
        )


def read_facts(folder: Path) -> dict[str, Any]:
    if not (folder / FACTS_FILE).is_file():
        raise UserError(f"prepared: {folder} has no {FACTS_FILE}; write the folder with --prepare first")
    facts: dict[str, Any] = run_folder.read_json(folder / FACTS_FILE)
    return facts


def read_held_out(folder: Path, split: SplitName) -> list[Record]:
    """The rows of the test or validation split."""
    return [as_record(line) for line in run_folder.read_lines(folder / f"{split}.jsonl")]


def as_line(record: Record) -> dict[str, Any]:
    """Held-out rows stay readable as data: `eval_responses.py --data FOLDER/test.jsonl`."""
    return {"messages": list(record.messages), "row_id": record.row_id, "place": record.place}


def as_record(line: Mapping[str, Any]) -> Record:
    return Record(row_id=line["row_id"], place=line["place"], messages=tuple(line["messages"]))
