"""Some rows of a set that is being prepared: checked, split and tokenized by one process."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow

from heed.data.records import RawRow, Record, Rejected
from heed.data.rows import check_row
from heed.data.shapes import Shape
from heed.data.sources import source_name, where_dropped
from heed.data.splits import SPLITS, SplitName
from heed.tokens.encoding import count, encode_rows
from heed.tokens.recipe import Recipe, how_often

CHUNK = 1000  # rows that are tokenized at once


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What a process makes of some rows."""

    train: pyarrow.Table
    held_out: dict[SplitName, list[Record]]
    rejected: list[Rejected]
    hashes: list[str]
    counts: Counter[str]
    unused: Counter[tuple[str, str]]
    long: list[str]


def numbered(head: Sequence[RawRow], rest: Iterator[RawRow]) -> Iterator[tuple[int, list[RawRow]]]:
    """Chunks of rows, each with the number of its first."""
    first, rows = 0, list(head)
    while rows:
        yield first, rows
        first += len(rows)
        rows = list(islice(rest, CHUNK))


def make_chunk(chunk: tuple[int, list[RawRow]], recipe: Recipe, shape: Shape) -> Chunk:
    """Check, split and tokenize rows, given with the number of the first."""
    first, rows = chunk
    held_out: dict[SplitName, list[Record]] = {name: [] for name in SPLITS if name != "train"}
    train: list[Record] = []
    times: dict[int, int] = {}
    rejected, hashes, counts, unused = [], [], Counter[str](), Counter[tuple[str, str]]()
    refusal = where_dropped(recipe.source, recipe.prompt.refusal)
    for number, row in enumerate(rows, start=first):
        checked = check_row(number, row, shape, refusal)
        if isinstance(checked, Rejected):
            rejected.append(checked)
            continue
        unused.update(checked.unused)
        hashes.append(checked.content_hash)
        splits = recipe.splits_of(checked)
        counts.update([f"in {split}" for split in splits] or ["in no split"])
        for split in splits:
            if split != "train":
                held_out[split].append(checked)
        if "train" in splits:
            name = source_name(checked.place)
            times[number] = how_often(checked, recipe.weight(name))
            counts[f"from {name}"] += times[number]
            if times[number]:
                train.append(checked)
    table = encode_rows(train, recipe.prompt, recipe.policy)
    repeats = [times[row_id] for row_id in table["row_id"].to_pylist()]
    table = table.take(np.repeat(np.arange(table.num_rows), repeats))
    kept = table["outcome"].to_numpy() != "too_long"
    places = {record.row_id: record.place for record in train}
    long = [places[row_id] for row_id in np.unique(table["row_id"].to_numpy()[~kept])]
    counts.update(count(table), read=len(rows), rejected=len(rejected))
    table = table.filter(pyarrow.array(kept, type=pyarrow.bool_()))
    return Chunk(
        train=table, held_out=held_out, rejected=rejected, hashes=hashes, counts=counts, unused=unused, long=long
    )
