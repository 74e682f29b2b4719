"""Rows of ids as paths through a tree that has each shared beginning once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

# Sharing less than this would cost more, in attention over one more segment, than the tokens it saves.
LEAST = 8


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The ids from `begin` to `end` of one row, or of several that share them."""

    row: int
    """One of the rows that have it."""
    begin: int
    end: int
    parent: int | None
    """The number of the segment before it, which ends where this one begins."""

    def __len__(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Segments, parents before children; and for each row the numbers of its segments, in order."""

    segments: list[Segment]
    paths: list[list[int]]

    def path(self, number: int) -> list[int]:
        """A segment and all before it, from the beginning of its rows."""
        found = [number]
        while (parent := self.segments[found[-1]].parent) is not None:
            found.append(parent)
        return found[::-1]


def apart(rows: Sequence[list[int]]) -> Tree:
    """Every row a segment, nothing shared."""
    segments = [Segment(row=number, begin=0, end=len(row), parent=None) for number, row in enumerate(rows)]
    return Tree(segments=segments, paths=[[number] for number in range(len(rows))])


def shared(rows: Sequence[list[int]]) -> Tree:
    """A beginning that rows have in common is one segment, if that saves LEAST tokens.

    Siblings are in the order of their first rows, so rows that share nothing stay as they were given.
    """
    order = sorted(range(len(rows)), key=rows.__getitem__)
    arrays = [np.asarray(rows[number]) for number in order]
    common = [common_length(one, other) for one, other in pairwise(arrays)]
    segments: list[Segment] = []
    paths: list[list[int]] = [[] for _ in rows]
    # (first, last, begin, parent): rows order[first:last] share the segments up to `parent`, and go on at `begin`.
    waiting: list[tuple[int, int, int, int | None]] = [(0, len(rows), 0, None)]
    while waiting:
        first, last, begin, parent = waiting.pop()
        members = order[first:last]
        alone = len(members) == 1
        end = len(rows[members[0]]) if alone else min(common[first : last - 1])
        if end > begin and (alone or (len(members) - 1) * (end - begin) >= LEAST):
            segments.append(Segment(row=min(members), begin=begin, end=end, parent=parent))
            begin, parent = end, len(segments) - 1
            for member in members:
                paths[member].append(parent)
        if not alone:
            cuts = [place + 1 for place in range(first, last - 1) if common[place] == end]
            parts = list(zip([first, *cuts], [*cuts, last], strict=True))
            parts.sort(key=lambda part: min(order[part[0] : part[1]]), reverse=True)
            waiting += [(*part, begin, parent) for part in parts]
    return Tree(segments=segments, paths=paths)


def families(prompts: Iterable[list[int]]) -> np.ndarray:
    """A family number for each prompt: prompts that begin with the whole of a shorter one belong to its family; int64.

    Such are several answers to one question, and the turns of a conversation that became separate examples.
    """
    keys = [np.asarray(prompt, dtype=">i4").tobytes() for prompt in prompts]  # sorted as the ids would be
    found = np.zeros(len(keys), dtype=np.int64)
    family, first = -1, b""
    for place in sorted(range(len(keys)), key=keys.__getitem__):
        if not first or not keys[place].startswith(first):
            family, first = family + 1, keys[place]
        found[place] = family
    return found


def common_length(one: np.ndarray, other: np.ndarray) -> int:
    """How many ids two rows both begin with."""
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length


def shared_prefix(rows: Sequence[list[int]]) -> int:
    """How many ids all rows begin with, without the shortest row's last: every row keeps a part of its own."""
    if len(rows) < 2:
        return 0
    # The smallest and the largest in lexicographic order differ first where any two do.
    return min(common_length(np.asarray(min(rows)), np.asarray(max(rows))), min(map(len, rows)) - 1)
