"""Keys of inspect_data.py beside those of train_sft.py."""

from dataclasses import dataclass

from heed.config.keys import ReadRecorder, key


@dataclass(frozen=True, kw_only=True)
class InspectConfig(ReadRecorder):
    """Keys of inspect_data.py beside those of train_sft.py."""

    html: str | None = key(None, help="write a page to look through the rows, 2,000 at most, flagged ones first")
    export: str | None = key(
        None,
        help="write cleaned rows to this .jsonl or, split by split, folder; the others to NAME.rejected.jsonl",
    )
    pairs: str | None = key(None, help="write rendered prompts and answers here (JSONL)")
    flags: str | None = key(None, help="a run folder that gets row_flags.json, for eval_responses.py")
    against: list[str] = key([], help="more evaluation files, beside audit_against")
    preview_rows: int = key(3, help="rows shown token by token")
    run: str | None = key(None, help="a run folder: show the rows that one of its steps learned from, and nothing else")
    step: int | None = key(None, help="the step", read_when="run")
