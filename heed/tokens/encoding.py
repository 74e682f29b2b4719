"""Records to an Arrow data set of token ids, every row accounted for."""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import datasets
import numpy as np
from datasets import Dataset

from heed.data.records import Message, Record
from heed.errors import UserError
from heed.prompts.hashes import prompt_hash
from heed.prompts.template import Encoded, Prompt
from heed.tokens.batches import LossOn
from heed.tokens.lengths import Outcome, fit

OnLongRow = Literal["error", "drop", "cut_prompt", "cut_response"]
PLACES_SHOWN = 5
ROWS_A_PROCESS = 2000  # with fewer, a process costs more time to start than it saves
MAX_PROCESSES = 16
FINGERPRINT_LENGTH = 32  # of 64 that `datasets` allows, which puts the number of the process behind it


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What, beside rows and prompt, decides which ids a model is given."""

    max_length: int
    on_long_row: OnLongRow
    loss_on: LossOn


@dataclass(frozen=True, kw_only=True)
class EncodedSplit:
    """One split as the collator wants it, every example with the number of its tokens."""

    dataset: Dataset
    """Columns row_id, turn, outcome, prompt_ids, response_ids, prompt_tokens, response_tokens."""
    counts: dict[str, int]
    """rows, examples, tokens and response_tokens that are used; whole, cut_prompt, cut_response, too_long."""
    cache_key: str

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, prompt and response together, in the order of `dataset`; int64."""
        return row_lengths(self.dataset)


def row_lengths(dataset: Dataset) -> np.ndarray:
    """Tokens of each example of an encoded data set, prompt and response together, in its order; int64."""
    return column(dataset, "prompt_tokens") + column(dataset, "response_tokens")


def encode_split(
    records: Sequence[Record], prompt: Prompt, policy: Policy, *, num_proc: int | None = None
) -> EncodedSplit:
    """Tokenize a split with one `datasets.map`, cached by the content of everything the ids depend on.

    A conversation with several assistant turns gives an example for each, since what comes before a turn is its
    prompt. Under `loss_on="all"` the last turn's example alone teaches the whole conversation, each token once.
    `num_proc` processes share the work, None for as many as pay; they change neither the ids nor the cache.
    Raises UserError when rows are longer than `max_length` and `on_long_row` is "error".
    """
    key = cache_key(records, prompt, policy)
    conversations = Dataset.from_dict(conversation_columns(records))
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "heed"
    folder.mkdir(parents=True, exist_ok=True)
    # Several processes write a file each, which appears when it is whole; map finds them again at any num_proc.
    with one_interrupt():
        encoded = conversations.map(
            encode_rows,
            batched=True,
            fn_kwargs={"prompt": prompt, "policy": policy},
            remove_columns=conversations.column_names,
            features=FEATURES,
            num_proc=processes(len(records), num_proc),
            cache_file_name=str(folder / f"{key}.arrow"),
            new_fingerprint=key[:FINGERPRINT_LENGTH],
            desc="Tokenizing",
        )
    counts = count(encoded)
    if counts["too_long"]:
        too_long = column(encoded, "outcome") == "too_long"
        if policy.on_long_row == "error":
            places = {record.row_id: record.place for record in records}
            long = [places[row_id] for row_id in column(encoded, "row_id")[too_long]]
            raise UserError(long_rows_message(long, len(records), policy.max_length))
        encoded = encoded.select(np.flatnonzero(~too_long))
    return EncodedSplit(dataset=encoded, counts=counts, cache_key=key)


def conversation_columns(records: Sequence[Record]) -> dict[str, list[Any]]:
    return {
        "row_id": [record.row_id for record in records],
        "place": [record.place for record in records],
        "messages": [json.dumps(record.messages) for record in records],
    }


def encode_records(records: Sequence[Record], prompt: Prompt, policy: Policy) -> list[dict[str, Any]]:
    """The examples of a few records as `encode_split` makes them, too long ones among them."""
    columns = encode_rows(conversation_columns(records), prompt, policy)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


OUTCOMES = {
    "cut_prompt": "with the beginning of the prompt cut off",
    "cut_response": "with the end of the response and EOS cut off",
    "too_long": "dropped",
}


def told_long(counts: Mapping[str, int], max_length: int) -> list[str]:
    """A line on what became of examples that are longer than `max_length`, if there are any."""
    told = [f"{counts[reason]:,} {text}" for reason, text in OUTCOMES.items() if counts[reason]]
    return [f"          longer than max_length {max_length}: {', '.join(told)}"] if told else []


def encode_rows(rows: Mapping[str, list[Any]], prompt: Prompt, policy: Policy) -> dict[str, list[Any]]:
    """Examples of a batch of conversations, by column; a process may be given this function and nothing else."""
    examples: list[dict[str, Any]] = []
    for row_id, place, text in zip(rows["row_id"], rows["place"], rows["messages"], strict=True):
        for turn, whole in encode_turns(json.loads(text), prompt, policy.loss_on, place):
            encoded, outcome = fit(whole, max_length=policy.max_length, on_long_row=policy.on_long_row)
            lengths = {"prompt_tokens": len(encoded.prompt_ids), "response_tokens": len(encoded.response_ids)}
            examples.append({"row_id": row_id, "turn": turn, "outcome": outcome} | encoded._asdict() | lengths)
    return {name: [example[name] for example in examples] for name in COLUMNS}


def learned_turns(messages: Sequence[Message], loss_on: LossOn) -> list[int]:
    """The assistant turns that give an example: under `loss_on: all` the last one, which learns those before it too."""
    turns = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
    return turns if loss_on == "response" else turns[-1:]


def encode_turns(
    messages: Sequence[Message], prompt: Prompt, loss_on: LossOn, place: str
) -> Iterator[tuple[int, Encoded]]:
    """Each assistant turn that gives an example, and its ids at full length."""
    for turn in learned_turns(messages, loss_on):
        try:
            yield turn, prompt.encode(messages[: turn + 1])
        except UserError as error:  # a template may be right for most rows and wrong for one
            raise UserError(f"{place}: {error}") from error


def processes(rows: int, num_proc: int | None) -> int | None:
    """How many processes tokenize `rows` rows: `num_proc`, or as many as there are CPUs and enough rows for.

    Other processes of a launcher wait meanwhile, so their CPUs count too. None: this process does it alone.
    """
    if num_proc is None:
        cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        num_proc = min(cpus, rows // ROWS_A_PROCESS, MAX_PROCESSES)
    elif num_proc < 1:
        raise UserError(f"num_proc: {num_proc}, but at least one process must tokenize")
    num_proc = min(num_proc, rows)
    return num_proc if num_proc > 1 else None


@contextmanager
def one_interrupt() -> Iterator[None]:
    """Ctrl-C reaches the workers too: they leave it to this process, which then ends them.

    `map` asks them for results even then, and would end in a TimeoutError.
    """
    this_process, interrupted = os.getpid(), False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        if os.getpid() == this_process:
            interrupted = True
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # else Ctrl-C is ignored, or somebody else's
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception as error:
        if interrupted:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def column(dataset: Dataset, name: str) -> np.ndarray:
    """A column of numbers or words without a Python object for each, in the data set's order."""
    [values] = dataset.select_columns(name).with_format("arrow")[:].columns
    array: np.ndarray = values.to_numpy()
    return array.astype(np.int64) if array.dtype.kind == "i" else array


FEATURES = datasets.Features(
    {
        "row_id": datasets.Value("int64"),
        "turn": datasets.Value("int32"),
        "outcome": datasets.Value("string"),
        "prompt_ids": datasets.List(datasets.Value("int32")),
        "response_ids": datasets.List(datasets.Value("int32")),
        "prompt_tokens": datasets.Value("int32"),
        "response_tokens": datasets.Value("int32"),
    }
)
COLUMNS = tuple(FEATURES)


def count(encoded: Dataset) -> dict[str, int]:
    """Count rows and tokens that can be used, and examples by outcome."""
    outcomes = column(encoded, "outcome")
    used = outcomes != "too_long"
    response_tokens = int(column(encoded, "response_tokens")[used].sum())
    return {
        "rows": len(np.unique(column(encoded, "row_id")[used])),
        "examples": int(used.sum()),
        "tokens": int(column(encoded, "prompt_tokens")[used].sum()) + response_tokens,
        "response_tokens": response_tokens,
    } | {outcome: int((outcomes == outcome).sum()) for outcome in get_args(Outcome)}


def long_rows_message(places: Sequence[str], rows: int, max_length: int) -> str:
    more = " ..." if len(places) > PLACES_SHOWN else ""
    return (
        f"{len(places)} of {rows} rows are longer than max_length {max_length} tokens: "
        f"{', '.join(places[:PLACES_SHOWN])}{more}. Raise max_length, or say what to do with them: "
        "on_long_row: drop | cut_prompt | cut_response"
    )


def cache_key(records: Sequence[Record], prompt: Prompt, policy: Policy) -> str:
    """SHA-256 over rows, template, tokenizer, policy, columns and code version: any change tokenizes anew."""
    digest = hashlib.sha256(f"{prompt_hash(prompt)}{json.dumps(COLUMNS)}{json.dumps(asdict(policy))}".encode())
    for record in records:
        digest.update(f"{record.row_id}:{record.content_hash}\n".encode())
    return digest.hexdigest()
