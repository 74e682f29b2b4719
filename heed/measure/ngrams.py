"""How many n-grams two texts have in common, of every length at once: what chrF and BLEU are made of.

sacrebleu makes a string or tuple of each n-gram and counts them one by one, which took most of an evaluation.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

AT_ONCE = 1 << 16  # units of texts that are counted together: what stays in the processor's cache


def in_common(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], longest: int) -> np.ndarray:
    """For each pair of texts the n-grams of 1 to `longest` units in both, each as often as the rarer side has it.

    A text is an array of whole numbers, one for each unit (character or word). Shape (pairs, longest).
    """
    found = [np.zeros((0, longest), dtype=int)]
    for place in pieces([len(mine) + len(yours) for mine, yours in zip(ours, theirs, strict=True)]):
        found.append(in_common_of_few(ours[place], theirs[place], longest))
    return np.concatenate(found)


def pieces(lengths: Sequence[int]) -> Iterator[slice]:
    """Neighbours that are about AT_ONCE long together."""
    start, size = 0, 0
    for place, length in enumerate(lengths, 1):
        size += length
        if size >= AT_ONCE or place == len(lengths):
            yield slice(start, place)
            start, size = place, 0


def in_common_of_few(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], longest: int) -> np.ndarray:
    """The same, of so few that each n-gram can be one number.

    Its first unit is in the highest bits, so one sort puts equal n-grams of every length next to each other.
    """
    texts = [text for pair in zip(ours, theirs, strict=True) for text in pair]
    lengths = np.array([len(text) for text in texts])
    units = np.concatenate(texts).astype(np.int64)
    there = np.zeros(units.max(initial=0) + 1, dtype=bool)
    there[units] = True
    bits = int(there.sum()).bit_length()  # 0 is no unit
    if bits * longest + 1 > 63:
        if len(ours) == 1:
            return np.array([[counted(ours[0], theirs[0], n) for n in range(1, longest + 1)]])
        halves = slice(len(ours) // 2), slice(len(ours) // 2, None)
        return np.concatenate([in_common_of_few(ours[half], theirs[half], longest) for half in halves])
    gap = longest - 1  # so that none reaches into the next text
    places = np.arange(len(units)) + np.repeat(np.arange(len(texts)) * gap, lengths)
    spread = np.zeros(len(units) + len(texts) * gap, dtype=np.int64)
    spread[places] = np.cumsum(there)[units]
    ngrams = np.zeros(len(units), dtype=np.int64)
    for further in range(longest):
        ngrams = ngrams << bits | spread[places + further]
    ngrams = ngrams << 1 | np.repeat(np.arange(len(texts)) % 2, lengths)  # the last bit says whose it is
    ends = np.cumsum(lengths)[1::2]
    for start, end in pairwise([0, *ends.tolist()]):
        ngrams[start:end].sort()
    theirs_before = np.append(0, np.cumsum(ngrams & 1))
    last = (1 << bits) - 1
    counts = []
    for n in range(1, longest + 1):
        short = ngrams >> (1 + bits * (longest - n))
        new = np.append(True, short[1:] != short[:-1])[: len(short)]
        new[ends[ends < len(short)]] = True
        groups = np.flatnonzero(new)
        edges = np.append(groups, len(short))
        sizes, of_theirs = np.diff(edges), np.diff(theirs_before[edges])
        within = short[groups] & last != 0  # not beyond the end of its text
        sums = np.append(0, np.cumsum(np.minimum(sizes - of_theirs, of_theirs) * within))
        counts.append(np.diff(sums[np.searchsorted(groups, ends)], prepend=0))
    return np.stack(counts, axis=1)


def counted(ours: np.ndarray, theirs: np.ndarray, n: int) -> int:
    """One pair and one length, for texts with more different units than fit into numbers."""
    each = (Counter(zip(*(text[start:].tolist() for start in range(n)), strict=False)) for text in (ours, theirs))
    return (next(each) & next(each)).total()
