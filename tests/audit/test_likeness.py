"""Held-out rows that are not like the training rows are found, and few rows are not judged."""

from functools import partial
from typing import Any

import pytest

from heed.audit.findings import judge
from heed.audit.scan import Scan, scan
from heed.data.records import Record
from heed.data.splits import split_numbers
from heed.prompts.template import load_prompt
from heed.tokens.encoding import Policy
from world.small_world import tiny_tokenizer

TOPICS = ("rivers", "kings", "planets", "numbers", "birds")


def looked_at(rows: int, how: Any) -> Scan:
    """A file sorted by topic."""
    records = [
        Record(
            row_id=row,
            place=f"rows.csv:{row + 2}",
            messages=(
                {"role": "user", "content": f"Say {row} of the {TOPICS[row * len(TOPICS) // rows]}."},
                {"role": "assistant", "content": f"Well, that is {row}."},
            ),
        )
        for row in range(rows)
    ]
    rule = partial(split_numbers, how=how, shares=(0.8, 0.1, 0.1), source_splits={})
    prompt = load_prompt("alpaca_short", tiny_tokenizer())
    policy = Policy(max_length=256, on_long_row="error", loss_on="response")
    return scan(lambda: records, prompt, policy, rule, num_proc=1)


def test_a_sorted_file_that_is_split_by_position_holds_out_a_topic_that_nothing_teaches() -> None:
    found = looked_at(200, "position")
    [first, *_] = found.likeness
    assert first == (
        "held-out rows are unlike the training rows: the word “birds” in 100% of them, in 0% of the training rows"
    )
    [finding] = [each for each in judge(found, {}, []).findings if each.name == "unlike_training"]
    assert (finding.count, finding.total, finding.stops) == (40, 40, False)


def test_shuffled_rows_represent_each_other() -> None:
    assert looked_at(200, "shuffled").likeness == []


@pytest.mark.parametrize("how", ["position", "shuffled"])
def test_of_few_rows_it_is_said_that_nothing_can_be_told(how: str) -> None:
    found = looked_at(60, how)
    assert found.likeness == ["12 held-out rows are too few to tell whether they are like the training rows"]
    assert not len(found.flagged("unlike_training"))
