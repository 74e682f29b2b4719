"""Enough combinations that every pair of values meets, in place of all of them."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any


def pairwise(options: Mapping[str, Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Combinations of one value of each option, in which every two values of two options meet at least once.

    Chosen greedily from the full product: not the fewest possible, but few.
    """

    def pairs(row: tuple[int, ...]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        return combinations(enumerate(row), 2)

    rows = list(product(*(range(len(values)) for values in options.values())))
    missing = {pair for row in rows for pair in pairs(row)}
    chosen = []
    while missing:
        best = max(rows, key=lambda row: len(missing.intersection(pairs(row))))
        missing.difference_update(pairs(best))
        chosen.append(best)
    return [tuple(values[index] for values, index in zip(options.values(), row, strict=True)) for row in chosen]
