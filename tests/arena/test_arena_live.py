"""Answers shown as they grow are the answers that generation gives."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from heed.answers.generation import generate
from heed.arena.contestants import Failed, Said, together
from heed.arena.live import Loaded, endpoint_asker, load_all, model_asker
from heed.arena.matches import Question
from heed.errors import UserError
from heed.models.loading import load_tokenizer
from heed.prompts.template import load_prompt
from heed.runs.finished import Subject
from world.small_world import TINY, gpt2, save_model

QUESTIONS = [
    Question(row_id=None, messages=({"role": "user", "content": "What is a swan?"},)),
    Question(row_id=1, messages=({"role": "user", "content": "Name the larger number.", "input": "12, 8"},)),
    Question(row_id=2, messages=({"role": "user", "content": "Say <|endoftext|> — naïve ☂."},)),
]


@pytest.fixture(scope="module")
def tiny() -> Loaded:
    [loaded] = load_all([Subject(name="tiny", model=str(TINY))], dtype="float32", prompt="alpaca_short")
    return loaded


def ask(asker: object, question: Question) -> tuple[Said | Failed, list[str]]:
    said: list[str] = []
    return asker(question, said.append, threading.Event()), said  # type: ignore[operator]


@pytest.mark.parametrize("max_new_tokens", [8, 60])
def test_a_live_answer_is_that_of_generation(tiny: Loaded, max_new_tokens: int) -> None:
    expected = generate(
        tiny.model,
        tiny.prompt,
        [tiny.prompt.encode_prompt(question.messages) for question in QUESTIONS],
        stop_token_ids=tiny.contract.stop_token_ids,
        batch_size=3,
        max_new_tokens=max_new_tokens,
    )
    for question, response in zip(QUESTIONS, expected, strict=True):
        answer, said = ask(model_asker(tiny, max_new_tokens=max_new_tokens), question)

        assert answer == Said(text=response.text, cut=response.finish_reason == "length")
        assert said == sorted(said, key=len) and response.text.startswith(said[-1].rstrip("�"))


def test_a_question_that_fills_the_context_fails_with_its_length(tiny: Loaded) -> None:
    long = Question(row_id=None, messages=({"role": "user", "content": "word " * 3000},))
    answer, _ = ask(model_asker(tiny, max_new_tokens=8), long)
    assert isinstance(answer, Failed) and "positions" in answer.reason


def test_two_answers_grow_together_and_stop_when_nobody_watches(tiny: Loaded) -> None:
    asker = model_asker(tiny, max_new_tokens=60)
    *growing, last = together(asker, asker, QUESTIONS[0])

    assert last[0] == last[1] == ask(asker, QUESTIONS[0])[0] and last[2]
    assert growing and not any(whole for *_, whole in growing)

    endless = model_asker(tiny, max_new_tokens=10_000)
    watched = together(endless, endless, QUESTIONS[0])
    next(watched)
    watched.close()  # type: ignore[attr-defined]  # returns once both have stopped


def test_a_model_without_a_contract_is_prompted_by_the_other_ones(tmp_path: Path) -> None:
    base, tuned = (Subject(name=name, model=str(save_model(tmp_path / name, gpt2()))) for name in ("base", "tuned"))
    with pytest.raises(UserError, match="brings no prompt contract"):
        load_all([base], dtype="float32", prompt=None)
    load_prompt("question", load_tokenizer(tuned.model)).contract().save(Path(tuned.model))

    with pytest.raises(UserError, match="prompt: alpaca has no effect: every model brings its own contract"):
        load_all([tuned], dtype="float32", prompt="alpaca")
    both = load_all([base, tuned], dtype="float32", prompt=None)

    assert both[0].contract == both[1].contract and both[0].prompt.name == "question"


def test_a_key_goes_only_to_the_endpoint_it_is_given_for(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    monkeypatch.setenv("THEIR_KEY", "sk-theirs")
    theirs = {"base_url": endpoint, "model": "tell-key"}
    without = endpoint_asker("a", theirs, max_new_tokens=9)
    given = endpoint_asker("b", theirs | {"key_variable": "THEIR_KEY"}, max_new_tokens=9)

    answers = [ask(asker, QUESTIONS[0])[0] for asker in (without, given)]

    assert [answer.text for answer in answers if isinstance(answer, Said)] == ["Bearer none", "Bearer sk-theirs"]
    with pytest.raises(UserError, match="the environment variable MISSING_KEY has no key"):
        endpoint_asker("b", theirs | {"key_variable": "MISSING_KEY"}, max_new_tokens=9)


class Server(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that says each word of its answer in a chunk of its own."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["model"] == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        words = ["You ", "asked: ", body["messages"][-1]["content"]]
        for word in [self.headers["Authorization"]] if body["model"] == "tell-key" else words:
            chunk = {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}\n\n')
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_an_endpoint_streams_its_answer_and_its_failure_is_reported(endpoint: str) -> None:
    asker = endpoint_asker("theirs", {"base_url": endpoint, "model": "m"}, max_new_tokens=9)
    answer, said = ask(asker, QUESTIONS[1])

    assert answer == Said(text="You asked: Name the larger number.\n\n12, 8", cut=True)
    assert said[:2] == ["You ", "You asked: "]
    failed, _ = ask(endpoint_asker("x", {"base_url": endpoint, "model": "missing"}, max_new_tokens=9), QUESTIONS[1])
    assert isinstance(failed, Failed) and endpoint in failed.reason
    with pytest.raises(UserError, match=r"endpoints\.x: expected .* found url; only key_variable may be left out"):
        endpoint_asker("x", {"url": endpoint}, max_new_tokens=9)
