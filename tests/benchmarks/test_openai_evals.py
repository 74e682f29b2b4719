"""OpenAI Evals on four rows whose accuracies are known by hand."""

import json
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from heed.answers.responses import Answer
from heed.benchmarks import openai_evals, readiness
from heed.errors import UserError
from world.raw_server import Send, serve_raw
from world.small_world import gpt2, save_model
from world.stub_annotator import stub_judge

needs_evals = pytest.mark.skipif(
    not (readiness.EVALS / "evals").is_dir(), reason="make evals-setup installs OpenAI Evals"
)

# match: the answer begins with the reference (row 0); includes: has it (rows 0 and 1); fuzzy: one has the other
# after normalization (rows 0, 1 and 2); row 3 is wrong. The last row's braces must survive evals' own templates.
PAIRS = [("Paris", "Paris."), ("Rome", "It is Rome"), ("The Oslo", "oslo!"), ("{Bern}", "Riga")]
ROWS = [
    Answer(
        row_id=n,
        instruction=f"Capital {n} {{x}}?",
        input="Europe" if n else "",
        output=output,
        model_response=response,
    )
    for n, (output, response) in enumerate(PAIRS)
]


def registry(folder: Path, url: str | None = None, model: str = "none") -> Path:
    return openai_evals.write_registry(
        folder,
        {"tuned": ROWS},
        {"tuned": model},
        judge_model="stub" if url else None,
        judge_base_url=url,
    )


@pytest.mark.slow
@needs_evals
def test_the_graders_score_as_counted_by_hand(tmp_path: Path) -> None:
    outcome = openai_evals.outcome("tuned", registry(tmp_path), {}, n_full=4, judged=False, version="1", n=4)
    assert {score.task: (score.value, score.pooled) for score in outcome.scores} == {
        "heed-match": (0.25, [1.0, 0.0, 0.0, 0.0]),
        "heed-includes": (0.5, [1.0, 1.0, 0.0, 0.0]),
        "heed-fuzzy_match": (0.75, [1.0, 1.0, 1.0, 0.0]),
    }


@pytest.mark.slow
@needs_evals
def test_a_model_grades_with_the_judges_words(tmp_path: Path) -> None:
    with stub_judge("o") as (url, requests):  # agrees with answers that contain an o: Rome and oslo
        outcome = openai_evals.outcome("tuned", registry(tmp_path, url), {}, n_full=4, judged=True, version="1", n=4)
    fact = outcome.scores[-1]
    assert (fact.task, fact.value, fact.pooled) == ("heed-fact", 0.5, [0.0, 1.0, 1.0, 0.0])
    assert fact.note == "the judge chose C 2, D 2; 0 unclear"
    assert len(requests) == 4
    with stub_judge("o", silent=True) as (url, _), pytest.raises(UserError, match="named no choice for 4 of 4"):
        openai_evals.outcome("tuned", registry(tmp_path, url), {}, n_full=4, judged=True, version="1", n=4)


REDIRECT = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://elsewhere.example/v1\r\nContent-Length: 0\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1500000000\r\n\r\n"


@pytest.mark.slow
@needs_evals
@pytest.mark.parametrize(
    ("head", "part", "reason"),
    [(REDIRECT, b"", "it redirects to http://elsewhere"), (ENDLESS, b" " * 2**20, "a reply of more than 4 MiB")],
)
def test_a_judge_is_asked_within_the_bounds_of_our_own_client(
    tmp_path: Path, head: bytes, part: bytes, reason: str
) -> None:
    def says(send: Send) -> None:
        send(head)
        while part:
            send(part)

    with (
        serve_raw(says) as server,
        pytest.raises(UserError, match=f"(?s)heed-fact failed, nothing is scored: .*{reason}"),
    ):
        openai_evals.run_eval(
            "heed-replay-tuned,heed-judge", "heed-fact", registry(tmp_path, server.url), tmp_path / "fact.jsonl"
        )
    assert server.sent < len(ROWS) * 20 * 2**20


@pytest.mark.slow
@needs_evals
def test_a_model_is_asked_with_its_contract(tmp_path: Path) -> None:
    from heed.models.loading import load_tokenizer
    from heed.prompts.template import load_prompt

    model = save_model(tmp_path / "model", gpt2())
    prompt = load_prompt("alpaca_short", load_tokenizer(str(model)))
    prompt.contract().save(model)
    place = registry(tmp_path, model=str(model))
    record = tmp_path / "asked.jsonl"
    openai_evals.run_eval("heed-ask-tuned", "heed-includes", place, record)
    sampled = [
        event["data"] for event in map(json.loads, record.read_text().splitlines()) if event.get("type") == "match"
    ]
    assert len(sampled) == 4 and all(isinstance(each["sampled"], str) for each in sampled)


def test_one_question_with_two_answers_is_refused(tmp_path: Path) -> None:
    again = replace(ROWS[3], row_id=9, model_response="Bern")
    with pytest.raises(UserError, match="rows 3 and 9 end in the same question"):
        openai_evals.write_registry(
            tmp_path, {"tuned": [*ROWS, again]}, {"tuned": "none"}, judge_model=None, judge_base_url=None
        )


@pytest.mark.slow
@needs_evals
def test_a_row_without_an_answer_stops_the_eval(tmp_path: Path) -> None:
    place = registry(tmp_path)
    (tmp_path / "responses-tuned.json").write_text(json.dumps([asdict(row) for row in ROWS[:2]]))
    with pytest.raises((UserError, subprocess.SubprocessError), match="heed-includes failed"):
        openai_evals.run_eval("heed-replay-tuned", "heed-includes", place, tmp_path / "out.jsonl")
