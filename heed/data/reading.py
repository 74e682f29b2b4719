"""The rows of a run, read and split."""

from collections.abc import Collection, Mapping, Sequence
from typing import TypedDict

from heed.config import SftConfig
from heed.data.rows import Refusal
from heed.data.sources import Reading, Source, locations, read
from heed.data.splits import SPLITS, How, Splits, share_of, split_records, splits_in
from heed.errors import UserError
from heed.saying import FEW_ROWS, Detail, Say, count, few_rows


def read_rows(sft: SftConfig, say: Say, refusal: Refusal) -> tuple[Reading, Splits]:
    """The rows of the run's source and their splits; the same every time for the same bytes, keys and template."""
    reading = read(data_source(sft), refusal)
    rows = reading.rows
    say(f"data      {', '.join(locations(sft.data))}: {count(len(rows.records), 'row')} ({rows.row_format})")
    say(Detail(f"          sha256 {rows.sha256[:12]}"))
    for note in rows.notes:
        say(f"          {note}")
    named = {record.source_split for record in rows.records} - {None}
    rule = splitting(sft, named)
    splits = split_records(rows.records, **rule)
    say("splits    " + ", ".join(f"{name} {len(splits[name])}" for name in SPLITS) + f" ({HOW[rule['how']]})")
    if 0 < (few := len(splits["test"])) < FEW_ROWS:
        say(f"          {few_rows(few)}; a larger share for it: split_shares")
    unused = len(rows.records) - len({record.row_id for name in SPLITS for record in splits[name]})
    if unused:
        say(f"          {count(unused, 'row')} in a split of the source that is not used")
    if sft.train_share != 1:
        whole, splits["train"] = len(splits["train"]), share_of(splits["train"], sft.train_share)
        say(f"          train_share {sft.train_share:g}: {len(splits['train'])} of the {whole} training rows")
    return reading, splits


def data_source(sft: SftConfig) -> Source:
    return Source(
        data=sft.data,
        columns=sft.columns,
        on_bad_row=sft.on_bad_row,
        data_config=sft.data_config,
        data_revision=sft.data_revision,
    )


HOW = {"position": "by position", "shuffled": "shuffled by content", "hash": "by hash", "source": "by source"}


class Splitting(TypedDict):
    """How rows are split; what `split_records` and `split_numbers` take."""

    how: How
    shares: Sequence[float]
    source_splits: Mapping[str, str]


def splitting(sft: SftConfig, named: Collection[str | None]) -> Splitting:
    """How a run splits its rows. `named` are the splits that the source itself names."""
    names = sorted(name for name in named if name is not None)
    held_out = [name for name in names if splits_in(name) and "train" not in splits_in(name)]
    trained = sft.source_splits.get("train", "train")
    several = isinstance(sft.data, dict) or len(named) > 1 or bool(held_out)
    how = sft.split or ("source" if several else "shuffled")
    if isinstance(sft.data, dict):
        if how != "source":
            raise UserError(
                f"split: {how}, but data names a file for each split; set split: source, or give data as one"
            )
        held_out, names = [], []  # who gives a file for each split has said what each is for
    way_out = "say which file is for what, as data: {train: FILE}"
    unclear = [name for name in names if len(splits_in(name)) > 1]
    if unclear and not sft.source_splits:
        raise UserError(f"data: {unclear[0]} names more than one split; rename it, or {way_out}")
    if held_out and how != "source":
        raise UserError(
            f"split: {how} would train on rows that {sft.data} calls {' and '.join(held_out)}; set split: source, "
            f"or {way_out}"
        )
    if trained in held_out:
        raise UserError(
            f"source_splits: {{train: {trained}}} would train on rows that {sft.data} calls {trained}; choose another "
            f"split, or {way_out}"
        )
    if held_out and trained not in named:
        others = [name for name in names if name not in held_out]
        if others:
            ours = next(iter(splits_in(held_out[0])))
            raise UserError(
                f"data: {sft.data} calls its splits {', '.join(names)}; say which is which, as "
                f"source_splits: {{train: {others[0]}, {ours}: {held_out[0]}}}"
            )
        raise UserError(f"data: {sft.data} has {' and '.join(held_out)} rows and none to train on; {way_out}")
    by_source = how == "source"
    return {
        "how": how,
        "shares": () if by_source else sft.split_shares,
        "source_splits": sft.source_splits if by_source else {},
    }
