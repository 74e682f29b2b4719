"""Pairs for preference training: how they are read, and which are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from heed.data.records import RawRow, Rejected
from heed.data.sources import Source
from heed.errors import UserError
from heed.preferences.pairs import Pair, check_pairs, read_pairs

USER = {"role": "user", "content": "Say x.", "input": "y"}
ASKED = {"from": "human", "value": "Say x."}
SYSTEM = {"role": "system", "content": "Be brief."}


def says(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def pair(**fields: Any) -> dict[str, Any]:
    return {"prompt": "Say x.", "chosen": "x", "rejected": "no", **fields}


def read(row: Any, **columns: str) -> Pair | Rejected:
    [found] = check_pairs([RawRow(place="pairs.jsonl:1", value=row)], columns)
    return found


def test_a_pair_of_votes_is_read_with_who_decided() -> None:
    votes = [{"voter": "Ada", "time": "2026-11-22T06:00:00+0000"}]
    row = {"prompt": [SYSTEM, USER], "chosen": [says("x")], "rejected": [says("no")], "row_id": 3, "votes": votes}
    assert read(row) == Pair(
        place="pairs.jsonl:1",
        prompt=(SYSTEM, USER),  # type: ignore[arg-type]
        chosen="x",
        rejected="no",
        row_id=3,
        voters=("Ada",),
    )


@pytest.mark.parametrize(
    "row",
    [
        pair(),
        {"question": "Say x.", "chosen": "x", "rejected": "no"},
        {"chosen": [ASKED, says("x")], "rejected": [ASKED, says("no")]},
        {"prompt": "Say x.", "chosen": [ASKED, says("x")], "rejected": [ASKED, says("no")]},
    ],
    ids=["texts", "other column", "prompt within both answers", "prompt within both answers and beside them"],
)
def test_the_ways_that_others_write_pairs_mean_the_same(row: dict[str, Any]) -> None:
    found = read(row, **({"prompt": "question"} if "question" in row else {}))
    assert isinstance(found, Pair)
    assert (found.prompt, found.chosen, found.rejected) == (({"role": "user", "content": "Say x."},), "x", "no")


def test_a_system_text_stands_before_the_prompt() -> None:
    found = read(pair(system="Be brief."))
    assert isinstance(found, Pair) and found.prompt[0] == SYSTEM


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (pair(rejected="x "), "chosen and rejected are the same"),
        (pair(chosen=" "), "field 'chosen', turn 1, 'content': is empty"),
        (pair(rejected=None), "field 'rejected', turn 1, 'content': is null"),
        (pair(rejected=7), "field 'rejected', turn 1, 'content': expected text, got a number (7)"),
        (pair(prompt=""), "field 'prompt': there is no prompt"),
        (
            {"ask": "Say x.", "chosen": "x", "rejected": "no"},
            "field 'prompt': missing (the row has 'ask', 'chosen', 'rejected'); columns: {prompt: THEIRS}",
        ),
        ({"prompt": "Say x.", "chosen": "x"}, "field 'rejected': missing (the row has 'prompt', 'chosen')"),
        (pair(prompt=[USER, says("x")]), "field 'prompt': the last turn is the assistant's; it must be"),
        (pair(prompt=[SYSTEM]), "field 'prompt': the last turn is the system's; it must be one that is answered"),
        (pair(chosen=[says("x"), USER]), "field 'chosen': 2 turns, expected one; what is before both answers belongs"),
        (pair(chosen=[]), "field 'chosen': 0 turns, expected one"),
        (pair(chosen=[USER]), "field 'chosen', turn 1: role is 'user', expected assistant"),
        (pair(chosen=[says("x", reasoning_content="Hm.")]), "field 'chosen': 'reasoning_content' cannot be compared"),
        ("x", "expected an object with fields, got text"),
    ],
)
def test_a_bad_pair_is_refused_with_its_reason(row: Any, reason: str) -> None:
    found = read(row)
    assert isinstance(found, Rejected)
    assert found.place == "pairs.jsonl:1"
    assert found.reasons[0].startswith(reason)


def test_bad_pairs_stop_with_file_and_line_or_are_dropped_and_listed(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [pair(score=1), pair(rejected="x"), pair(models={})]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    with pytest.raises(
        UserError, match=r"2 bad rows\n  .*pairs\.jsonl:2: chosen and rejected are the same\n  .*:4: not JSON"
    ):
        read_pairs(Source(data=str(path)))
    found = read_pairs(Source(data=str(path), on_bad_row="drop"))
    assert [each.place for each in found.pairs] == [f"{path}:1", f"{path}:3"]
    assert [each.place for each in found.rejected] == [f"{path}:2", f"{path}:4"]
    assert found.ignored_fields == ["score of 1 row"]
    assert list(found.files) == [str(path)]
    with pytest.raises(UserError, match="columns: 'answer' is not a field of a pair; map prompt, chosen, rejected"):
        read_pairs(Source(data=str(path), columns={"answer": "x"}))
