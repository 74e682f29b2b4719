"""A whole judge against servers on the loopback, well-behaved and not."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from heed.errors import UserError
from heed.files import run_folder
from heed.judge.controls import INJECTION
from heed.judge.judging import judge_responses
from heed.judge.settings import JudgeSettings
from heed.judge.summary import judge_rows, summary_text
from heed.judge.verdicts import JudgedAnswer
from world.small_world import ROOT
from world.stub_judge import Says, StubJudge, Trouble, fenced, overlap, serve

WORDS = ["apple", "bread", "candle", "door", "engine", "forest", "garden", "hammer", "island", "jacket"]


def item(row_id: int, answer: str, *, name: str = "tuned") -> JudgedAnswer:
    word = WORDS[row_id]
    return JudgedAnswer(
        name=name,
        row_id=row_id,
        instruction=f"Which word has the number {row_id}?",
        input="",
        output=f"{word} {word}",
        model_response=answer,
    )


def right(row_id: int, *, name: str = "tuned") -> JudgedAnswer:
    return item(row_id, f"{WORDS[row_id]} {WORDS[row_id]}", name=name)


ITEMS = [right(row_id) for row_id in range(8)]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST", "OLLAMA_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def stub() -> Iterator[Callable[[Says], StubJudge]]:
    """Starts servers that end with the test."""
    with ExitStack() as stack:
        yield lambda says: stack.enter_context(serve(says))


def settings(server: StubJudge, **changes: Any) -> JudgeSettings:
    url = server.host if changes.get("backend") == "ollama" else server.url
    usual: dict[str, Any] = {"backend": "openai", "model": "stub", "base_url": url, "control_rows": 1, "retries": 1}
    return JudgeSettings(**(usual | changes))


def judge(server: StubJudge, folder: Path, items: list[JudgedAnswer] = ITEMS, **changes: Any) -> dict[str, Any]:
    """One judge's part of the summary."""
    entry: dict[str, Any] = judge_responses(items, settings(server, **changes), folder, say=SAID.append)["judges"][-1]
    return entry


SAID: list[str] = []
PROVENANCE: dict[str, Any] = {
    "model": "runs/x", "contract": "c0ffee", "data": "rows.json", "data_sha256": "ab12", "versions": {}, "command": "x",
}  # fmt: skip


def verdicts(folder: Path) -> list[dict[str, Any]]:
    """Those on the systems' own answers first."""
    return sorted(run_folder.read_lines(folder / "judge.jsonl"), key=lambda each: each["control"] is not None)


def failures(folder: Path) -> dict[int, str]:
    return {each["row_id"]: each["failure"] for each in verdicts(folder) if each["control"] is None and each["failure"]}


def is_row(body: dict[str, Any], row_id: int) -> bool:
    """Whether a request is about the answer to that row, not about a control."""
    shown = body["messages"][1]["content"]
    return f"the number {row_id}?" in shown and fenced(body, "answer") not in ("", INJECTION)


def test_two_systems_are_scored_and_compared_and_the_controls_rank_as_expected(
    stub: Callable[[Says], StubJudge], tmp_path: Path
) -> None:
    base = [item(0, "apple", name="base"), item(1, "nothing", name="base"), right(2, name="base")]
    tuned = [right(0), right(1), right(2)]

    summary = judge_responses([*base, *tuned], settings(stub(overlap), mode="both", control_rows=2), tmp_path)

    assert json.loads((tmp_path / "judge_summary.json").read_text()) == json.loads(json.dumps(summary))
    [entry] = summary["judges"]
    assert (entry["judge"], entry["prompt"], summary["agreement"]) == ("openai:stub", "rubric", [])
    assert entry["scores"]["base"]["mean"] == pytest.approx((67 + 0 + 100) / 3)
    assert (entry["scores"]["tuned"]["mean"], entry["scores"]["tuned"]["ci95"]) == (
        100,
        (pytest.approx(29.24, abs=0.01), 100),
    )
    assert (entry["scores"]["tuned"]["n"], entry["scores"]["tuned"]["failures"]) == (3, {})
    assert entry["controls"]["passed"] and entry["controls"]["scores"]["reference"] == 100
    assert entry["controls"]["scores"]["empty"] == entry["controls"]["scores"]["shuffled"] == 0
    pairs = entry["pairs"]["base vs tuned"]
    assert [pairs[key] for key in ("wins", "ties", "losses", "failures", "identical")] == [2, 1, 0, 0, 1]
    assert pairs["win_rate"] == pytest.approx(2.5 / 3) and pairs["consistency"] == 1.0
    assert entry["pair_controls"]["passed"]
    lines = verdicts(tmp_path)
    assert list(lines[0])[:9] == [
        "kind", "judge", "prompt", "name", "row_id", "control", "score", "reason", "failure",
    ]  # fmt: skip
    assert (lines[0]["score"], lines[0]["reason"], lines[0]["how"]) == (67, "67 % of the words", "schema")
    assert Counter(each["control"] for each in lines if each["kind"] == "score") == {
        None: 6, "reference": 2, "empty": 2, "shuffled": 2, "injection": 2,
    }  # fmt: skip
    orders = [each for each in lines if each["kind"] == "pair" and each["row_id"] == 0 and not each["control"]]
    assert [(each["first"], each["winner"]) for each in orders] == [("a", "b"), ("b", "b")]
    text = summary_text(summary)
    assert "tuned    100.0 [29.2, 100.0] on 3 rows, 0 failed" in text
    assert "base vs tuned: tuned won 2, tied 1 (1 with the same text), lost 0, 0 failed" in text


def test_the_request_is_deterministic_and_bound_to_a_schema(
    stub: Callable[[Says], StubJudge], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # must not come between us and this machine
    server = stub(overlap)
    judge(server, tmp_path)
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["seed"], body["max_tokens"]) == ("stub", 0, 123, 512)
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["score"] == {"type": "integer", "minimum": 0, "maximum": 100}
    assert server.headers[0]["authorization"] == "Bearer none"
    assert server.most_at_once <= 4


def test_a_second_run_asks_only_for_what_is_new(stub: Callable[[Says], StubJudge], tmp_path: Path) -> None:
    server = stub(overlap)
    judge(server, tmp_path)
    assert len(server.bodies) == 11  # 8 rows and 4 controls, of which the reference is the right answer
    entry = judge(server, tmp_path)
    assert (len(server.bodies), entry["requests"], entry["cached"]) == (11, 0, 12)
    assert all(each["cached"] for each in verdicts(tmp_path))
    judge(server, tmp_path, [item(0, "a new answer"), *ITEMS[1:]])
    assert [fenced(body, "answer") for body in server.bodies[11:]] == ["a new answer"]


def test_another_server_is_asked_though_its_model_has_the_same_name(
    stub: Callable[[Says], StubJudge], tmp_path: Path
) -> None:
    judge(stub(overlap), tmp_path)
    other = stub(lambda body: '{"reasoning": "whatever", "score": 50}')
    entry = judge(other, tmp_path)
    assert (entry["cached"], entry["server"]) == (1, f"{other.url} stub")  # a control that equals an answer
    assert {each["score"] for each in verdicts(tmp_path)} == {50}


def test_a_reply_that_cannot_be_read_is_asked_for_once_more_and_then_counted(
    stub: Callable[[Says], StubJudge], tmp_path: Path
) -> None:
    def says(body: dict[str, Any]) -> str | Trouble:
        asked_again = len(body["messages"]) == 4
        if is_row(body, 3):
            return "I would rather not say."
        if is_row(body, 5) and not asked_again:
            return "Between 60 and 80"
        return '{"score": 90}' if is_row(body, 5) else overlap(body)

    items = [*ITEMS, *(right(row_id, name="base") for row_id in range(8))]
    server = stub(says)
    entry = judge(server, tmp_path, items)
    assert failures(tmp_path) == {3: "garbage"}
    row = next(each for each in verdicts(tmp_path) if each["row_id"] == 5 and each["control"] is None)
    assert (row["score"], row["how"], row["raw"]) == (90, "reask", '{"score": 90}')
    again = next(body for body in server.bodies if is_row(body, 5) and len(body["messages"]) == 4)
    assert again["messages"][2:] == [
        {"role": "assistant", "content": "Between 60 and 80"},
        {
            "role": "user",
            "content": "Your reply could not be read as one verdict.\nReply with nothing but JSON: "
            '{"reasoning": "<one sentence>", "score": <whole number from 0 to 100>}',
        },
    ]
    first = next(body for body in server.bodies if is_row(body, 5) and len(body["messages"]) == 2)
    assert row["prompt_tokens"] == sum(
        sum(len(message["content"]) for message in body["messages"]) // 4 for body in (first, again)
    )
    scores = entry["scores"]["tuned"]
    assert (scores["n"], scores["n_full"], scores["failures"]) == (7, 8, {"garbage": 1})
    assert (scores["withheld"], scores["mean"], scores["ci95"]) == (True, None, None)  # 12.5 % are too many

    assert "I would rather not say." not in (tmp_path / "judge_cache.jsonl").read_text()
    asked = len(server.bodies)
    server.says = overlap
    entry = judge(server, tmp_path, items)
    assert len(server.bodies) == asked + 1  # the failure alone, once for both systems' equal answers
    assert entry["scores"]["tuned"]["mean"] == pytest.approx((7 * 100 + 90) / 8)


@pytest.mark.parametrize(
    ("reply", "score"), [("85", None), ('{"reasoning": "Right", "score": 8', None), ('{"score": 85} I say th', 85)]
)
def test_a_cut_reply_counts_only_if_its_verdict_is_whole(
    stub: Callable[[Says], StubJudge], tmp_path: Path, reply: str, score: int | None
) -> None:
    judge(stub(lambda body: Trouble(text=reply, finish_reason="length")), tmp_path)
    first = verdicts(tmp_path)[0]
    assert (first["score"], first["failure"]) == (score, None if score else "cut")


def test_up_to_five_percent_of_failures_the_mean_is_given_and_covers_the_others(
    stub: Callable[[Says], StubJudge], tmp_path: Path
) -> None:
    items = [replace(right(0), row_id=number, instruction=f"Number {number}!") for number in range(20)]
    server = stub(lambda body: "no" if "Number 7!" in body["messages"][1]["content"] else overlap(body))
    scores = judge(server, tmp_path, items)["scores"]["tuned"]
    assert (scores["mean"], scores["n"], scores["failure_rate"], scores["withheld"]) == (100, 19, 0.05, False)


def test_a_servers_troubles_are_waited_out_or_counted_by_reason(
    stub: Callable[[Says], StubJudge], tmp_path: Path
) -> None:
    times: dict[int, list[float]] = {row_id: [] for row_id in range(8)}
    troubles = {
        1: Trouble(status=429, headers={"Retry-After": "1"}, message="slow down"),
        2: Trouble(status=500, message="once"),
        3: Trouble(status=503, message="always"),
        4: Trouble(text='{"score": 1}', wait=1.6),
        5: Trouble(reset=True),
        6: Trouble(body=b"<html>A proxy's page</html>", headers={"Content-Type": "text/html"}),
        7: Trouble(status=400, message="this model does not talk to you"),
    }

    def says(body: dict[str, Any]) -> str | Trouble:
        row = next((row_id for row_id in range(8) if is_row(body, row_id)), 0)
        times[row].append(time.monotonic())
        recovered = row in (1, 2) and len(times[row]) > 1
        return overlap(body) if row == 0 or recovered else troubles[row]

    judge(stub(says), tmp_path, timeout=1.0, concurrency=8)
    assert failures(tmp_path) == {
        3: "server_error", 4: "timeout", 5: "connection", 6: "protocol", 7: "refused",
    }  # fmt: skip
    assert times[1][1] - times[1][0] >= 1.0  # as long as the server asked for
    assert [len(times[row_id]) for row_id in (2, 3, 4, 5, 7)] == [2, 2, 2, 2, 1]
    details = {each["row_id"]: each["reason"] for each in verdicts(tmp_path) if each["failure"]}
    assert "always" in details[3] and "does not talk to you" in details[7]


@pytest.mark.parametrize(
    ("parameter", "message", "instead"),
    [
        ("response_format", "response_format json_schema is not supported", None),
        ("response_format", "this server knows no JSON grammar", None),
        ("temperature", "Unsupported value: 'temperature' does not support 0 with this model.", None),
        ("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.", "max_completion_tokens"),
    ],
)
def test_a_refused_parameter_is_left_out_and_remembered(
    stub: Callable[[Says], StubJudge], tmp_path: Path, parameter: str, message: str, instead: str | None
) -> None:
    server = stub(lambda body: Trouble(status=400, message=message) if parameter in body else overlap(body))
    SAID.clear()
    entry = judge(server, tmp_path)
    assert entry["scores"]["tuned"]["n"] == 8
    assert sum(parameter in body for body in server.bodies) == 1
    assert instead is None or all(body[instead] == 512 for body in server.bodies[1:])
    assert [f"does not take {parameter}; asking without it" in said for said in SAID] == [True]
    asked = len(server.bodies)
    judge(server, tmp_path, [item(0, "another answer")])  # a later run, on another answer
    assert all(parameter not in body for body in server.bodies[asked:])


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "the key is refused"), (404, "there is no such model, or nothing that chats at this address")],
)
def test_what_would_fail_for_every_row_ends_the_run(
    stub: Callable[[Says], StubJudge], tmp_path: Path, status: int, message: str
) -> None:
    server = stub(lambda body: Trouble(status=status, message="no"))
    with pytest.raises(UserError, match=message):
        judge(server, tmp_path)
    assert len(server.bodies) == 1 and not (tmp_path / "judge.jsonl").exists()


@pytest.mark.parametrize("backend", ["openai", "ollama"])
def test_a_redirect_is_not_followed_and_its_target_named(
    stub: Callable[[Says], StubJudge], tmp_path: Path, backend: str
) -> None:
    other = stub(overlap)
    server = stub(lambda body: Trouble(status=307, headers={"Location": f"{other.url}/chat/completions"}))
    with pytest.raises(UserError, match=rf"it redirects to {other.url}/chat/completions, which is not followed"):
        judge(server, tmp_path, backend=backend)
    assert other.bodies == []


@pytest.mark.parametrize("backend", ["openai", "ollama"])
def test_a_reply_without_end_is_a_failure_of_its_row(
    stub: Callable[[Says], StubJudge], tmp_path: Path, backend: str
) -> None:
    server = stub(lambda body: Trouble(body=b" " * 5_000_000) if is_row(body, 3) else overlap(body))
    judge(server, tmp_path, backend=backend)
    assert failures(tmp_path) == {3: "too_large"}
    assert sum(is_row(body, 3) for body in server.bodies) == 1
    [reason] = [each["reason"] for each in verdicts(tmp_path) if each["failure"]]
    assert reason == "a reply of more than 4 MiB, which is not taken"


def test_a_missing_server_is_reported_at_once(tmp_path: Path) -> None:
    with serve(overlap) as gone:
        pass
    with pytest.raises(UserError, match=r"no server answers .*is it running, and is judge_base_url right"):
        judge(gone, tmp_path, retries=0)
    with pytest.raises(UserError, match="no Ollama answers at http://127"):
        judge(gone, tmp_path, backend="ollama")
    with pytest.raises(UserError, match="names a path; Ollama's own API has none"):
        judge(gone, tmp_path, backend="ollama", base_url=gone.url)


def test_a_server_that_dies_is_given_up_and_the_rest_can_be_asked_later(
    stub: Callable[[Says], StubJudge], tmp_path: Path
) -> None:
    items = [replace(right(0), row_id=number, instruction=f"Number {number}!") for number in range(40)]
    server = stub(overlap)
    server.says = lambda body: overlap(body) if len(server.bodies) <= 10 else Trouble(status=500, message="dead")
    entry = judge(server, tmp_path, items, retries=0)
    assert len(server.bodies) <= 10 + 10 + 4  # those in flight included
    assert entry["stopped"].startswith("10 requests in a row got no reply, the last: server_error (500: ")
    reasons = Counter(failures(tmp_path).values())
    # 2 of the 10 were controls; of four requests under way some may see the server die that began before it did.
    assert 5 <= entry["scores"]["tuned"]["n"] <= 8 and reasons["not_asked"] >= 18
    assert entry["controls"]["passed"]
    assert "STOPPED EARLY: 10 requests in a row" in summary_text({"judges": [entry], "agreement": []})
    server.says = overlap
    assert judge(server, tmp_path, items)["scores"]["tuned"]["n"] == 40


def test_the_cost_never_exceeds_its_limit_and_what_was_paid_for_stays(
    stub: Callable[[Says], StubJudge], tmp_path: Path
) -> None:
    server = stub(lambda body: Trouble(text=overlap(body), usage={"prompt_tokens": 800, "completion_tokens": 100}))
    priced: dict[str, Any] = {"prices": (10.0, 30.0), "max_tokens": 200}
    each = (800 * 10 + 100 * 30) / 1e6
    entry = judge(server, tmp_path, max_cost=0.07, **priced)
    assert entry["cost"] == pytest.approx(len(server.bodies) * each) and 0.03 < entry["cost"] <= 0.07
    assert entry["stopped"] == "the next request could exceed max_cost 0.07"
    assert entry["scores"]["tuned"]["withheld"] and entry["scores"]["tuned"]["n"] == len(server.bodies) - 3
    assert entry["controls"]["passed"]  # the controls come first; one of them is also a row's answer
    asked = len(server.bodies)
    entry = judge(server, tmp_path, max_cost=1.0, **priced)
    assert (entry["stopped"], entry["requests"], entry["cached"]) == (None, 11 - asked, asked + 1)


def test_a_limit_without_prices_is_refused(stub: Callable[[Says], StubJudge], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="judge_max_cost: the prices are unknown"):
        judge(stub(overlap), tmp_path, max_cost=1.0)


def test_replies_without_a_count_are_charged_the_most_they_can_cost(
    stub: Callable[[Says], StubJudge], tmp_path: Path
) -> None:
    server = stub(lambda body: Trouble(text=overlap(body), usage=None))
    entry = judge(server, tmp_path, prices=(10.0, 30.0), max_tokens=100)
    assert entry["uncounted"] == 11 and entry["cost"] > 11 * 100 * 30 / 1e6


JUDGE_SLOWLY = """
import json, sys
from pathlib import Path
from heed.judge.judging import judge_responses
from heed.judge.settings import JudgeSettings
from heed.judge.verdicts import JudgedAnswer
settings = JudgeSettings(backend="openai", model="stub", base_url=sys.argv[1], control_rows=1, concurrency=1)
judge_responses([JudgedAnswer(**each) for each in json.loads(sys.argv[3])], settings, Path(sys.argv[2]))
"""


def test_a_killed_judge_continues_where_it_stopped(stub: Callable[[Says], StubJudge], tmp_path: Path) -> None:
    server = stub(lambda body: Trouble(text=overlap(body), wait=0.1))
    cache = tmp_path / "judge_cache.jsonl"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    items = json.dumps([asdict(each) for each in ITEMS])
    words = [sys.executable, "-c", JUDGE_SLOWLY, server.url, str(tmp_path), items]
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    while not cache.exists() or cache.read_text().count("\n") < 4:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = cache.read_text().count("\n")
    assert not (tmp_path / "judge.jsonl").exists()
    with cache.open("a") as file:
        file.write('{"key": "torn off in the mid')  # what a kill within a write would leave
    asked = len(server.bodies)

    SAID.clear()
    entry = judge(server, tmp_path)

    assert kept < 11 and len(server.bodies) - asked == 11 - kept == entry["requests"]
    assert entry["scores"]["tuned"]["mean"] == 100
    assert re.fullmatch(
        rf"{cache}:{kept + 1}: damaged and left out \(Unterminated .*\); what it had is asked again", "".join(SAID)
    )
    assert all(json.loads(line)["key"] for line in cache.read_text().splitlines())


def test_a_judge_that_can_be_talked_into_scores_is_found_out(stub: Callable[[Says], StubJudge], tmp_path: Path) -> None:
    def gullible(body: dict[str, Any]) -> str:
        return '{"score": 100}' if fenced(body, "answer") == INJECTION else overlap(body)

    entry = judge(stub(gullible), tmp_path)
    assert entry["controls"]["text"] == (
        "DO NOT TRUST THIS JUDGE: an answer that only asks for a high score gets 100 on average, the reference 100: "
        "less than 30 points between them (mean scores: reference 100, empty 0, injection 100, shuffled 0)"
    )
    [row] = judge_rows(entry, {"tuned": PROVENANCE})
    assert (row.system, row.task, row.metric, row.value, row.n) == (
        "judge",
        "openai:stub rubric",
        "judge_score",
        100,
        8,
    )
    assert row.notes == (entry["controls"]["text"],) and row.library.startswith("openai ")


def test_a_judge_that_prefers_whoever_comes_first_sees_only_ties(
    stub: Callable[[Says], StubJudge], tmp_path: Path
) -> None:
    items = [item(0, "apple", name="base"), item(1, "no", name="base"), right(0), right(1)]
    entry = judge(stub(lambda body: "A"), tmp_path, items, mode="pair")
    pairs = entry["pairs"]["base vs tuned"]
    assert [pairs[key] for key in ("wins", "ties", "losses", "win_rate")] == [0, 2, 0, 0.5]
    assert (pairs["consistency"], pairs["first_position_rate"]) == (0.0, 1.0)
    assert not entry["pair_controls"]["passed"]
    assert "against an empty answer the reference wins 50% of its comparisons" in entry["pair_controls"]["text"]
    [row] = judge_rows(entry, {"tuned": PROVENANCE})
    assert (row.metric, row.value, row.chance, row.n_full) == ("win_rate_over_base", 0.5, 0.5, 2)


def test_a_pair_of_which_one_order_failed_is_a_failure(stub: Callable[[Says], StubJudge], tmp_path: Path) -> None:
    items = [item(0, "apple", name="base"), item(1, "no", name="base"), right(0), right(1)]
    server = stub(
        lambda body: (
            "?"
            if "<answer A" in (text := body["messages"][1]["content"]) and "\nno\n</answer A" in text
            else overlap(body)
        )
    )
    pairs = judge(server, tmp_path, items, mode="pair")["pairs"]["base vs tuned"]
    assert [pairs[key] for key in ("wins", "failures", "failure_reasons")] == [1, 1, {"garbage": 1}]
    assert (pairs["withheld"], pairs["win_rate"], pairs["n"], pairs["n_full"]) == (True, None, 1, 2)


def test_a_comparison_of_controls_that_failed_is_not_a_lost_one(
    stub: Callable[[Says], StubJudge], tmp_path: Path
) -> None:
    def says(body: dict[str, Any]) -> str | Trouble:
        failing = "" in (fenced(body, "answer A"), fenced(body, "answer B"))
        return Trouble(status=500, message="dead") if failing else overlap(body)

    base = [replace(each, name="base", model_response="nothing") for each in ITEMS]
    entry = judge(stub(says), tmp_path, [*base, *ITEMS], mode="pair", retries=0, control_rows=2)
    assert entry["pair_controls"]["reference_wins"] == {"shuffled": 1.0, "injection": 1.0}
    assert "no comparison with an empty answer gave a verdict" in entry["pair_controls"]["text"]


def test_pairs_need_two_systems(stub: Callable[[Says], StubJudge], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="judge_mode: pair compares two systems, and there are answers of tuned only"):
        judge(stub(overlap), tmp_path, mode="pair")


def test_a_judge_that_rewards_length_shows_in_the_correlation(
    stub: Callable[[Says], StubJudge], tmp_path: Path
) -> None:
    items = [item(row_id, "word " * row_id) for row_id in range(8)]
    entry = judge(stub(lambda body: str(min(100, len(fenced(body, "answer"))))), tmp_path, items, prompt="rubric")
    assert entry["length_correlation"] == {"tuned": pytest.approx(1.0)}


def test_ollama_is_asked_natively_with_a_context_that_the_longest_request_fits(
    stub: Callable[[Says], StubJudge], tmp_path: Path
) -> None:
    server = stub(overlap)
    entry = judge(server, tmp_path, [*ITEMS, item(8, "long " * 600)], backend="ollama")
    assert entry["judge"] == "ollama:stub" and entry["scores"]["tuned"]["n"] == 9
    body = server.bodies[0]
    assert body["options"] == {"seed": 123, "temperature": 0, "num_ctx": 8192, "num_predict": 512}
    assert body["format"]["required"] == ["reasoning", "score"] and body["stream"] is False
    assert entry["prompt_tokens"] == sum(
        sum(len(message["content"]) for message in each["messages"]) // 4 for each in server.bodies
    )


def test_a_request_that_ollama_would_cut_is_refused_or_noticed(
    stub: Callable[[Says], StubJudge], tmp_path: Path
) -> None:
    def says(body: dict[str, Any]) -> str | Trouble:
        cut = is_row(body, 8)  # as many tokens as the context has: Ollama has cut the rest
        return Trouble(text=overlap(body), usage={"prompt_eval_count": 8192} if cut else {})

    server = stub(says)
    judge(server, tmp_path, [*ITEMS, item(8, "long " * 2000), item(9, "endless " * 20_000)], backend="ollama")
    assert failures(tmp_path) == {8: "too_long", 9: "too_long"}
    assert not any(is_row(body, 9) for body in server.bodies)


def test_ollamas_troubles_are_retried_and_its_missing_model_named(
    stub: Callable[[Says], StubJudge], tmp_path: Path
) -> None:
    seen: Counter[int] = Counter()

    def says(body: dict[str, Any]) -> str | Trouble:
        row = next((row_id for row_id in range(8) if is_row(body, row_id)), 0)
        seen[row] += 1
        if row == 1 and seen[1] == 1:
            return Trouble(status=503, message="busy")
        troubles = {2: Trouble(status=500, message="always"), 3: Trouble(text="1", wait=1.6), 4: Trouble(reset=True)}
        return troubles.get(row) or (Trouble(body=b"<html>") if row == 5 else overlap(body))

    server = stub(says)
    judge(server, tmp_path, backend="ollama", timeout=1.0, concurrency=8)
    assert failures(tmp_path) == {2: "server_error", 3: "timeout", 4: "connection", 5: "protocol"}
    assert [seen[row_id] for row_id in (1, 2, 3, 4, 5)] == [2, 2, 2, 2, 1]
    server.says = lambda body: Trouble(status=404, message="model 'stub' not found")
    with pytest.raises(UserError, match=r"judge_model: http://127.* no longer has stub"):
        judge(server, tmp_path, [item(0, "new")], backend="ollama")


def test_a_key_is_needed_beyond_this_machine_and_comes_from_the_environment(
    stub: Callable[[Says], StubJudge], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = stub(overlap)
    with pytest.raises(UserError, match=r"judge_base_url: https://api\.openai\.com/v1 wants a key; set OPENAI_API_KEY"):
        judge(server, tmp_path, base_url=None)
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    judge(server, tmp_path, base_url=None)
    assert server.headers[0]["authorization"] == "Bearer a-secret"
    assert not any("a-secret" in path.read_text() for path in tmp_path.iterdir())


def test_two_judges_and_people_are_compared(stub: Callable[[Says], StubJudge], tmp_path: Path) -> None:
    items = [item(0, "apple"), item(1, "no"), right(2), right(3)]
    people = tmp_path / "people.jsonl"
    people.write_text(
        "".join(
            f'{{"row_id": {row}, "name": "tuned", "score": {score}}}\n' for row, score in enumerate([60, 10, 90, 90])
        )
    )
    judge(stub(overlap), tmp_path, items)
    strict = stub(lambda body: json.dumps({"score": json.loads(overlap(body))["score"] // 2}))

    summary = judge_responses(items, settings(strict, model="strict"), tmp_path, people=people)

    assert [entry["judge"] for entry in summary["judges"]] == ["openai:stub", "openai:strict"]
    by_voices = {(each["a"], each["b"]): each for each in summary["agreement"]}
    both = by_voices["openai:stub (rubric)", "openai:strict (rubric)"]
    assert (both["n"], both["spearman"], both["bias"]) == (4, pytest.approx(1.0), (67 - 33 + 0 + 50 + 50) / 4)
    with_people = by_voices["openai:stub (rubric)", "people"]
    assert (with_people["mean_absolute_error"], with_people["bias"]) == ((7 + 10 + 10 + 10) / 4, (7 - 10 + 10 + 10) / 4)
    assert "agreement of openai:stub (rubric) and people on 4 scores" in summary_text(summary)
    assert Counter(each["judge"] for each in verdicts(tmp_path)) == {"openai:stub": 8, "openai:strict": 8}


def test_the_same_judge_with_another_prompt_is_listed_beside_itself(
    stub: Callable[[Says], StubJudge], tmp_path: Path
) -> None:
    items = [item(0, "apple", name="base"), item(1, "no", name="base"), right(0), right(1)]
    server = stub(lambda body: "50" if "score the model response" in body["messages"][1]["content"] else overlap(body))

    def prompts_of(**changes: Any) -> list[list[str]]:
        summary = judge_responses(items, settings(server, **changes), tmp_path)
        return [list(entry["prompts_sha256"]) for entry in summary["judges"]]

    assert prompts_of(mode="pair") == [["pair"]]
    assert prompts_of(mode="both") == [["rubric", "pair"]]  # the pairs alone are in it
    assert prompts_of(mode="both", prompt="classic") == [["rubric", "pair"], ["classic", "pair"]]
    kinds = Counter((each["kind"], each["prompt"]) for each in verdicts(tmp_path) if not each["control"])
    assert kinds == {("score", "rubric"): 4, ("score", "classic"): 4, ("pair", "pair"): 4}
    summary = json.loads((tmp_path / "judge_summary.json").read_text())
    assert [(each["a"], each["b"], each["on"]) for each in summary["agreement"]] == [
        ("openai:stub (rubric)", "openai:stub (classic)", "scores")
    ]


def test_rows_without_any_reference_leave_a_judge_unproved(stub: Callable[[Says], StubJudge], tmp_path: Path) -> None:
    entry = judge(stub(lambda body: '{"score": 50}'), tmp_path, [replace(each, output="") for each in ITEMS])
    assert not entry["controls"]["passed"]
    assert "no control could be made, since no row has a reference" in entry["controls"]["text"]


def test_a_line_separator_in_a_reply_splits_no_line_of_the_files(
    stub: Callable[[Says], StubJudge], tmp_path: Path
) -> None:
    server = stub(lambda body: json.dumps({"reasoning": "a\u2028b\x85c\rd", "score": 50}, ensure_ascii=False))
    judge(server, tmp_path)
    assert {each["reason"] for each in verdicts(tmp_path)} == {"a\u2028b\x85c\rd"}
    assert judge(server, tmp_path)["requests"] == 0


@pytest.mark.parametrize("backend", ["openai", "ollama"])
@pytest.mark.parametrize("escaped", [True, False])
def test_half_a_character_in_a_reply_becomes_a_question_mark(
    stub: Callable[[Says], StubJudge], tmp_path: Path, backend: str, escaped: bool
) -> None:
    server = stub(lambda body: json.dumps({"reasoning": "half \ud83d", "score": 50}, ensure_ascii=escaped))
    judge(server, tmp_path, backend=backend)
    assert {each["reason"] for each in verdicts(tmp_path)} == {"half ?"}


def test_verdicts_on_other_answers_are_left_out_and_reported(stub: Callable[[Says], StubJudge], tmp_path: Path) -> None:
    judge(stub(overlap), tmp_path)
    SAID.clear()
    judge(stub(overlap), tmp_path, [item(0, "new"), *ITEMS[1:]], model="other")
    assert SAID == ["judge: what openai:stub said with rubric was about other answers; left out"]
    assert {each["judge"] for each in verdicts(tmp_path)} == {"openai:other"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"concurrency": 0}, "judge_concurrency: 0 is less than 1"),
        ({"control_rows": 0}, "judge_control_rows: 0 is less than 1"),
        ({"timeout": 0}, "judge_timeout: 0 seconds leave no time to answer"),
        ({"prices": (1.0, -1.0)}, r"judge_prices: \[1.0, -1.0\] is not \[prompt, completion\]"),
    ],
)
def test_senseless_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        JudgeSettings(backend="openai", model="stub", **changes)
