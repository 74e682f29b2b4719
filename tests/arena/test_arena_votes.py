import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heed.arena.votes import VoteFile, export_csv, verdict_votes, voter_name
from heed.errors import UserError
from world.votes import VOTE


def test_votes_come_back_as_they_were_cast(tmp_path: Path) -> None:
    file = VoteFile(tmp_path / "votes.jsonl")

    assert file.add(VOTE) and file.add(replace(VOTE, voter="Bob", winner="both_bad", note="«neither»\n\u2028"))

    [first, second] = VoteFile(tmp_path / "votes.jsonl").read()
    assert (first, second.note, second.preferred) == (VOTE, "«neither»\n\u2028", None)
    assert [json.loads(line)["winner"] for line in (tmp_path / "votes.jsonl").open()] == ["b", "both_bad"]


def test_a_voter_votes_once_on_a_pair_whichever_way_round(tmp_path: Path) -> None:
    one, other = VoteFile(tmp_path / "votes.jsonl"), VoteFile(tmp_path / "votes.jsonl")  # two servers

    assert one.add(VOTE)
    assert not other.add(replace(VOTE, winner="tie"))
    assert not one.add(replace(VOTE, a="tuned", b="base"))
    assert (
        other.add(replace(VOTE, row_id=4))
        and other.add(replace(VOTE, b="third"))
        and one.add(replace(VOTE, voter="Bo"))
    )
    assert len(one.read()) == 4


def test_a_torn_line_is_reported_and_harms_no_other_vote(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    VoteFile(path).add(VOTE)
    path.write_bytes(path.read_bytes() + b'{"time": "2026-11-22T06:01:00+0000", "voter": "Bo\xc3')
    file = VoteFile(path)

    assert file.read() == [VOTE]
    assert file.damage == f"{path}:2: damaged and left out (cut off in the middle)"
    assert file.add(replace(VOTE, voter="Cyd"))
    assert [vote.voter for vote in VoteFile(path).read()] == ["Ada", "Cyd"]
    assert file.damage is not None and file.damage.startswith(f"{path}:2: damaged and left out (")


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from heed.arena.votes import VoteFile
from world.votes import VOTE
file = VoteFile(Path(sys.argv[1]))
for row in range(int(sys.argv[3])):
    assert file.add(replace(VOTE, voter=sys.argv[2], row_id=row, note="x" * 3000))
    print(row, flush=True)
"""


def writer(path: Path, voter: str, rows: int) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": "tests:.", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WRITER, str(path), voter, str(rows)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)


def test_processes_that_write_at_once_lose_nothing_and_a_killed_one_keeps_what_it_said(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    writers = [writer(path, voter, 150) for voter in ("Ada", "Bob")]
    killed = writer(path, "Cyd", 100_000)
    assert killed.stdout is not None
    for _ in range(40):
        killed.stdout.readline()
    killed.send_signal(signal.SIGKILL)
    told = 40 + len(killed.stdout.read().split())
    assert [each.wait(60) for each in writers] == [0, 0] and killed.wait(60) == -signal.SIGKILL

    votes = VoteFile(path).read()

    by_voter = {voter: [vote.row_id for vote in votes if vote.voter == voter] for voter in ("Ada", "Bob", "Cyd")}
    assert by_voter["Ada"] == by_voter["Bob"] == list(range(150))
    assert told <= len(by_voter["Cyd"]) <= told + 1  # one may be on disk and not yet acknowledged


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"winner": "left"}, "winner: 'left' is not one of a, b, tie, both_bad"),
        ({"b": "base"}, "'base' is compared with itself"),
        ({"row_id": None}, "neither row_id nor prompt_sha256 says what the vote is about"),
        ({"colour": "red"}, "not a vote; it needs voter, a, b, winner"),
        ({"voter": 1}, "voter: 1 has the wrong type for a vote"),
        ({"row_id": [1]}, r"row_id: \[1\] has the wrong type for a vote"),
    ],
)
def test_a_line_that_is_not_a_vote_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    line = {"voter": "Ada", "a": "base", "b": "tuned", "winner": "a", "row_id": 1} | change
    (tmp_path / "votes.jsonl").write_text(json.dumps(line) + "\n")
    file = VoteFile(tmp_path / "votes.jsonl")

    assert file.read() == []
    assert re.search(rf"votes\.jsonl:1: damaged and left out \({message}", file.damage or "")


def test_good_votes_next_to_a_bad_line_count_once_however_often_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    VoteFile(path).add(VOTE)
    with path.open("ab") as lines:
        lines.write(b"[" * 10_000 + b"\n")
    file = VoteFile(path)
    assert file.add(replace(VOTE, voter="Bob"))

    assert [[vote.voter for vote in file.read()] for _ in range(3)] == [["Ada", "Bob"]] * 3
    assert not file.add(VOTE)
    assert file.damage == f"{path}:2: damaged and left out (too many brackets within brackets)"


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        VoteFile(tmp_path).add(VOTE)


def verdict(row_id: int, first: str, winner: str | None, prompt: str = "pairwise") -> dict[str, Any]:
    about = {"kind": "pair", "judge": "openai:llama3", "prompt": prompt, "a": "base", "b": "tuned", "row_id": row_id}
    return about | {"first": first, "winner": winner, "failure": None if winner else "garbage"}


def test_a_judge_has_one_vote_on_a_pair_and_a_tie_where_its_two_orders_disagree(tmp_path: Path) -> None:
    path = tmp_path / "judge.jsonl"
    lines = [
        {"kind": "score", "judge": "openai:llama3", "row_id": 1, "score": 80, "raw": "\u2028"},
        *(verdict(9, first, "a") | {"b": "reference", "control": "empty"} for first in "ab"),
        *(verdict(1, "a", "b"), verdict(1, "b", "b")),
        *(verdict(2, "a", "a"), verdict(2, "b", "b")),
        *(verdict(3, "a", None), verdict(3, "b", "b")),
        verdict(4, "a", "a"),
        *(verdict(5, "a", None), verdict(5, "b", "tie"), verdict(5, "a", "tie")),
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    votes, left_out = verdict_votes(path)

    assert [(vote.row_id, vote.winner, vote.voter) for vote in votes] == [
        (1, "b", "judge:openai:llama3"),
        (2, "tie", "judge:openai:llama3"),
        (5, "tie", "judge:openai:llama3"),
    ]
    assert left_out == {"a verdict failed": 1, "judged in one order only": 1}


def test_a_file_that_is_not_a_judges_is_named(tmp_path: Path) -> None:
    (tmp_path / "judge.jsonl").write_text('{"kind": "pair"}\n')
    with pytest.raises(UserError, match="not the verdicts of a judge"):
        verdict_votes(tmp_path / "judge.jsonl")


def test_votes_are_exported_in_arena_ranks_columns(tmp_path: Path) -> None:
    export_csv(tmp_path / "votes.csv", [VOTE, replace(VOTE, winner="both_bad"), replace(VOTE, a='a "b", c')])

    assert (tmp_path / "votes.csv").read_text() == (
        'model_a,model_b,winner\nbase,tuned,model_b\nbase,tuned,both_bad\n"a ""b"", c",tuned,model_b\n'
    )


def test_a_name_is_one_short_line_and_not_a_judges() -> None:
    assert [voter_name(words) for words in ("  Ada \n L. ", "x" * 99, "judge:gpt", "", "\ud83d")] == [
        "Ada L.",
        "x" * 40,
        "",
        "",
        "?",
    ]
