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
    units = np.concatenate(texts)
    there = np.zeros(int(units.max(initial=0)) + 1, dtype=bool)
    there[units] = True
    beyond = int(there.sum()) + 1  # the units that are there are 1 and up, what follows one's text is 0 or this
    bits = beyond.bit_length()
    if bits * longest + 1 > 63:
        if len(ours) == 1:
            return np.array([[counted(ours[0], theirs[0], n) for n in range(1, longest + 1)]])
        halves = slice(len(ours) // 2), slice(len(ours) // 2, None)
        return np.concatenate([in_common_of_few(ours[half], theirs[half], longest) for half in halves])
    gap = longest - 1  # so that none reaches into the next text
    whose = np.arange(len(texts)) % 2
    places = np.arange(len(units)) + np.repeat(np.arange(len(texts)) * gap, lengths)
    spread = np.repeat(whose * beyond, lengths + gap)  # beyond their ends the two never have the same
    spread[places] = np.cumsum(there)[units]
    ngrams = np.zeros(len(spread), dtype=np.int64)
    for further in range(longest):
        ngrams <<= bits
        ngrams[: len(spread) - further] |= spread[further:]
    ngrams = ngrams[places] << 1 | np.repeat(whose, lengths)  # the last bit says whose it is
    ends = np.append(0, np.cumsum(lengths)[1::2])
    for start, end in pairwise(ends.tolist()):
        ngrams[start:end].sort()
    surplus = np.append(0, np.cumsum(1 - 2 * (ngrams & 1), dtype=np.int32))  # of ours, up to each place
    changes = np.append(ngrams[:1], ngrams[1:] ^ ngrams[:-1])
    changes[ends[ends < len(ngrams)]] = 2**63 - 1
    counts = []
    for n in range(1, longest + 1):
        groups = np.flatnonzero(changes >= 1 << (1 + bits * (longest - n)))
        alone = np.append(0, np.cumsum(np.abs(np.diff(surplus[np.append(groups, len(ngrams))]))))
        counts.append(lengths[::2] + lengths[1::2] - np.diff(alone[np.searchsorted(groups, ends)]))
    return np.stack(counts, axis=1) // 2


def counted(ours: np.ndarray, theirs: np.ndarray, n: int) -> int:
    """One pair and one length, for texts with more different units than fit into numbers."""
    each = (Counter(zip(*(text[start:].tolist() for start in range(n)), strict=False)) for text in (ours, theirs))
    return (next(each) & next(each)).total()
