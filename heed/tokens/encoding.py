"""Records to an Arrow data set of token ids, every row accounted for."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

import datasets
import numpy as np
import pyarrow
from datasets import Dataset
from tqdm.auto import tqdm

from heed import workers
from heed.data.records import Message, Record
from heed.errors import UserError
from heed.prompts.hashes import prompt_hash
from heed.prompts.template import Encoded, Prompt
from heed.tokens.batches import LossOn
from heed.tokens.examples import FEATURES, column, row_lengths
from heed.tokens.lengths import Outcome, fit
from heed.tokens.shards import whole_file

OnLongRow = Literal["error", "drop", "cut_prompt", "cut_response"]
PLACES_SHOWN = 5
CHUNK = 500  # rows that a process tokenizes in one go


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


def encode_split(
    records: Sequence[Record], prompt: Prompt, policy: Policy, *, num_proc: int | None = None
) -> EncodedSplit:
    """Tokenize a split once; the ids are cached by the content of everything they depend on.

    A conversation with several assistant turns gives an example for each, since what comes before a turn is its
    prompt. Under `loss_on="all"` the last turn's example alone teaches the whole conversation, each token once.
    `num_proc` processes share the work, None for as many as pay; they change neither the ids nor the cache.
    Raises UserError when rows are longer than `max_length` and `on_long_row` is "error".
    """
    key = cache_key(records, prompt, policy)
    path = cache_file(key)
    if not path.is_file():
        write_tokens(path, records, prompt, policy, workers.how_many(len(records), num_proc))
    encoded = Dataset.from_file(str(path))
    counts = count(encoded)
    if counts["too_long"]:
        too_long = column(encoded, "outcome") == "too_long"
        if policy.on_long_row == "error":
            places = {record.row_id: record.place for record in records}
            long = [places[row_id] for row_id in column(encoded, "row_id")[too_long]]
            raise UserError(long_rows_message(long, len(records), policy.max_length))
        encoded = encoded.select(np.flatnonzero(~too_long))
    return EncodedSplit(dataset=encoded, counts=counts, cache_key=key)


def write_tokens(path: Path, records: Sequence[Record], prompt: Prompt, policy: Policy, count: int) -> None:
    work = partial(encode_rows, prompt=prompt, policy=policy)
    chunks = (records[start : start + CHUNK] for start in range(0, len(records), CHUNK))
    bar = tqdm(desc="Tokenizing", total=len(records), unit=" rows", unit_scale=True, disable=None, leave=False)
    with whole_file(path) as file, bar, closing(workers.in_order(work, chunks, count, task="tokenizes")) as tables:
        for table in tables:
            file.write_table(table)
            bar.update(CHUNK)


def cache_file(key: str) -> Path:
    return Path(datasets.config.HF_DATASETS_CACHE) / "heed" / f"{key}.arrow"


def encode_records(records: Sequence[Record], prompt: Prompt, policy: Policy) -> list[dict[str, Any]]:
    """The examples of a few records as `encode_split` makes them, too long ones among them."""
    examples: list[dict[str, Any]] = encode_rows(records, prompt, policy).to_pylist()
    return examples


OUTCOMES = {
    "cut_prompt": "with the beginning of the prompt cut off",
    "cut_response": "with the end of the response and EOS cut off",
    "too_long": "dropped",
}


def told_long(counts: Mapping[str, int], max_length: int) -> list[str]:
    """A line on what became of examples that are longer than `max_length`, if there are any."""
    told = [f"{counts[reason]:,} {text}" for reason, text in OUTCOMES.items() if counts[reason]]
    return [f"          longer than max_length {max_length}: {', '.join(told)}"] if told else []


def encode_rows(records: Sequence[Record], prompt: Prompt, policy: Policy) -> pyarrow.Table:
    """The examples of some records, in their order; columns as FEATURES has them."""
    examples: list[dict[str, Any]] = []
    for record in records:
        for turn, whole in encode_turns(record.messages, prompt, policy.loss_on, record.place):
            encoded, outcome = fit(whole, max_length=policy.max_length, on_long_row=policy.on_long_row)
            lengths = {"prompt_tokens": len(encoded.prompt_ids), "response_tokens": len(encoded.response_ids)}
            examples.append({"row_id": record.row_id, "turn": turn, "outcome": outcome} | encoded._asdict() | lengths)
    return pyarrow.Table.from_pylist(examples, schema=FEATURES.arrow_schema)


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
    digest = hashlib.sha256(f"{prompt_hash(prompt)}{FEATURES}{json.dumps(asdict(policy))}".encode())
    for record in records:
        digest.update(f"{record.row_id}:{record.content_hash}\n".encode())
    return digest.hexdigest()
