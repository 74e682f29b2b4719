"""What shows only when rows are compared with each other."""

from collections.abc import Callable, Iterator

import numpy as np

from heed.audit import duplicates
from heed.audit.row import BIT, FAR_OUT
from heed.data.splits import SPLITS, UNUSED


def compare(
    table: np.ndarray, signatures: np.ndarray, text_of: Callable[[set[int]], Iterator[tuple[int, str]]]
) -> None:
    """Flag what rows are only in relation to others: duplicates, near ones, other answers, overlap of splits."""
    positions = np.arange(len(table))
    split, flags = table["split"], table["flags"]
    by_split = table["content"] ^ (split.astype(np.uint64) * duplicates.MIX)
    first = duplicates.first_with(by_split)
    flag(table, positions[first != positions], "duplicate", first[first != positions])

    _, question = np.unique(table["question"], return_inverse=True)
    answers = np.unique(np.stack([question.astype(np.uint64), table["answer"]], axis=1), axis=0)[:, 0]
    flags[np.isin(question, np.flatnonzero(np.bincount(answers.astype(np.int64)) > 1))] |= BIT["conflicting_answers"]

    learned, held_out = np.flatnonzero(split == 0), np.flatnonzero(split > 0)
    common = np.intersect1d(table["question"][learned], table["question"][held_out])
    for rows, others in ((learned, held_out), (held_out, learned)):
        hits = rows[np.isin(table["question"][rows], common)]
        order = others[np.argsort(table["question"][others], kind="stable")]
        twins = order[np.searchsorted(table["question"][order], table["question"][hits])]
        flag(table, hits, "split_overlap", twins)

    # Near ones: every distinct row of a split once.
    distinct = positions[(first == positions) & (split != UNUSED)]
    likely = [duplicates.likely_pairs(signatures, distinct[split[distinct] == number]) for number in range(len(SPLITS))]
    train = distinct[split[distinct] == 0]
    likely.append(duplicates.likely_pairs(signatures, distinct[split[distinct] > 0], train))
    # Equal ones in two splits are flagged above.
    likely = [pairs[table["content"][pairs[:, 0]] != table["content"][pairs[:, 1]]] for pairs in likely]
    *repeated, overlapping = duplicates.similar_pairs(likely, text_of)
    for pairs in repeated:
        flag(table, pairs[:, 0], "near_duplicate", pairs[:, 1])
    flag(table, overlapping[:, 0], "near_split_overlap", overlapping[:, 1])
    flag(table, overlapping[:, 1], "near_split_overlap", overlapping[:, 0])


def flag(table: np.ndarray, rows: np.ndarray, name: str, like: np.ndarray) -> None:
    table["flags"][rows] |= BIT[name]
    unpaired = table["like"][rows] < 0
    table["like"][rows[unpaired]] = like[unpaired]


def judge_lengths(table: np.ndarray) -> None:
    """Flag rows that are much shorter or longer than the rest."""
    logs = np.log(np.maximum(1, table["tokens"]))
    low, high = np.quantile(logs, [0.25, 0.75])
    reach = FAR_OUT * max(high - low, 0.1)  # rows of one length all but a few must not make those few odd
    table["flags"][(logs < low - reach) | (logs > high + reach)] |= BIT["odd_length"]


def judge_languages(table: np.ndarray) -> None:
    """Flag rows in another language than most of those whose language shows."""
    told = table["language"] > 0
    if told.any():
        main = np.bincount(table["language"][told]).argmax()
        table["flags"][told & (table["language"] != main)] |= BIT["other_language"]
