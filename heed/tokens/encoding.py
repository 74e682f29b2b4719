"""Records to an Arrow data set of token ids, every row accounted for."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, get_args

import datasets
import numpy as np
import pyarrow
from datasets import Dataset

from heed import workers
from heed.data.records import Message, Record, learned_turns
from heed.errors import UserError
from heed.prompts.hashes import prompt_hash
from heed.prompts.template import Prompt
from heed.saying import Progress
from heed.tokens.examples import FEATURES, FORMAT, LossOn, column, columns, row_lengths
from heed.tokens.lengths import OnLongRow, Outcome, fit
from heed.tokens.shards import read_whole, whole_file

PLACES_SHOWN = 5
CHUNK = 500  # rows that a process tokenizes in one go


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What decides, besides rows and prompt, which ids a model is given."""

    max_length: int
    on_long_row: OnLongRow
    loss_on: LossOn


@dataclass(frozen=True, kw_only=True)
class EncodedSplit:
    """One split as the collator takes it, every example with the number of its tokens."""

    dataset: Dataset
    """Columns as `examples.FEATURES` has them."""
    counts: dict[str, int]
    """As `count` gives them."""
    cache_key: str

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, in the order of `dataset`; int64."""
        return row_lengths(self.dataset)


def encode_split(
    records: Sequence[Record], prompt: Prompt, policy: Policy, *, num_proc: int | None = None
) -> EncodedSplit:
    """Tokenize a split once; the ids are cached by the content of everything they depend on.

    `num_proc` processes share the work (None: as many as pay off) and change neither the ids nor the cache.
    Raises UserError when rows are longer than `max_length` and `on_long_row` is "error".
    """
    key = cache_key(records, prompt, policy)
    path = cache_file(key)
    encoded = read_whole(path)
    if encoded is None:
        write_tokens(path, records, prompt, policy, workers.how_many(len(records), num_proc))
        encoded = Dataset.from_file(str(path))
    return usable(encoded, records, policy, key)


def take_split(path: Path, records: Sequence[Record], policy: Policy) -> EncodedSplit:
    """A split's examples, out of those that the audit kept of the whole source, in the order of the records."""
    encoded = Dataset.from_file(str(path))
    row_ids = column(encoded, "row_id")
    ranks = np.full(int(row_ids.max(initial=-1)) + 1, -1)
    ranks[[record.row_id for record in records]] = np.arange(len(records))
    chosen = np.flatnonzero(ranks[row_ids] >= 0)
    chosen = chosen[np.argsort(ranks[row_ids[chosen]], kind="stable")]
    return usable(encoded.select(chosen), records, policy, path.stem)


def usable(encoded: Dataset, records: Sequence[Record], policy: Policy, key: str) -> EncodedSplit:
    """Leaves out and counts what is too long. Raises UserError for it if on_long_row is "error"."""
    counts = count(columns(encoded))
    if counts["too_long"]:
        too_long = column(encoded, "outcome") == "too_long"
        if policy.on_long_row == "error":
            places = {record.row_id: record.place for record in records}
            long = [places[row_id] for row_id in np.unique(column(encoded, "row_id")[too_long])]
            raise UserError(long_rows_message(long, len(records), policy.max_length))
        encoded = encoded.select(np.flatnonzero(~too_long))
    return EncodedSplit(dataset=encoded, counts=counts, cache_key=key)


def write_tokens(path: Path, records: Sequence[Record], prompt: Prompt, policy: Policy, count: int) -> None:
    work = partial(encode_rows, prompt=prompt, policy=policy)
    chunks = (records[start : start + CHUNK] for start in range(0, len(records), CHUNK))
    bar = Progress("tokenizing", len(records))
    with whole_file(path) as file, bar, closing(workers.in_order(work, chunks, count, task="tokenizes")) as tables:
        for table in tables:
            file.write_table(table)
            bar.update(CHUNK)


def cache_file(key: str) -> Path:
    return Path(datasets.config.HF_DATASETS_CACHE) / "heed" / f"{key}.arrow"


def encode_rows(records: Sequence[Record], prompt: Prompt, policy: Policy) -> pyarrow.Table:
    """The examples of some records, in their order; columns as FEATURES has them."""
    examples = [example for record in records for example in encode_row(record, prompt, policy)]
    return pyarrow.Table.from_pylist(examples, schema=FEATURES.arrow_schema)


def encode_row(record: Record, prompt: Prompt, policy: Policy) -> list[dict[str, Any]]:
    """The examples of a conversation, too long ones among them.

    An answer continues the example before it when that example is, id for id, the beginning of what generation would be
    given here; if that is true throughout, a conversation is one example. Otherwise the answer and all that comes
    before it are a new example. `max_length` applies to every answer with all that comes before it, so what fits is
    learned as if each answer were alone. Under `loss_on: all` the last example teaches the whole conversation, each
    token once.
    """
    found: list[dict[str, Any]] = []
    turns = learned_turns(record.messages)
    try:
        wholes = prompt.encode_answers(record.messages, turns)
    except UserError as error:  # a template may be right for most rows and wrong for one
        way_out = " (on_bad_row: drop leaves such rows out)" if prompt.refusal(record) else ""
        raise UserError(f"{record.place}: {error}{way_out}") from error
    for turn, whole in zip(turns, wholes, strict=True):
        encoded, outcome = fit(whole, max_length=policy.max_length, on_long_row=policy.on_long_row)
        spans, apart = list(encoded.spans), ""
        if found and found[-1]["outcome"] == "whole" and outcome in ("whole", "cut_response"):
            before = found[-1]
            if encoded.input_ids[: spans[0][0]][: before["tokens"]] == before["input_ids"]:
                spans = [*before["spans"], *spans]
                apart = before["apart"]
                found.pop()
            else:
                apart = why_apart(record.messages, before["turn"], turn, prompt)
        found.append(
            {
                "row_id": record.row_id,
                "turn": turn,
                "outcome": outcome,
                "apart": apart,
                "input_ids": encoded.input_ids,
                "spans": spans,
                "tokens": len(encoded.input_ids),
                "response_tokens": sum(end - start for start, end in spans),
                "cut_tokens": len(whole.input_ids) - len(encoded.input_ids),
            }
        )
    return found if policy.loss_on == "response" else [found[-1] | {"apart": ""}]


def why_apart(messages: Sequence[Message], before: int, turn: int, prompt: Prompt) -> str:
    """Why what was learned up to the turn `before` is not the beginning of a later turn's prompt.

    "history": the template shows it differently, perhaps without its thinking; "tokens": it has other tokens there.
    """
    then = prompt.render(messages[: before + 1], generation_prompt=False)
    return "tokens" if prompt.render(messages[:turn], generation_prompt=True).startswith(then) else "history"


OUTCOMES = {
    "cut_prompt": "with the beginning of the prompt cut off",
    "cut_response": "with the end of the response and EOS cut off",
    "too_long": "dropped",
}
APART = {
    "history": "the template shows earlier turns differently from how they were learned",
    "tokens": "earlier turns have other tokens in the next prompt",
}


def accounted(counts: Mapping[str, int], max_length: int) -> list[str]:
    """Lines on what became of answers over `max_length`, and of conversations that are several examples."""
    cut = [f"{counts[reason]:,} {text}" for reason, text in OUTCOMES.items() if counts[reason]]
    lines = [f"          longer than max_length {max_length}: {', '.join(cut)}"] if cut else []
    return lines + [
        f"          {counts[f'apart_{reason}']:,} answers do not continue the example before: {text}"
        for reason, text in APART.items()
        if counts[f"apart_{reason}"]
    ]


COUNTS = ("rows", "examples", "tokens", "response_tokens", *get_args(Outcome), *(f"apart_{reason}" for reason in APART))


def count(table: pyarrow.Table) -> dict[str, int]:
    """By COUNTS: rows, examples and tokens that are used; examples by outcome; those that do not continue the turn
    before them, by reason."""
    values = {name: table[name].to_numpy() for name in ("row_id", "outcome", "apart", "tokens", "response_tokens")}
    used = values["outcome"] != "too_long"
    return {
        "rows": len(np.unique(values["row_id"][used])),
        "examples": int(used.sum()),
        "tokens": int(values["tokens"][used].sum(dtype=np.int64)),
        "response_tokens": int(values["response_tokens"][used].sum(dtype=np.int64)),
        **{outcome: int((values["outcome"] == outcome).sum()) for outcome in get_args(Outcome)},
        **{f"apart_{reason}": int((values["apart"] == reason).sum()) for reason in APART},
    }


def long_rows_message(places: Sequence[str], rows: int, max_length: int) -> str:
    more = " ..." if len(places) > PLACES_SHOWN else ""
    return (
        f"{len(places)} of {rows} rows are longer than max_length {max_length} tokens: "
        f"{', '.join(places[:PLACES_SHOWN])}{more}. Raise max_length, or say what to do with them: "
        "on_long_row: drop | cut_prompt | cut_response"
    )


def cache_key(records: Sequence[Record], prompt: Prompt, policy: Policy) -> str:
    """SHA-256 over rows, template, tokenizer, policy, format and code version: any change tokenizes again."""
    digest = hashlib.sha256(f"{prompt_hash(prompt)}{FORMAT}{FEATURES}{json.dumps(asdict(policy))}".encode())
    for record in records:
        digest.update(f"{record.row_id}:{record.content_hash}\n".encode())
    return digest.hexdigest()
