"""The endpoint engine against a stub on the loopback, and against a real `transformers serve` (slow)."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from faults.harness import free_port
from heed.answers.endpoint import Endpoint, ask, chat_messages
from heed.answers.generation import generate
from heed.answers.partial import Response
from heed.data.records import Message
from heed.errors import UserError
from heed.prompts.template import load_prompt
from world.small_world import TINY
from world.stub_endpoint import Reply, completion, error, serve

PLAIN: list[Message] = [{"role": "user", "content": "Name a colour."}]
WITH_INPUT: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Count the words.", "input": "one two three"},
]


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_answers_come_in_order_with_the_servers_own_reasons_and_counts() -> None:
    def reply(body: dict[str, Any]) -> Reply:
        text = body["messages"][-1]["content"]
        time.sleep(0.05 if text == "a" else 0.02)
        return completion(text.upper(), "length" if text == "b" else "stop")

    seen: dict[int, Response] = {}
    with serve(reply) as stub:
        endpoint = Endpoint(base_url=stub.url, model="stub", concurrency=2)
        conversations: list[list[Message]] = [[{"role": "user", "content": letter}] for letter in "abcdef"]
        responses = ask(endpoint, conversations, prompt=None, max_new_tokens=9, on_response=seen.__setitem__)
    assert [each.text for each in responses] == list("ABCDEF")
    assert [each.finish_reason for each in responses][:3] == ["stop", "length", "stop"]
    assert (responses[0].prompt_tokens, responses[0].response_tokens) == (7, 3) and responses[0].seconds >= 0.05
    assert [seen[index] for index in range(6)] == responses
    assert stub.most == 2 and set(stub.tokens) == {"Bearer none"}
    first = min(stub.bodies, key=lambda body: body["messages"][0]["content"])
    assert first == {
        "model": "stub",
        "messages": [{"role": "user", "content": "a"}],
        "temperature": 0,
        "max_tokens": 9,
    }


def test_requests_to_this_machine_bypass_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    with serve(lambda body: completion("A")) as stub:
        endpoint = Endpoint(base_url=stub.url, model="stub", max_retries=0)
        [response] = ask(endpoint, [[{"role": "user", "content": "a"}]], prompt=None, max_new_tokens=9)
    assert response.text == "A"


def test_a_server_that_counts_nothing_or_filters_is_reported_as_it_is() -> None:
    said: list[str] = []
    with serve(lambda body: completion("… \ud83d", "content_filter", usage=None)) as stub:
        endpoint = Endpoint(base_url=stub.url, model="stub")
        [response] = ask(endpoint, [PLAIN], prompt=None, max_new_tokens=9, say=said.append)
    assert (response.prompt_tokens, response.response_tokens) == (None, None)
    assert response.text == "… ?"  # half a character, which no file of ours could contain
    assert response.finish_reason == "content_filter" and said == ["1 answer cut by the server's content filter"]


def refused(reply: Callable[[dict[str, Any]], Reply], **changes: Any) -> str:
    with serve(reply) as stub:
        endpoint = Endpoint(base_url=stub.url, model="llama", **({"max_retries": 1, "concurrency": 1} | changes))
        with pytest.raises(UserError) as caught:
            ask(endpoint, [PLAIN, PLAIN], prompt=None, max_new_tokens=9)
        assert str(caught.value).startswith(f"{stub.url}, request 0: ")
        return str(caught.value).removeprefix(f"{stub.url}, request 0: ")


def test_what_goes_wrong_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert refused(lambda body: error(401, "Incorrect API key provided: sk-secret")) == (
        "the key was refused (401: Incorrect API key provided: $OPENAI_API_KEY); set the right one in the "
        "environment: OPENAI_API_KEY"
    )
    assert refused(lambda body: error(404, "model llama not found")) == (
        "nothing there under the model name 'llama' (404: model llama not found); correct it, or base_url"
    )
    assert refused(lambda body: error(429, "slow down")) == (
        "too many requests, 2 times (429: slow down); ask fewer at once (concurrency), or later"
    )
    assert refused(lambda body: error(500, "out of order")) == (
        "the server failed 2 times (500: out of order); its own log should say why"
    )
    assert refused(lambda body: error(400, "context is 256")) == "refused (400: context is 256)"

    def sleep(body: dict[str, Any]) -> Reply:
        time.sleep(0.3)
        return completion("late")

    assert refused(sleep, timeout=0.1, max_retries=0) == "no answer in 0.1 s, 1 times; allow more (timeout)"


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as held:  # bound, but nobody listens
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/v1"
        with pytest.raises(UserError, match=rf"{re.escape(url)}, request 0: no connection \(.*\); is the server"):
            ask(Endpoint(base_url=url, model="x", max_retries=0), [PLAIN], prompt=None, max_new_tokens=9)


def test_a_busy_server_is_asked_again() -> None:
    replies = iter([error(429, "busy"), error(503, "busy"), completion("yes")])
    with serve(lambda body: next(replies)) as stub:
        endpoint = Endpoint(base_url=stub.url, model="x")
        [response] = ask(endpoint, [PLAIN], prompt=None, max_new_tokens=9)
    assert response.text == "yes" and len(stub.bodies) == 3


def test_what_was_answered_before_an_error_is_kept() -> None:
    def reply(body: dict[str, Any]) -> Reply:
        return error(400, "no") if body["messages"][0]["content"] == "c" else completion("yes")

    seen: list[int] = []
    with serve(reply) as stub, pytest.raises(UserError, match="request 2: refused"):
        conversations: list[list[Message]] = [[{"role": "user", "content": letter}] for letter in "abcd"]
        endpoint = Endpoint(base_url=stub.url, model="x", concurrency=1)
        ask(endpoint, conversations, prompt=None, max_new_tokens=9, on_response=lambda index, each: seen.append(index))
    assert seen == [0, 1] and len(stub.bodies) == 3


def test_a_server_that_speaks_something_else_is_refused() -> None:
    with serve(lambda body: (200, {"hello": "world"})) as stub:
        endpoint = Endpoint(base_url=stub.url, model="x")
        with pytest.raises(UserError, match=r"request 0: a reply that is not a chat completion: \{'hello'"):
            ask(endpoint, [PLAIN], prompt=None, max_new_tokens=9)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        *((each, "stop") for each in ("stop", "eos_token", "stop_sequence", "end_turn", "STOP")),
        *((each, "length") for each in ("length", "max_tokens", "model_length")),
        *((each, None) for each in (None, "tool_calls", "abort", 7, ["stop"])),
    ],
)
def test_a_servers_own_finish_reason_is_a_stop_or_a_cut_or_unknown(reason: Any, expected: str | None) -> None:
    said: list[str] = []
    with serve(lambda body: completion("Amber.", reason)) as stub:
        endpoint = Endpoint(base_url=stub.url, model="x")
        [response] = ask(endpoint, [PLAIN], prompt=None, max_new_tokens=9, say=said.append)
    assert (response.text, response.finish_reason) == ("Amber.", expected)
    assert said == (
        []
        if expected
        else [
            f"1 answers ended for a reason that does not say whether they are whole ({reason}); "
            "they count neither as whole nor as cut"
        ]
    )


def test_the_token_comes_from_the_environment_and_only_loopback_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("localhost", "[::1]", "0.0.0.0"):
        assert Endpoint(base_url=f"http://{host}:1/v1", model="x").server.token == "none"
    with pytest.raises(
        UserError, match=r"base_url: https://llm\.example/v1 wants a key; set OPENAI_API_KEY in the env"
    ):
        _ = Endpoint(base_url="https://llm.example/v1", model="x").server
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    server = Endpoint(base_url="https://llm.example/v1", model="x").server
    assert server.token == "sk-1" and "sk-1" not in repr(server)
    with pytest.raises(UserError, match="is not the address of a server"):
        Endpoint(base_url="127.0.0.1:8000", model="x")
    with pytest.raises(UserError, match="leave name and password out"):
        Endpoint(base_url="http://me:secret@llm.example/v1", model="x")


@pytest.mark.parametrize("name", ["alpaca_short", "chatml", "phi3", "question"])
def test_a_message_shows_the_input_as_the_template_does(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """So the server, which knows no `input`, renders the very text of training."""
    prompt = load_prompt(name, tokenizer)
    sent = chat_messages(WITH_INPUT, prompt)
    assert [set(each) for each in sent] == [{"role", "content"}] * 2
    as_messages: Any = sent
    assert prompt.encode_prompt(as_messages) == prompt.encode_prompt(WITH_INPUT)
    assert chat_messages(PLAIN, prompt) == PLAIN
    if name == "alpaca_short":
        assert sent[1]["content"] == "Count the words.\n\n### Input:\none two three"


def test_an_input_that_no_message_can_carry_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = load_prompt("alpaca", tokenizer)
    assert chat_messages(PLAIN, prompt) == PLAIN
    with pytest.raises(UserError, match="endpoint cannot show a row's input as prompt 'alpaca' does"):
        chat_messages(WITH_INPUT[1:], prompt)


def test_a_model_with_its_own_template_gets_the_input_after_the_instruction() -> None:
    assert chat_messages(WITH_INPUT, None) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Count the words.\n\none two three"},
    ]


def test_typed_control_tokens_are_reported(tokenizer: PreTrainedTokenizerBase) -> None:
    said: list[str] = []
    conversation: list[Message] = [{"role": "user", "content": "What is <|endoftext|>?"}]
    with serve(lambda body: completion("an end")) as stub:
        endpoint = Endpoint(base_url=stub.url, model="x")
        prompt = load_prompt("question", tokenizer)
        ask(endpoint, [conversation, PLAIN], prompt=prompt, max_new_tokens=9, say=said.append)
    assert said == ["1 row with control tokens typed by the author; a server may not take them for text"]


@contextmanager
def transformers_serve(folder: Path, log: Path) -> Iterator[str]:
    port = free_port()
    words = ["serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "transformers.cli.transformers", *words],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_transformers_serve_answers_as_the_model_does_here(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Prompts with and without input, text, stop reasons and token counts."""
    from heed.models.loading import load_model

    prompt = load_prompt("alpaca_short", tokenizer)
    folder = tmp_path / "served"
    model = load_model(str(TINY)).eval()
    model.save_pretrained(folder)
    tokenizer.chat_template = prompt.template
    tokenizer.save_pretrained(folder)
    conversations: list[list[Message]] = [
        [{"role": "user", "content": "Name a colour."}],
        [{"role": "user", "content": "Write a word.", "input": "The sum of 10 and 2."}],
        [{"role": "user", "content": "What is the capital?"}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Rewrite.", "input": "a b\n c"}],
    ]
    ids = [prompt.encode_prompt(conversation) for conversation in conversations]
    expected = generate(
        model, prompt, ids, stop_token_ids=[prompt.eos_token_id], batch_size=None, max_new_tokens=24, engine="one"
    )
    with transformers_serve(folder, tmp_path / "log") as url:
        endpoint = Endpoint(base_url=url, model=str(folder), max_retries=0)
        responses = ask(endpoint, conversations, prompt=prompt, max_new_tokens=24)
        with pytest.raises(UserError, match="request 0: "):
            ask(Endpoint(base_url=url, model="no/such", max_retries=0), [PLAIN], prompt=prompt, max_new_tokens=2)
    assert [each.text for each in responses] == [each.text for each in expected]
    assert [each.prompt_tokens for each in responses] == [each.prompt_tokens for each in expected]
    assert [each.finish_reason for each in responses] == [each.finish_reason for each in expected]
    assert [each.response_tokens for each in responses] == [each.response_tokens for each in expected]
    assert all(each.text for each in responses)
