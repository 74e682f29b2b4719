"""Which rows are learned from, which are held out, and which steer the training."""

import hashlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, cast

import numpy as np

from heed.data.records import Record
from heed.errors import UserError
from heed.saying import count

SplitName = Literal["train", "test", "validation"]
SPLITS: tuple[SplitName, ...] = ("train", "test", "validation")
Splits = dict[SplitName, list[Record]]
How = Literal["position", "shuffled", "hash", "source"]
"""In the order of the file; in that of the prompts' hashes, which mixes topics, in exact shares; by the hash alone, so
that a row never moves and shares are approximate; or as the source says."""
# What the Hub and other tools call them.
NAMES: Mapping[str, SplitName] = {
    "training": "train",
    "train": "train",
    "testing": "test",
    "test": "test",
    "holdout": "test",
    "heldout": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "development": "validation",
    "dev": "validation",
    "evaluation": "validation",
    "eval": "validation",
}
NAME = re.compile("|".join(NAMES))
SPEAKS = re.compile(rf"({NAME.pattern})+(set|data|split|rows)?\d*")  # testset, traindata, trainval, dev2
HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")  # in myTest


def splits_in(name: str) -> set[SplitName]:
    """The splits that the words of a name mean: one in `train-00000-of-00003.parquet`, two in `train_test.json`."""
    words = re.split(r"[\W_]+", HUMP.sub(" ", name).lower())
    return {NAMES[each[0]] for word in words if SPEAKS.fullmatch(word) for each in NAME.finditer(word)}


def split_named(names: Sequence[str]) -> str | None:
    """The split that the names of a file and its folders mean; the names themselves if they mean two."""
    found = set().union(*map(splits_in, names))
    return "/".join(names) if len(found) > 1 else next(iter(found), None)


def split_records(
    records: Sequence[Record],
    *,
    how: How,
    shares: Sequence[float],
    source_splits: Mapping[str, str],
) -> Splits:
    """Split the rows by `how`; `shares` are those of train, test and validation and are not used for "source".

    Raises UserError if the shares make no sense, a named split is absent, or nothing is left to train on.
    """
    if how == "source":
        splits = by_source(records, source_splits)
    else:
        points = np.array([hash_point(record) for record in records])
        numbers = split_numbers(points, points, (), how=how, shares=shares, source_splits={}).tolist()
        splits = {name: [] for name in SPLITS}
        for number, record in zip(numbers, records, strict=True):
            splits[SPLITS[number]].append(record)
    if not splits["train"]:
        way_out = (
            "no split of the source is train; name one in source_splits, as {train: NAME}"
            if how == "source"
            else f"{count(len(records), 'row')}, split_shares: {list(shares)}; give it more, as split_shares: [1, 0, 0]"
        )
        raise UserError(f"the train split is empty: {way_out}")
    return splits


def check_shares(shares: Sequence[float]) -> None:
    if len(shares) != 3 or any(share < 0 for share in shares) or not math.isclose(sum(shares), 1.0, abs_tol=1e-9):
        raise UserError(
            f"split_shares: {list(shares)} must be three shares (train, test, validation) that sum to 1, "
            "such as [0.85, 0.1, 0.05]"
        )


def position_counts(count: int, shares: Sequence[float]) -> tuple[int, int]:
    """How many of `count` rows train, and how many test."""
    # The small term keeps 0.07 * 100 = 7.000000000000001 and 0.29 * 100 = 28.999999999999996 whole.
    train, test = (math.floor(count * share + 1e-6) for share in shares[:2])
    return train, test


def split_of_hash(record: Record, shares: Sequence[float]) -> SplitName:
    point = hash_point(record)
    return "train" if point < shares[0] else "test" if point < shares[0] + shares[1] else "validation"


def hash_point(record: Record) -> float:
    """Where between 0 and 1 a row's prompt puts it: rows of one prompt never stand on both sides."""
    return int(record.question_hash[:16], 16) / 2**64


def share_of(records: Sequence[Record], share: float) -> list[Record]:
    """Chosen by another hash of their content than splits are: a smaller share is part of every larger one.

    Raises UserError for a share that is not one, or leaves no row.
    """
    if not 0 < share <= 1:
        raise UserError(f"train_share: {share:g} is not a share; give more than 0 and at most 1")
    wanted = round(share * len(records))
    if not wanted:
        raise UserError(f"train_share: {share:g} of {len(records)} rows is none; give a larger share")
    hashes = {record.row_id: hashlib.sha256(b"share" + record.content_hash.encode()).digest() for record in records}
    chosen = sorted(hashes, key=lambda row_id: (hashes[row_id], row_id))[:wanted]
    kept = set(chosen)
    return [record for record in records if record.row_id in kept]


def by_source(records: Sequence[Record], source_splits: Mapping[str, str]) -> Splits:
    """As the source names them. `source_splits` says which of its splits serves as which of ours."""
    chosen = chosen_splits({record.source_split for record in records}, source_splits)
    splits: Splits = {name: [] for name in SPLITS}
    for ours, theirs in chosen.items():
        splits[ours] = [record for record in records if record.source_split == theirs]
    return splits


def chosen_splits(named: Collection[str | None], source_splits: Mapping[str, str]) -> dict[SplitName, str]:
    """Our split -> the source's that serves as it. `named` are the splits that rows of the source have."""
    present = set(named) - {None}
    if not present:
        raise UserError(
            "split: source, but the source does not name splits; use split: position or split: hash, "
            "or give data as {train: FILE, test: FILE, validation: FILE}"
        )
    chosen = dict(source_splits) or {name: name for name in SPLITS if name in present}
    for ours, theirs in chosen.items():
        if ours not in SPLITS:
            raise UserError(f"source_splits: {ours!r} is not one of {', '.join(SPLITS)}")
        if theirs not in present:
            raise UserError(
                f"source_splits: the source has no split {theirs!r}; it has {', '.join(sorted(map(str, present)))}"
            )
    return cast("dict[SplitName, str]", chosen)


UNUSED = -1


def split_numbers(
    points: np.ndarray,
    sources: np.ndarray,
    names: Sequence[str | None],
    *,
    how: How,
    shares: Sequence[float],
    source_splits: Mapping[str, str],
) -> np.ndarray:
    """`split_records` for rows that are not kept: for each row the number of its split in SPLITS, or UNUSED.

    `points` are the rows' hash points; names[sources[i]] is the source's split of row i. Returns int8.
    """
    numbers = np.full(len(points), UNUSED, dtype=np.int8)
    if how == "source":
        for ours, theirs in chosen_splits(names, source_splits).items():
            numbers[sources == names.index(theirs)] = SPLITS.index(ours)
        return numbers
    check_shares(shares)
    if how == "position":
        train, test = position_counts(len(points), shares)
        numbers[:train], numbers[train : train + test], numbers[train + test :] = 0, 1, 2
    else:
        limits = (shares[0], shares[0] + shares[1]) if how == "hash" else shuffled_limits(points, shares)
        numbers[:] = np.select([points < limits[0], points < limits[1]], [0, 1], 2)
    return numbers


def shuffled_limits(points: np.ndarray, shares: Sequence[float]) -> tuple[float, float]:
    """Where training and test rows end, so that the shares are exact but for rows of one prompt."""
    train, test = position_counts(len(points), shares)
    ordered = np.append(-np.inf, np.sort(points))
    first, second = (float(np.nextafter(ordered[count], np.inf)) for count in (train, train + test))
    return first, second


def row_ids(splits: Splits) -> dict[SplitName, list[int]]:
    """What splits.json contains: for each split the positions of its rows in the source."""
    return {name: [record.row_id for record in splits[name]] for name in SPLITS if name in splits}
