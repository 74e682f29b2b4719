"""Answers that are copies: a training row's response, word for word, where another was wanted."""

from collections.abc import Collection, Iterable
from pathlib import Path

from heed.audit.duplicates import fingerprint
from heed.data.records import Record, normalized
from heed.data.sources import locations
from heed.errors import UserError
from heed.runs.finished import resolved_sft_config, set_aside

COPIED = "copied from a training row"
"""The flag of an answer that is a training row's response, and not the row's own reference."""
LEAST_COPIED = 20  # characters: "Yes." is nobody's


def is_copied(response: str, reference: str, learned: Collection[int]) -> bool:
    text = normalized(response)
    return len(text) >= LEAST_COPIED and text != normalized(reference) and fingerprint(text) in learned


def fingerprints(records: Iterable[Record]) -> frozenset[int]:
    """Of all that the assistant says in these rows."""
    turns = (turn for record in records for turn in record.messages if turn["role"] == "assistant")
    return frozenset(fingerprint(normalized(turn["content"])) for turn in turns)


def learned_responses(run: Path | None, *, others: bool) -> frozenset[int]:
    """The fingerprints of what a run learned to answer; none where its rows are gone, far away, or too many for memory.

    `others` are rows that the run does not know: for them alone, nothing is fetched from the Hub.
    """
    sft = resolved_sft_config(run) if run is not None else None
    if run is None or sft is None or sft.prepared is not None:
        return frozenset()
    if others and not all(Path(location).exists() for location in locations(sft.data)):
        return frozenset()
    try:
        return fingerprints(set_aside(run, "train"))
    except UserError:
        return frozenset()
