"""What an encoded example is: ids, and the spans of them that the assistant wrote and that are learned."""

from collections.abc import Mapping
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow
from datasets import Dataset

LossOn = Literal["response", "all"]
Example = Mapping[str, Any]
"""input_ids and spans, [start, end) pairs in order; the other FEATURES describe the example."""
FORMAT = 3  # of the columns and their meaning: kept examples of another one are not read
FEATURES = datasets.Features(
    {
        "row_id": datasets.Value("int64"),
        "turn": datasets.Value("int32"),  # the last of the row that is learned here
        "outcome": datasets.Value("string"),  # what max_length did: whole, cut_prompt, cut_response, too_long
        "apart": datasets.Value("string"),  # why it does not continue the turn before: history, tokens, or nothing
        "input_ids": datasets.List(datasets.Value("int32")),
        "spans": datasets.List(datasets.List(datasets.Value("int32"), length=2)),
        "tokens": datasets.Value("int32"),
        "response_tokens": datasets.Value("int32"),  # those within spans
        "cut_tokens": datasets.Value("int32"),  # those that max_length cut off
    }
)


def learned_places(example: Example, loss_on: LossOn) -> np.ndarray:
    """Places of the tokens that are learned: of the spans, or under `all` of the whole example.

    The first token of an example has nothing before it to be predicted from.
    """
    if loss_on == "all":
        return np.arange(1, len(example["input_ids"]))
    places = [np.arange(max(1, start), end) for start, end in example["spans"]]
    return np.concatenate(places) if places else np.arange(0)


def supervised_tokens(example: Example, loss_on: LossOn) -> int:
    return len(learned_places(example, loss_on))


def prompt_of(example: Example) -> list[int]:
    """What comes before the first answer."""
    ids: list[int] = example["input_ids"]
    return ids[: example["spans"][0][0]] if example["spans"] else ids


def columns(dataset: Dataset) -> pyarrow.Table:
    """The columns with one number or word for each example, in the data set's order."""
    return read_columns(dataset, [name for name, kind in dataset.features.items() if isinstance(kind, datasets.Value)])


def read_columns(dataset: Dataset, names: list[str]) -> pyarrow.Table:
    """Past `datasets`, which gathers the rows of a selection from one batch of the file after the other."""
    table: pyarrow.Table = dataset.data.table.select(names)
    chosen = dataset._indices
    return table if chosen is None else table.combine_chunks().take(chosen.column(0))


def column(dataset: Dataset, name: str) -> np.ndarray:
    """A column of numbers or words without a Python object for each, in the data set's order."""
    [values] = read_columns(dataset, [name]).columns
    array: np.ndarray = values.to_numpy()
    return array.astype(np.int64) if array.dtype.kind == "i" else array


def row_lengths(dataset: Dataset) -> np.ndarray:
    """Tokens of each example of an encoded data set, in its order; int64."""
    return column(dataset, "tokens")
