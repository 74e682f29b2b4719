"""Keys of inspect_data.py besides those of train_sft.py."""

from dataclasses import dataclass

from heed.config.conditions import either, when
from heed.config.keys import key

OF_ROWS = (when("run", None), when("preferences", None))


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Keys of inspect_data.py besides those of train_sft.py."""

    html: str | None = key(
        None,
        help="write a page to look through the rows, 2,000 at most, flagged ones first",
        read_when=OF_ROWS,
    )
    export: str | None = key(
        None,
        help="write cleaned rows or pairs to this .jsonl, or rows split by split to this folder; the rest to "
        "NAME.rejected.jsonl",
        read_when=(either(when("run", None), when("preferences")),),
    )
    pairs: str | None = key(None, help="write rendered prompts and answers here (JSONL)", read_when=OF_ROWS)
    flags: str | None = key(
        None, help="a run folder that gets row_flags.json, for eval_responses.py", read_when=OF_ROWS
    )
    against: list[str] = key([], help="more evaluation files, besides audit_against", read_when=OF_ROWS)
    preview_rows: int = key(3, help="rows shown token by token", read_when=OF_ROWS)
    leave_out: str | None = key(
        None,
        help="a JSONL with the row_id of rows that are not exported, as --map writes it",
        read_when=(when("export"), when("preferences", None)),
    )
    preferences: str | None = key(
        None, help="pairs for preference training, to look at instead of rows: file, folder, URL or Hub id"
    )
    run: str | None = key(
        None,
        help="a run folder: show what it learned from, in a step or in all, and nothing else; with preferences: the "
        "run that they are to tune",
    )
    step: int | None = key(
        None,
        help="the step whose rows are shown",
        read_when=(when("run"), when("map", False), when("preferences", None)),
    )
    map: bool = key(
        False,
        help="show which training rows were never learned or forgotten again",
        read_when=(when("run"), when("preferences", None)),
    )
