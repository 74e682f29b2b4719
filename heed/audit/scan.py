"""What every row of a source would teach: one pass over the rows, a few numbers kept of each.

Rows come as a stream and are looked at by several processes. What is kept of a row takes about 220 bytes, so a million
rows fit beside the libraries. The result is cached under a hash of everything it depends on; thresholds
are not among that (see `heed.audit`).
"""

import hashlib
import json
import multiprocessing
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from tqdm.auto import tqdm

from heed.audit import duplicates
from heed.audit.duplicates import fingerprint, normalized
from heed.audit.languages import LANGUAGES, language
from heed.audit.overlap import References, questions
from heed.audit.relations import compare, judge_languages, judge_lengths
from heed.audit.row import BIT, FLAGS, ROW
from heed.data.records import Record, Rejected
from heed.data.sources import Source, file_hashes, read
from heed.data.splits import hash_point
from heed.errors import UserError
from heed.prompts.hashes import prompt_hash
from heed.prompts.template import PROBE, PROBE_ANSWER, PROBE_INPUT, PROBE_QUESTION, Encoded, Prompt
from heed.tokens.batches import supervised_tokens
from heed.tokens.encoding import Policy, encode_turns, processes
from heed.tokens.lengths import fit

VERSION = 2  # of what is computed here; a scan of another version is not taken from the cache
CHUNK = 500  # rows that a process looks at in one go
AHEAD = 3  # chunks for each process that are read before their turn
REJECTED_KEPT = 1000
LONG_ENOUGH = 24  # letters of a template's sentence that nobody else writes by chance
SEAM = 3  # tokens on either side of where the answer begins

LITTLE = 0.02  # of a row's tokens are learned: not worth its price

PLACE = re.compile(r"(.*?)(\d+)(?: \(row (\d+)\))?", re.DOTALL)
# Marks of chat formats that mean nothing here, or of another template.
FOREIGN_MARKS = "|".join(
    (
        r"### ?(?:Instruction|Input|Response|Human|Assistant):",
        r"<\|[a-z_]{2,24}\|>",
        r"\[/?INST\]|<</?SYS>>",
        r"<(?:start|end)_of_turn>",
    )
)
PLACEHOLDERS = frozenset(
    "nan <nan> none null n/a na <na> <noinput> noinput undefined todo tbd ... …".split()  # noqa: SIM905
)


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A source looked through."""

    rows: np.ndarray
    """One ROW for each usable row, in the order of the source."""
    files: list[str]
    """The first parts of places, by number."""
    rejected: list[dict[str, Any]]
    """The first 1,000 rows that could not be read: place and reasons."""
    rejected_count: int
    examples: int
    against: dict[str, dict[str, Any]]
    """For each evaluation file: sha256, questions, and known: row id there, as text -> position here."""
    seconds: float
    from_cache: bool = False

    def place(self, position: int) -> str:
        """Where a person finds the row."""
        row = self.rows[position]
        counted = f" (row {row['row']})" if row["row"] >= 0 else ""
        return f"{self.files[row['file']]}{row['line']}{counted}"

    def flags(self, position: int) -> tuple[str, ...]:
        return tuple(name for name in FLAGS if self.rows["flags"][position] & BIT[name])

    def other_answer(self, position: int) -> int:
        """The first row that has the same question and another answer; only for rows flagged conflicting_answers."""
        rows = self.rows
        same = rows["question"] == rows["question"][position]
        return int(np.flatnonzero(same & (rows["answer"] != rows["answer"][position]))[0])

    def flagged(self, name: str) -> np.ndarray:
        """Positions of the rows with a flag."""
        return np.flatnonzero(self.rows["flags"] & BIT[name])


RowSource = Callable[[], Iterable[Record | Rejected]]
"""Gives the rows from the beginning; called again when texts are needed once more."""
SplitRule = Callable[[np.ndarray, np.ndarray, list[str | None]], np.ndarray]
"""`splits.split_numbers` with everything but the rows known."""


def scan_key(
    files: Mapping[str, str], reading: Mapping[str, Any], prompt: Prompt, policy: Policy, against: Sequence[str]
) -> str:
    """SHA-256 over data bytes, how they are read and split, template, tokenizer, policy and evaluation files."""
    evaluations = {name: file_hashes(Source(data=name)) for name in against}
    parts = [VERSION, dict(files), dict(reading), prompt_hash(prompt), asdict(policy), evaluations]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_references(names: Sequence[str]) -> tuple[References, dict[str, dict[str, Any]]]:
    """The questions of evaluation files, and what is known of the files. Raises UserError for what cannot be read."""
    references, facts = {}, {}
    for name in names:
        reading = read(Source(data=name))
        references[name] = questions(reading.rows.records)
        facts[name] = {"sha256": "".join(reading.files.values()), "questions": len(reading.rows.records), "known": {}}
    return references, facts


def scan(
    rows: RowSource,
    prompt: Prompt,
    policy: Policy,
    split_rule: SplitRule,
    *,
    against: Sequence[str] = (),
    num_proc: int | None = None,
    total: int | None = None,
) -> Scan:
    """Look at every row. `total` is for the progress bar; None when it is not known."""
    started = time.perf_counter()
    references, evaluations = read_references(against)
    looker = Looker(prompt=prompt, policy=policy, references=references)
    files: dict[str, int] = {}
    sources: dict[str | None, int] = {}
    rejected: list[dict[str, Any]] = []
    rejected_count = examples = 0
    pieces: list[np.ndarray] = []
    signatures: list[np.ndarray] = []

    def records() -> Iterator[Record]:
        nonlocal rejected_count
        for row in rows():
            if isinstance(row, Record):
                yield row
                continue
            rejected_count += 1
            if len(rejected) < REJECTED_KEPT:
                rejected.append({"row_id": row.row_id, "place": row.place, "reasons": row.reasons})

    bar = tqdm(desc="Looking at rows", total=total, unit=" rows", unit_scale=True, disable=None, leave=False)
    with bar:
        for seen in look(looker, records(), num_proc, total):
            table = seen.table
            table["file"] = [files.setdefault(name, len(files)) for name in seen.files]
            table["source"] = [sources.setdefault(name, len(sources)) for name in seen.sources]
            for name, known in seen.known.items():
                offset = sum(map(len, pieces))
                for row_id, place in known:
                    evaluations[name]["known"].setdefault(str(row_id), offset + place)
            pieces.append(table)
            signatures.append(seen.signatures)
            examples += seen.examples
            bar.update(len(table))
    table = np.concatenate([np.empty(0, dtype=ROW), *pieces])
    if not len(table):
        raise UserError("no usable row" + (f" ({rejected_count} bad)" if rejected_count else ""))
    pieces.clear()
    table["split"] = split_rule(table["point"], table["source"], list(sources))
    compare(table, np.concatenate(signatures), lambda wanted: texts(rows(), wanted))
    judge_lengths(table)
    judge_languages(table)
    return Scan(
        rows=table,
        files=list(files),
        rejected=rejected,
        rejected_count=rejected_count,
        examples=examples,
        against=evaluations,
        seconds=time.perf_counter() - started,
    )


def texts(rows: Iterable[Record | Rejected], wanted: set[int]) -> Iterator[tuple[int, str]]:
    records = (row for row in rows if isinstance(row, Record))
    return ((place, normalized(whole_text(record))) for place, record in enumerate(records) if place in wanted)


def whole_text(record: Record) -> str:
    return f"{record.question}\n{record.output}"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a process tells of its chunk of rows."""

    table: np.ndarray
    signatures: np.ndarray
    files: list[str]
    sources: list[str | None]
    examples: int
    known: dict[str, list[tuple[int, int]]]
    """For each evaluation file: row id there, position in this chunk."""


def look(looker: "Looker", records: Iterator[Record], num_proc: int | None, total: int | None) -> Iterator[Seen]:
    """Chunks of rows looked at, in order, by as many processes as pay; few chunks are in memory at once."""
    chunks = iter(lambda: list(islice(records, CHUNK)), [])
    workers = processes(total if total is not None else 10**9, num_proc)
    if workers is None or sys.platform == "win32":
        yield from map(looker.look, chunks)
        return
    # Forked, so that nothing is loaded again; a worker leaves Ctrl-C to this process.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=begin_worker, initargs=(looker,)) as pool:
        coming: deque[Future[Seen]] = deque()
        try:
            for chunk in chunks:
                coming.append(pool.submit(look_in_worker, chunk))
                if len(coming) > AHEAD * workers:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "a process that looks at rows was killed, as the system does when memory runs out; free some first"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_looker: "list[Looker]" = []  # of this process, when it is a worker


def begin_worker(looker: "Looker") -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _looker[:] = [looker]


def look_in_worker(chunk: list[Record]) -> Seen:
    return _looker[0].look(chunk)


@dataclass(frozen=True, kw_only=True)
class Looker:
    """All that is needed to judge a row by itself."""

    prompt: Prompt
    policy: Policy
    references: References = field(default_factory=dict)

    def look(self, records: Sequence[Record]) -> Seen:
        table = np.zeros(len(records), dtype=ROW)
        signatures = np.empty((len(records), duplicates.NUMBERS), dtype=np.uint16)
        files, sources, known, examples = [], [], {name: [] for name in self.references}, 0  # type: ignore[var-annotated]
        for place, record in enumerate(records):
            row = table[place]
            before, line, counted = split_place(record.place)
            files.append(before)
            sources.append(record.source_split)
            row["row_id"], row["line"], row["row"], row["like"] = record.row_id, line, counted, -1
            row["point"] = hash_point(record)
            text = normalized(whole_text(record))
            row["content"] = fingerprint(text)
            row["question"] = fingerprint(normalized(record.question))
            row["answer"] = fingerprint(normalized(record.output))
            row["language"] = LANGUAGES.index(language(whole_text(record)))
            signatures[place] = duplicates.signature(duplicates.runs(text))
            row["flags"] = self.text_flags(record)
            examples += self.look_at_tokens(record, row)
            for name, reference in self.references.items():
                hits = reference.known_to(text, int(row["question"]))
                if len(hits):
                    row["flags"] |= BIT["contaminated"]
                    known[name] += [(int(row_id), place) for row_id in reference.row_ids[hits]]
        return Seen(table=table, signatures=signatures, files=files, sources=sources, examples=examples, known=known)

    def text_flags(self, record: Record) -> np.uint32:
        flags = np.uint32(0)
        fields = [text for turn in record.messages for text in (turn["content"], turn.get("input", "")) if text]
        if any(self.prompt.control_tokens.search(text) for text in fields):
            flags |= BIT["control_tokens"]
        if any(template_text(self.prompt).search(text) for text in fields):
            flags |= BIT["template_text"]
        if any(text.strip().casefold() in PLACEHOLDERS for text in fields):
            flags |= BIT["placeholder"]
        return flags

    def look_at_tokens(self, record: Record, row: np.void) -> int:
        """Add up the examples that a row gives; returns how many they are."""
        count = 0
        eos = self.prompt.eos_token_id
        bos = self.prompt.tokenizer.bos_token_id
        flags = np.uint32(row["flags"])
        for _, whole in encode_turns(record.messages, self.prompt, self.policy.loss_on, record.place):
            count += 1
            policy = "drop" if self.policy.on_long_row == "error" else self.policy.on_long_row
            encoded, outcome = fit(whole, max_length=self.policy.max_length, on_long_row=policy)
            before = supervised_tokens(whole._asdict(), self.policy.loss_on)
            learned = 0 if outcome == "too_long" else supervised_tokens(encoded._asdict(), self.policy.loss_on)
            row["prompt_tokens"] += len(whole.prompt_ids)
            row["response_tokens"] += len(whole.response_ids)
            row["learned_tokens"] += learned
            row["lost_tokens"] += before - learned
            if outcome != "whole":
                flags |= BIT[outcome]
            if whole.response_ids == [eos]:
                flags |= BIT["no_target"]
            if outcome in ("whole", "cut_prompt") and encoded.response_ids.index(eos) != len(encoded.response_ids) - 1:
                flags |= BIT["eos_not_learned"]
            if outcome != "too_long" and learned < LITTLE * (len(encoded.prompt_ids) + len(encoded.response_ids)):
                flags |= BIT["little_learned"]
            if bos is not None and whole.prompt_ids[:2] == [bos, bos]:
                flags |= BIT["double_bos"]
            if merges(self.prompt, whole):
                flags |= BIT["boundary_merge"]
        row["flags"] = flags
        return count


def split_place(place: str) -> tuple[str, int, int]:
    """The parts of a place, from which it can be put together again; (place, line, row or -1)."""
    found = PLACE.fullmatch(place)
    assert found is not None, place
    return found[1], int(found[2]), int(found[3]) if found[3] else -1


def merges(prompt: Prompt, example: Encoded) -> bool:
    """Whether the tokens at the seam would be others if prompt and answer were tokenized together."""
    eos = prompt.eos_token_id
    head = tuple(token for token in example.response_ids[:SEAM] if token != eos)
    return seam_merges(prompt.tokenizer, tuple(example.prompt_ids[-SEAM:]), head)


@lru_cache(maxsize=100_000)
def seam_merges(tokenizer: Any, tail: tuple[int, ...], head: tuple[int, ...]) -> bool:
    before, after = (str(tokenizer.decode(list(ids))) for ids in (tail, head))
    if "\ufffd" in before + after:  # half a letter: decoded alone it would be another text
        return False

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    return encode(before + after) != encode(before) + encode(after)


@lru_cache(maxsize=8)
def template_text(prompt: Prompt) -> re.Pattern[str]:
    """Matches what the template itself writes, and marks of other templates, when they stand in a row's own words."""
    lines = prompt.render(PROBE, generation_prompt=False).splitlines()
    words = (PROBE_QUESTION, PROBE_INPUT, PROBE_ANSWER)
    written = {line.replace(str(prompt.tokenizer.eos_token), "").strip() for line in lines}
    sentences = [sentence for line in written for sentence in re.split(r"(?<=\.) ", line)]
    own = [each for each in sentences if len(each) >= LONG_ENOUGH and not any(word in each for word in words)]
    headings = [found for line in written for found in re.findall(r"^(###[^:]*:|<\|[^|]+\|>)", line)]
    return re.compile("|".join([*map(re.escape, sorted({*own, *headings})), FOREIGN_MARKS]))


def cache_file(key: str) -> Path:
    return Path(datasets.config.HF_DATASETS_CACHE) / "heed" / f"scan-{key}.npz"


def cached_scan(key: str) -> Scan | None:
    """The scan of that key, if there is one; a damaged file counts as none."""
    path = cache_file(key)
    try:
        with np.load(path, allow_pickle=False) as stored:
            facts = json.loads(str(stored["facts"]))
            return Scan(rows=stored["rows"], from_cache=True, **facts)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def store_scan(key: str, scanned: Scan) -> None:
    """Write a file that is either whole or absent."""
    path = cache_file(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {name: value for name, value in vars(scanned).items() if name not in ("rows", "from_cache")}
    part = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
    np.savez(part, rows=scanned.rows, facts=np.array(json.dumps(facts)))
    part.replace(path)
