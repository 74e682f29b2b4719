"""Rows that say the same, exactly or nearly: fingerprints, and MinHash over runs of five characters.

Near ones are found in two steps. A signature of 64 numbers estimates how much of two texts is common; bands of it put
likely pairs together without comparing all. What is likely is then compared exactly.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

RUN = 5  # characters
SIMILAR = 0.8  # of the runs of two texts together are common: near duplicates
NUMBERS, BANDS = 64, 16  # 16 bands of 4: two texts that have 0.8 in common meet in a band with probability 0.9998
LIKELY = 0.6  # estimates err by 0.05 (one standard deviation), so pairs from here on are compared exactly
REACH = 6  # rows with an equal band that a row is compared with, besides the first of them
BEST = 3  # likely pairs of a row that are compared exactly
AT_ONCE = 512  # runs of a text that are hashed together: what stays in the processor's cache
HELD = 25_000  # pairs whose rows are in memory at once while they are compared

_random = np.random.RandomState(0)  # its stream is frozen, so signatures of different runs can be compared
FACTORS = _random.randint(0, 2**62, NUMBERS, dtype=np.int64).astype(np.uint64) * np.uint64(2) + np.uint64(1)
SUMMANDS = _random.randint(0, 2**62, NUMBERS, dtype=np.int64).astype(np.uint64)
MIX = np.uint64(0x9E3779B97F4A7C15)

Pairs = np.ndarray
"""Of shape (n, 2): a row and the one it resembles."""


def fingerprint(text: str) -> int:
    """64 bits of a normalized text: equal texts have equal ones, others practically never."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def runs(text: str) -> np.ndarray:
    """The distinct runs of five characters of a normalized text, each as a hash; uint32, sorted."""
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    if len(letters) < RUN:
        letters = np.pad(letters, (0, RUN - len(letters)))
    hashes = np.zeros(len(letters) - RUN + 1, dtype=np.uint64)
    for place in range(RUN):
        hashes = hashes * MIX + letters[place : len(hashes) + place] + np.uint64(1)
    found = ((hashes ^ (hashes >> np.uint64(29))) * MIX >> np.uint64(32)).astype(np.uint32)
    found.sort()
    return found[np.append(True, found[1:] != found[:-1])]  # np.unique takes three times as long


def signature(runs: np.ndarray) -> np.ndarray:
    """MinHash: two texts agree in about as many of the 64 numbers as they have runs in common; uint16."""
    least = np.full(NUMBERS, 2**64 - 1, dtype=np.uint64)
    for start in range(0, len(runs), AT_ONCE):
        hashes = FACTORS[:, None] * runs[start : start + AT_ONCE].astype(np.uint64)
        hashes += SUMMANDS[:, None]
        least = np.minimum(least, hashes.min(axis=1))
    return (least >> np.uint64(32)).astype(np.uint16)  # 16 bits of each: 1 of 65,536 numbers agrees by chance


def similarity(these: np.ndarray, those: np.ndarray) -> float:
    """The Jaccard index: the share of all their runs that both have."""
    common = len(np.intersect1d(these, those, assume_unique=True))
    return common / (len(these) + len(those) - common)


def likely_pairs(signatures: np.ndarray, rows: np.ndarray, others: np.ndarray | None = None) -> Pairs:
    """For each of `rows` at most BEST others that it may resemble; without `others`, earlier ones of `rows`.

    `rows` and `others` are positions in `signatures`, ascending. Where many rows share a band only some are compared,
    so a pair among many similar rows may be missed; its rows are then paired with others.
    """
    found = [np.empty((0, 2), dtype=np.int64)]
    pool = rows if others is None else others
    width = NUMBERS // BANDS
    for band in range(BANDS):
        # Four numbers of 16 bits are one of 64.
        keys = np.ascontiguousarray(signatures[:, band * width : (band + 1) * width]).view(np.uint64)[:, 0]
        order = np.argsort(keys[pool], kind="stable")
        sorted_keys = keys[pool][order]
        first = np.searchsorted(sorted_keys, keys[rows], side="left")
        if others is None:
            limit = np.empty(len(rows), dtype=np.int64)
            limit[order] = np.arange(len(rows))
            start = np.maximum(first, limit - REACH)
        else:
            limit = np.searchsorted(sorted_keys, keys[rows], side="right")
            start = first + 1
        for place in (first, *(start + step for step in range(REACH))):
            inside = np.flatnonzero(place < limit)
            pairs = np.stack([rows[inside], pool[order[place[inside]]]], axis=1)
            found.append(pairs[estimates(signatures, pairs) >= LIKELY])
    pairs = np.unique(np.concatenate(found), axis=0)
    by_row = np.lexsort((-estimates(signatures, pairs), pairs[:, 0]))
    pairs = pairs[by_row]
    rank = np.arange(len(pairs)) - np.searchsorted(pairs[:, 0], pairs[:, 0], side="left")
    return pairs[rank < BEST]


def estimates(signatures: np.ndarray, pairs: Pairs) -> np.ndarray:
    blocks = (pairs[start : start + 100_000] for start in range(0, len(pairs), 100_000))
    shares = [(signatures[block[:, 0]] == signatures[block[:, 1]]).mean(axis=1) for block in blocks]
    return np.concatenate(shares) if shares else np.empty(0)


def similar_pairs(likely: Sequence[Pairs], texts: Callable[[set[int]], Iterator[tuple[int, str]]]) -> list[Pairs]:
    """Of each set of likely pairs those that are near duplicates, one for each row.

    `texts` gives the normalized texts of the rows it is asked for; it is asked once for every 25,000 pairs, since that
    may mean reading the source again.
    """
    pairs = np.concatenate(likely)
    similar = np.zeros(len(pairs), dtype=bool)
    for start, end in pairwise([*range(0, len(pairs), HELD), len(pairs)]):
        held = {row: runs(text) for row, text in texts(set(pairs[start:end].flatten().tolist()))}
        for place, (row, other) in enumerate(pairs[start:end].tolist(), start):
            similar[place] = similarity(held[row], held[other]) >= SIMILAR
    ends = np.cumsum([len(each) for each in likely])[:-1]
    return [one_of_each(part[kept]) for part, kept in zip(likely, np.split(similar, ends), strict=True)]


def grouped(texts: Sequence[str]) -> list[int]:
    """For each normalized text the place of the first that it nearly repeats, directly or by another; else its own."""
    signatures = np.stack([signature(runs(text)) for text in texts])
    likely = likely_pairs(signatures, np.arange(len(texts)))
    [pairs] = similar_pairs([likely], lambda wanted: ((place, texts[place]) for place in wanted))
    groups = list(range(len(texts)))
    for row, earlier in pairs.tolist():
        groups[row] = groups[earlier]
    return groups


def one_of_each(pairs: Pairs) -> Pairs:
    """The first pair of each row."""
    return pairs[np.unique(pairs[:, 0], return_index=True)[1]]


def first_with(keys: np.ndarray) -> np.ndarray:
    """For each row the first row that has the same key: itself, where nothing before it is equal."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first[inverse]
