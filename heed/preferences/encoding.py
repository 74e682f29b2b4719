"""Pairs as ids: the prompt as generation would be given it, and both answers to it."""

from collections.abc import Sequence
from typing import Any

import datasets
from datasets import Dataset

from heed.data.splits import SplitName, Splits
from heed.errors import UserError
from heed.preferences.pairs import Pair, Pairs
from heed.prompts.template import Prompt
from heed.saying import Say, count

FEATURES = datasets.Features(
    {
        "row_id": datasets.Value("int64"),  # the pair's position in the file
        "prompt_ids": datasets.List(datasets.Value("int32")),
        "chosen_ids": datasets.List(datasets.Value("int32")),
        "rejected_ids": datasets.List(datasets.Value("int32")),
        "tokens": datasets.Value("int32"),  # of the prompt with the longer answer
        "response_tokens": datasets.Value("int32"),  # of both answers
    }
)


LEARNED: tuple[SplitName, ...] = ("train", "validation")
Counts = dict[str, int]


def encode_splits(
    pairs: Pairs, splits: Splits, prompt: Prompt, max_length: int, on_long_row: str, say: Say
) -> tuple[dict[SplitName, Dataset], dict[SplitName, Counts]]:
    """The pairs to learn from and those to measure on, with counts. Raises UserError where none is short enough."""
    encoded: dict[SplitName, Dataset] = {}
    counts: dict[SplitName, Counts] = {}
    for name in LEARNED:
        ids = [record.row_id for record in splits[name]]
        encoded[name], told = encode(ids, [pairs.pairs[number] for number in ids], prompt, max_length, on_long_row)
        counts[name] = told
        say(f"tokens    {name}: {told['tokens']:,} in {count(told['examples'], 'pair')}")
        if told["too_long"]:
            say(f"          {count(told['too_long'], 'pair')} over max_length {max_length} left out")
        if not told["examples"] and splits[name]:
            raise UserError(f"no {name} pair is left within max_length {max_length}")
    return encoded, counts


def encode(
    ids: Sequence[int], pairs: Sequence[Pair], prompt: Prompt, max_length: int, on_long_row: str
) -> tuple[Dataset, Counts]:
    """Both answers of each pair as training and generation would have them, and counts.

    The ids of the prompt are those of generation, and each answer ends in the token that stops. Raises UserError for
    pairs over `max_length` unless they are dropped.
    """
    rows: list[dict[str, Any]] = []
    too_long = []
    for number, pair in zip(ids, pairs, strict=True):
        try:
            prompt_ids, chosen, rejected = encode_pair(pair, prompt)
        except UserError as error:
            raise UserError(f"{pair.place}: {error}") from error
        tokens = len(prompt_ids) + max(len(chosen), len(rejected))
        if tokens > max_length:
            too_long.append((tokens, pair.place))
            continue
        rows.append(
            {
                "row_id": number,
                "prompt_ids": prompt_ids,
                "chosen_ids": chosen,
                "rejected_ids": rejected,
                "tokens": tokens,
                "response_tokens": len(chosen) + len(rejected),
            }
        )
    if too_long and on_long_row == "error":
        tokens, place = max(too_long)
        raise UserError(
            f"{place}: {tokens} tokens, and {count(len(too_long), 'pair')} in all over max_length {max_length}; raise "
            "it, or leave them out with on_long_row: drop"
        )
    counts = {
        "rows": len(rows) + len(too_long),
        "examples": len(rows),
        "tokens": sum(row["tokens"] for row in rows),
        "response_tokens": sum(row["response_tokens"] for row in rows),
        "cut_prompt": 0,
        "cut_response": 0,
        "too_long": len(too_long),
    }
    return Dataset.from_list(rows, features=FEATURES), counts


def encode_pair(pair: Pair, prompt: Prompt) -> tuple[list[int], list[int], list[int]]:
    """Ids of the prompt, of the chosen answer and of the rejected one."""
    found = []
    for text in (pair.chosen, pair.rejected):
        ids, [(start, end)] = prompt.encode([*pair.prompt, {"role": "assistant", "content": text}])
        found.append((ids[:start], ids[start:end]))
    (prompt_ids, chosen), (same, rejected) = found
    assert prompt_ids == same, "the prompt does not depend on the answer"
    return prompt_ids, chosen, rejected
