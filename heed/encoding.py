"""Records to an Arrow data set of token ids, every row accounted for."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
from datasets import Dataset

from heed import __version__
from heed.errors import UserError
from heed.prompts import Outcome, Prompt, fit
from heed.records import Message, Record

OnLongRow = Literal["error", "drop", "cut_prompt", "cut_response"]
PLACES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class EncodedSplit:
    """One split as the collator wants it: columns row_id, turn, prompt_ids, response_ids."""

    dataset: Dataset
    counts: dict[str, int]
    """rows, examples, tokens and response_tokens that are used; whole, cut_prompt, cut_response, too_long."""
    cache_key: str


def encode_split(records: Sequence[Record], prompt: Prompt, *, max_length: int, on_long_row: OnLongRow) -> EncodedSplit:
    """Tokenize a split with one `datasets.map`, cached by the content of everything the ids depend on.

    A conversation with several assistant turns gives an example for each: what comes before a turn is its prompt.
    Raises UserError when rows are longer than `max_length` and the policy is "error".
    """
    key = cache_key(records, prompt, max_length=max_length, on_long_row=on_long_row)
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
            for turn, message in enumerate(messages):
                if message["role"] == "assistant":
                    encoded, outcome = fit(
                        prompt.encode(messages[: turn + 1]), max_length=max_length, on_long_row=on_long_row
                    )
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
    if too_long and on_long_row == "error":
        raise UserError(long_rows_message([encoded[index]["row_id"] for index in too_long], records, max_length))
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


def long_rows_message(row_ids: Sequence[int], records: Sequence[Record], max_length: int) -> str:
    places = {record.row_id: record.place for record in records}
    shown = ", ".join(places[row_id] for row_id in row_ids[:PLACES_SHOWN])
    return (
        f"{len(row_ids)} of {len(records)} rows are longer than max_length {max_length} tokens: {shown}"
        f"{' ...' if len(row_ids) > PLACES_SHOWN else ''}. Raise max_length, or say what to do with them: "
        "on_long_row: drop | cut_prompt | cut_response"
    )


def cache_key(records: Sequence[Record], prompt: Prompt, *, max_length: int, on_long_row: OnLongRow) -> str:
    """SHA-256 over rows, template, tokenizer, policy and code version: any change tokenizes anew."""
    digest = hashlib.sha256()
    tokenizer = prompt.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    special_tokens = json.dumps({name: str(token) for name, token in tokenizer.special_tokens_map.items()})
    policy = json.dumps([__version__, max_length, on_long_row])
    for part in (prompt.template, vocabulary, special_tokens, policy):
        digest.update(hashlib.sha256(part.encode()).digest())
    for record in records:
        digest.update(f"{record.row_id}:{record.content_hash}\n".encode())
    return digest.hexdigest()
