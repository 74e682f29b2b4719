"""The arena's script as a user runs it, up to the page."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import arena
from heed.arena.contestants import common_questions, read_recording, refuse_other_answers
from heed.arena.votes import Vote, sha256
from heed.errors import UserError, exit_code

ROWS = [{"instruction": f"Say {row}.", "input": "", "output": f"{row}!", "row_id": row} for row in range(3)]
VOTE = Vote(time=None, voter="Ada", a="base", b="tuned", winner="b", first="a", row_id=1)


def run(*arguments: object) -> int:
    return exit_code(lambda: arena.main([str(argument) for argument in arguments]))


def responses(path: Path, answer: str, rows: list[dict[str, Any]] = ROWS) -> Path:
    path.write_text(json.dumps([row | {"model_response": f"{answer} {row['row_id']}"} for row in rows]))
    return path


def test_rating_needs_neither_a_model_nor_a_page(tmp_path: Path) -> None:
    path = votes_file(tmp_path / "votes.jsonl", "a", "b")
    program = f"import sys, arena; arena.main(['rate', '--votes', {str(path)!r}]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    *shown, loaded = done.stdout.splitlines()
    assert shown[0] == "people: 2 votes of 1 voter"
    assert not {"torch", "transformers", "datasets", "gradio"} & set(loaded.split())


def votes_file(path: Path, *winners: str) -> Path:
    lines = [
        {"voter": "Ada", "a": "base", "b": "tuned", "winner": each, "row_id": row} for row, each in enumerate(winners)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_votes_are_rated_without_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = votes_file(tmp_path / "votes.jsonl", "b", "b", "b", "a", "tie", "both_bad")
    path.write_text(path.read_text() + '{"voter": "Bo')
    judge = tmp_path / "judge.jsonl"
    pair = {"kind": "pair", "judge": "stub", "prompt": "p", "a": "base", "b": "tuned", "row_id": 0, "winner": "b"}
    judge.write_text("".join(json.dumps(pair | {"first": first}) + "\n" for first in "ab"))

    words = ["--json", tmp_path / "arena.json", "--csv", tmp_path / "votes.csv", "--judge", judge]
    assert run("rate", "--votes", path, *words) == 0

    out = capsys.readouterr().out
    assert f"{path}:7: damaged and left out (cut off in the middle)" in out
    assert "people: 6 votes of 1 voter" in out
    assert "base against tuned: 1 won, 3 lost, 1 ties, 1 both bad; win rate 0.333 [0.075, 0.726]" in out
    assert "people and judge:stub: 1 of 1 votes alike (100%)" in out
    [people, judged] = json.loads((tmp_path / "arena.json").read_text())["leaderboards"]
    assert [each["model"] for each in people["standings"]] == ["tuned", "base"] and judged["who"] == "judge:stub"
    assert people["pairs"][0]["win_rate_ci95"] == pytest.approx([0.0753, 0.7258], abs=1e-4)
    assert (tmp_path / "votes.csv").read_text().splitlines()[:2] == ["model_a,model_b,winner", "base,tuned,model_b"]
    assert run("rate", "--votes", path, "--json", tmp_path / "nowhere" / "arena.json") == 2
    assert "nowhere/arena.json cannot be written (No such file or directory)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rate", "--votes", "nowhere.jsonl"], "votes: nowhere.jsonl: no such file"),
        (["rate"], "votes is missing"),
        (["--votes", "{folder}/v.jsonl"], "nothing to compare: give run: FOLDER"),
        (["--responses", '{"a": "x.json"}'], "votes is missing: without a run there is no folder"),
        (["--run", "{folder}"], "responses_base.json is missing; make it with `python eval_responses.py"),
        (["--run", "{folder}", "--host", "0.0.0.0"], "set a password in the environment variable HEED_ARENA_PASSWORD"),
        (["--run", "{folder}", "--models", '{"x": "m"}'], "set live: true, or leave one out"),
        (["--responses", '{"x": "a"}', "--models", '{"x": "m"}', "--votes", "{folder}/v"], "an arena shows one kind"),
        (["--run", "{folder}", "--live"], "is not a run folder; name its model with models"),
        (["--run", "runs/typo"], "run: runs/typo: no such folder"),
        (["--modelz", "x"], "unknown key 'modelz'; did you mean models?"),
    ],
)
def test_bad_input_ends_with_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    pytest.importorskip("gradio", reason="gradio is missing (make arena-setup installs it)")
    assert run(*(word.format(folder=tmp_path) if "{folder}" in word else word for word in arguments)) == 2
    assert message in capsys.readouterr().err


def test_a_key_that_recorded_answers_do_not_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio", reason="gradio is missing (make arena-setup installs it)")
    files = {name: str(responses(tmp_path / f"{name}.json", name)) for name in ("base", "tuned")}
    words = ["--responses", json.dumps(files), "--votes", tmp_path / "votes.jsonl", "--max_new_tokens", "9"]
    assert run(*words) == 2
    assert (
        "max_new_tokens is set, but nothing in this run reads it; it works with live: true, models or endpoints"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(("password", "host"), [("short", "127.0.0.1"), ("short", "0.0.0.0")])
def test_a_short_password_is_refused(monkeypatch: pytest.MonkeyPatch, password: str, host: str) -> None:
    monkeypatch.setenv("HEED_ARENA_PASSWORD", password)
    with pytest.raises(UserError, match="fewer than 12 characters"):
        arena.read_password(host)


def test_this_machine_needs_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEED_ARENA_PASSWORD", raising=False)
    assert [arena.read_password(host) for host in ("127.0.0.1", "localhost", "::1")] == [None] * 3
    monkeypatch.setenv("HEED_ARENA_PASSWORD", "long enough to do")
    assert arena.read_password("0.0.0.0") == "long enough to do"


def test_recordings_of_different_data_are_refused(tmp_path: Path) -> None:
    one = read_recording(responses(tmp_path / "a.json", "x"))
    other = read_recording(responses(tmp_path / "b.json", "y", [ROWS[0], ROWS[1] | {"instruction": "Sing."}]))
    with pytest.raises(UserError, match=r"row 1 is .* these files answer different data"):
        common_questions({"a": one, "b": other})


def test_votes_for_other_answers_of_the_same_name_are_refused(tmp_path: Path) -> None:
    recordings = {name: read_recording(responses(tmp_path / f"{name}.json", name)) for name in ("base", "tuned")}
    seen = {"a": sha256("base 1"), "b": sha256("tuned 1")}

    def check(**hashes: str) -> None:
        vote = Vote(**(vars(VOTE) | {"responses_sha256": seen | hashes}))
        refuse_other_answers([vote], recordings, tmp_path / "votes.jsonl")

    check()
    with pytest.raises(UserError, match=r"a vote on row 1 for another answer of tuned than the one in .*tuned\.json"):
        check(b=sha256("what an earlier run said"))
