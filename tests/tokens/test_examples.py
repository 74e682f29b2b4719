import numpy as np
import pyarrow
from datasets import Dataset, concatenate_datasets

from heed.tokens.examples import FEATURES, column, columns


def examples(first: int) -> Dataset:
    rows = [
        {name: None for name in FEATURES} | {"row_id": first + row, "outcome": "whole", "input_ids": [], "spans": []}
        for row in range(3)
    ]
    return Dataset(pyarrow.Table.from_pylist(rows, schema=FEATURES.arrow_schema))


def test_a_column_follows_the_order_of_what_was_selected_from_several_files() -> None:
    both = concatenate_datasets([examples(0), examples(10)])
    assert column(both, "row_id").tolist() == [0, 1, 2, 10, 11, 12]
    chosen = both.select([5, 0, 3, 1]).select([0, 2, 3])
    assert column(chosen, "row_id").tolist() == [12, 10, 1] and column(chosen, "row_id").dtype == np.int64
    assert columns(chosen)["row_id"].to_pylist() == [12, 10, 1]
    assert "input_ids" not in columns(chosen).column_names
    assert column(both.select([]), "row_id").tolist() == []
