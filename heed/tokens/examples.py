"""What an encoded example is, as columns of an Arrow data set."""

import datasets
import numpy as np
from datasets import Dataset

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


def column(dataset: Dataset, name: str) -> np.ndarray:
    """A column of numbers or words without a Python object for each, in the data set's order."""
    [values] = dataset.select_columns(name).with_format("arrow")[:].columns
    array: np.ndarray = values.to_numpy()
    return array.astype(np.int64) if array.dtype.kind == "i" else array


def row_lengths(dataset: Dataset) -> np.ndarray:
    """Tokens of each example of an encoded data set, prompt and response together, in its order; int64."""
    return column(dataset, "prompt_tokens") + column(dataset, "response_tokens")
