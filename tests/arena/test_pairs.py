"""From votes to pairs for a preference trainer."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import arena
from heed.arena.contestants import Recording, Said
from heed.arena.matches import Question
from heed.arena.pairs import make_pairs
from heed.arena.votes import Vote
from world.votes import VOTE

SYSTEM = {"role": "system", "content": "Be brief."}
QUESTION = Question(row_id=3, messages=(SYSTEM, {"role": "user", "content": "Say x.", "input": "y"}))  # type: ignore[arg-type]
RECORDINGS = {
    name: Recording(path=Path(f"{name}.json"), questions=[QUESTION], answers={3: Said(text=text)})
    for name, text in {"base": "no", "tuned": "x"}.items()
}


def vote(voter: str, winner: Any, **other: Any) -> Vote:
    return replace(VOTE, voter=voter, winner=winner, **other)


def test_a_vote_is_a_pair_in_trls_format_with_its_origin() -> None:
    found = make_pairs([VOTE], RECORDINGS)
    assert found.pairs == [
        {
            "prompt": [SYSTEM, {"role": "user", "content": "Say x.", "input": "y"}],
            "chosen": [{"role": "assistant", "content": "x"}],
            "rejected": [{"role": "assistant", "content": "no"}],
            "row_id": 3,
            "models": {"chosen": "tuned", "rejected": "base"},
            "votes": [{"voter": "Ada", "time": "2026-11-22T06:00:00+0000"}],
        }
    ]
    assert (found.left_out, found.contradicted) == ({}, 0)


def test_the_majority_decides_and_people_before_judges() -> None:
    judge = vote("judge:j", "a", time=None)
    found = make_pairs([VOTE, vote("Bob", "b"), vote("Eve", "a"), judge], RECORDINGS)
    assert [each["chosen"][0]["content"] for each in found.pairs] == ["x"]
    assert [each["voter"] for each in found.pairs[0]["votes"]] == ["Ada", "Bob"]
    assert (found.left_out, found.contradicted) == ({"a person has decided": 1}, 1)
    [alone] = make_pairs([judge], RECORDINGS).pairs
    assert alone["chosen"][0]["content"] == "no"


def test_votes_without_a_preference_or_an_answer_are_counted() -> None:
    equal = {"a": "same", "b": "same "}
    cast = [
        vote("Ada", "tie"),
        vote("Bob", "both_bad"),
        vote("Eve", "a"),
        vote("Joe", "b"),
        vote("Kim", "b", row_id=9),
        vote("Lee", "b", a="other"),
        vote("Max", "a", row_id=None, prompt_sha256="s", responses=equal),
    ]
    found = make_pairs(cast, RECORDINGS)
    assert found.pairs == []
    assert found.left_out == {
        "a tie": 1,
        "both answers bad": 1,
        "its row is not in the responses": 1,
        "the answers are not given: name the responses of its models": 1,
        "the answers are equal": 1,
        "as many votes for as against": 2,
    }


def test_a_typed_question_has_its_answers_in_the_vote() -> None:
    typed = vote("Ada", "a", row_id=None, prompt="Why?", prompt_sha256="s", responses={"a": "So.", "b": "No."})
    [found] = make_pairs([typed], {}).pairs
    assert found["prompt"] == [{"role": "user", "content": "Why?"}]
    assert (found["chosen"][0]["content"], found["rejected"][0]["content"], found["row_id"]) == ("So.", "No.", None)


def test_the_script_writes_pairs_and_says_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in {"base": "no", "tuned": "x"}.items():
        row = {"row_id": 3, "instruction": "Say x.", "input": "", "output": "x", "model_response": text}
        (tmp_path / f"{name}.json").write_text(json.dumps([row]))
    lines = [{"voter": "Ada", "a": "base", "b": "tuned", "winner": winner, "row_id": 3} for winner in ("b", "tie")]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    responses = json.dumps({name: str(tmp_path / f"{name}.json") for name in ("base", "tuned")})
    out = tmp_path / "pairs.jsonl"
    arena.main(["pairs", "--votes", str(tmp_path / "votes.jsonl"), "--responses", responses, "--out", str(out)])
    [pair] = [json.loads(line) for line in out.read_text().splitlines()]
    assert pair["chosen"] == [{"role": "assistant", "content": "x"}]
    assert "left out  1 (a tie)" in capsys.readouterr().out
