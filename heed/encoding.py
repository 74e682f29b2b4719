"""Records to an Arrow data set of token ids, every row accounted for."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
from datasets import Dataset

from heed import __version__
from heed.batches import LossOn
from heed.errors import UserError
from heed.prompts import Outcome, Prompt, fit
from heed.records import Message, Record

OnLongRow = Literal["error", "drop", "cut_prompt", "cut_response"]
PLACES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What, beside rows and prompt, decides which ids a model is given."""

    max_length: int
    on_long_row: OnLongRow
    loss_on: LossOn


@dataclass(frozen=True, kw_only=True)
class EncodedSplit:
    """One split as the collator wants it: columns row_id, turn, prompt_ids, response_ids."""

    dataset: Dataset
    counts: dict[str, int]
    """rows, examples, tokens and response_tokens that are used; whole, cut_prompt, cut_response, too_long."""
    cache_key: str


def encode_split(records: Sequence[Record], prompt: Prompt, policy: Policy) -> EncodedSplit:
    """Tokenize a split with one `datasets.map`, cached by the content of everything the ids depend on.

    A conversation with several assistant turns gives an example for each, since what comes before a turn is its
    prompt. Under `loss_on="all"` the last turn's example alone teaches the whole conversation, each token once.
    Raises UserError when rows are longer than `max_length` and `on_long_row` is "error".
    """
    key = cache_key(records, prompt, policy)
    places = {record.row_id: record.place for record in records}
    conversations = Dataset.from_dict(
        {
            "row_id": [record.row_id for record in records],
            "messages": [json.dumps(record.messages) for record in records],
        }
    )

    def encode_rows(rows: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        examples: list[dict[str, Any]] = []
        for row_id, text in zip(rows["row_id"], rows["messages"], strict=True):
            messages: list[Message] = json.loads(text)
            turns = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
            for turn in turns if policy.loss_on == "response" else turns[-1:]:
                try:
                    whole = prompt.encode(messages[: turn + 1])
                except UserError as error:  # a template may be right for most rows and wrong for one
                    raise UserError(f"{places[row_id]}: {error}") from error
                encoded, outcome = fit(whole, max_length=policy.max_length, on_long_row=policy.on_long_row)
                examples.append({"row_id": row_id, "turn": turn, "outcome": outcome} | encoded._asdict())
        return {name: [example[name] for example in examples] for name in COLUMNS}

    folder = Path(datasets.config.HF_DATASETS_CACHE) / "heed"
    folder.mkdir(parents=True, exist_ok=True)
    encoded = conversations.map(
        encode_rows,
        batched=True,
        remove_columns=conversations.column_names,
        features=FEATURES,
        cache_file_name=str(folder / f"{key}.arrow"),
        new_fingerprint=key,
        desc="Tokenizing",
    )
    outcomes: list[Outcome] = list(encoded["outcome"])
    too_long = [index for index, outcome in enumerate(outcomes) if outcome == "too_long"]
    if too_long and policy.on_long_row == "error":
        long = [places[encoded[index]["row_id"]] for index in too_long]
        raise UserError(long_rows_message(long, len(records), policy.max_length))
    if too_long:
        encoded = encoded.select([index for index, outcome in enumerate(outcomes) if outcome != "too_long"])
    return EncodedSplit(dataset=encoded.remove_columns("outcome"), counts=count(encoded, outcomes), cache_key=key)


FEATURES = datasets.Features(
    {
        "row_id": datasets.Value("int64"),
        "turn": datasets.Value("int32"),
        "outcome": datasets.Value("string"),
        "prompt_ids": datasets.List(datasets.Value("int32")),
        "response_ids": datasets.List(datasets.Value("int32")),
    }
)
COLUMNS = tuple(FEATURES)


def count(encoded: Dataset, outcomes: Sequence[Outcome]) -> dict[str, int]:
    tally = Counter(outcomes)
    prompt_tokens = sum(map(len, encoded["prompt_ids"]))
    response_tokens = sum(map(len, encoded["response_ids"]))
    return {
        "rows": len(set(encoded["row_id"])),
        "examples": len(encoded),
        "tokens": prompt_tokens + response_tokens,
        "response_tokens": response_tokens,
        "whole": tally["whole"],
        "cut_prompt": tally["cut_prompt"],
        "cut_response": tally["cut_response"],
        "too_long": tally["too_long"],
    }


def long_rows_message(places: Sequence[str], rows: int, max_length: int) -> str:
    more = " ..." if len(places) > PLACES_SHOWN else ""
    return (
        f"{len(places)} of {rows} rows are longer than max_length {max_length} tokens: "
        f"{', '.join(places[:PLACES_SHOWN])}{more}. Raise max_length, or say what to do with them: "
        "on_long_row: drop | cut_prompt | cut_response"
    )


def cache_key(records: Sequence[Record], prompt: Prompt, policy: Policy) -> str:
    """SHA-256 over rows, template, tokenizer, policy and code version: any change tokenizes anew."""
    digest = hashlib.sha256()
    tokenizer = prompt.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    special_tokens = json.dumps({name: str(token) for name, token in tokenizer.special_tokens_map.items()})
    for part in (__version__, prompt.template, vocabulary, special_tokens, json.dumps(asdict(policy))):
        digest.update(hashlib.sha256(part.encode()).digest())
    for record in records:
        digest.update(f"{record.row_id}:{record.content_hash}\n".encode())
    return digest.hexdigest()
