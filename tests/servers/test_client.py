"""However a server answers, a request to it ends, and goes nowhere else."""

import asyncio
import gzip
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest

from heed.errors import UserError
from heed.servers.addresses import is_loopback
from heed.servers.client import Client, Completion, LibraryClient, NoReply, Server, openai_address, token_for
from world.raw_server import RawServer, Send, serve_raw

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "a secret"}]}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
GIGABYTES = b"Content-Length: 1500000000\r\n\r\n"
SECONDS = 0.4


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def asked(server: RawServer, **changes: Any) -> Completion:
    async def ask() -> Completion:
        address: dict[str, Any] = {"base_url": server.url, "timeout": SECONDS, "retries": 0} | changes
        async with Client(Server(**address)) as client:
            return await client.complete(BODY)

    return asyncio.run(ask())


def streamed(server: RawServer, **changes: Any) -> Completion:
    async def ask() -> Completion:
        address: dict[str, Any] = {"base_url": server.url, "timeout": SECONDS, "retries": 0} | changes
        async with Client(Server(**address)) as client:
            return await client.stream(BODY, lambda text: None, threading.Event())

    return asyncio.run(ask())


def by_library(server: RawServer, **changes: Any) -> Completion:
    """As AlpacaEval asks: through a client of OpenAI's own class."""
    with LibraryClient(base_url=server.url, timeout=SECONDS, max_retries=0) as client:
        try:
            client.chat.completions.create(**BODY)
        except openai.APITimeoutError:
            raise NoReply("timeout", "") from None
        except openai.OpenAIError as error:
            raise NoReply(getattr(error, "kind", "refused"), str(error)) from error
    raise AssertionError("answered")


def reply(text: str = "Amber.", reason: object = "stop", **changes: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return json.dumps({"choices": [choice]} | changes).encode()


def answer(body: bytes, more: bytes = b"") -> Callable[[Send], None]:
    return lambda send: send(HEAD + more + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)


def drip(before: bytes, part: bytes) -> Callable[[Send], None]:
    def says(send: Send) -> None:
        send(before)
        while True:
            send(part)
            time.sleep(0.05)

    return says


def flood(before: bytes, part: bytes) -> Callable[[Send], None]:
    def says(send: Send) -> None:
        send(before)
        while True:
            send(part)

    return says


CHUNK = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
DELTA = b'data: {"choices": [{"index": 0, "delta": {"content": "more "}, "finish_reason": null}]}\n\n'


@pytest.mark.parametrize("ask", [asked, streamed, by_library])
@pytest.mark.parametrize(
    ("before", "part"),
    [
        (HEAD + GIGABYTES, b" "),
        (HEAD, b"X-Header: and one more\r\n"),
        (b"", b"H"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n" + GIGABYTES, b" "),
        (STREAM, b": still there\n\n"),
        (STREAM, DELTA),
    ],
    ids=["body", "headers", "status", "chunks", "error", "comments", "words"],
)
def test_a_server_that_drips_cannot_hold_up_a_request(
    ask: Callable[..., Completion], before: bytes, part: bytes
) -> None:
    with serve_raw(drip(before, part)) as server:
        began = time.monotonic()
        with pytest.raises(NoReply) as caught:
            ask(server)
        assert time.monotonic() - began < 5 * SECONDS
    assert caught.value.kind == "timeout"


def test_a_try_that_dripped_is_made_again() -> None:
    with serve_raw(drip(HEAD + GIGABYTES, b" ")) as server:
        with pytest.raises(NoReply, match=r"no whole answer in 0\.2 s"):
            asked(server, timeout=0.2, retries=1)
        assert len(server.requests) == 2


@pytest.mark.parametrize("ask", [asked, streamed, by_library])
@pytest.mark.parametrize(
    ("before", "part"),
    [
        (HEAD + GIGABYTES, b" " * 65536),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", CHUNK),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n" + GIGABYTES, b" " * 65536),
        (STREAM, DELTA.replace(b"more ", b"more " * 5000)),
    ],
    ids=["body", "chunks", "error", "words"],
)
def test_a_reply_without_end_is_abandoned_after_a_few_megabytes(
    ask: Callable[..., Completion], before: bytes, part: bytes
) -> None:
    with serve_raw(flood(before, part)) as server:
        with pytest.raises(NoReply, match="a reply of more than 4 MiB, which is not taken") as caught:
            ask(server, timeout=30.0) if ask is not by_library else ask(server)
        assert caught.value.kind == "too_large"
        assert server.sent < 20 * 2**20 and len(server.requests) == 1  # what the sockets hold included


def test_a_packed_reply_is_not_unpacked() -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    with serve_raw(answer(bomb, b"Content-Encoding: gzip\r\n")) as server:
        with pytest.raises(NoReply, match="a reply packed as gzip, which nobody asked for"):
            asked(server)
        assert b"accept-encoding: identity\r\n" in server.requests[0].lower()


@pytest.mark.parametrize("ask", [asked, streamed, by_library])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_named_and_not_followed(ask: Callable[..., Completion], status: int) -> None:
    with serve_raw(answer(reply())) as other:
        head = f"HTTP/1.1 {status} Elsewhere\r\nLocation: {other.url}/chat/completions\r\nContent-Length: 0\r\n\r\n"
        with serve_raw(lambda send: send(head.encode())) as server:
            with pytest.raises(NoReply, match=f"it redirects to {other.url}/chat/completions, which is not") as caught:
                ask(server, retries=2)
            assert caught.value.kind == "redirect" and len(server.requests) == 1
        assert other.requests == []


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 10_000,
        b'{"choices":' * 10_000,
        b"\xff\xfe",
        b"<html>",
        b"[]",
        reply(choices="abc"),
        reply(choices=[]),
        reply(choices=[{"message": None}]),
        reply(choices=[{"message": {"content": [1]}}]),
        reply(usage=[1]),
    ],
)
def test_a_reply_that_is_something_else_is_shown(body: bytes) -> None:
    with serve_raw(answer(body)) as server, pytest.raises(NoReply, match="a reply that is not a ") as caught:
        asked(server)
    assert caught.value.kind == "protocol" and len(caught.value.detail) < 400


@pytest.mark.parametrize("line", [b"[" * 10_000, b"{", b"[1]", b'{"choices": 3}', b'{"choices": [{"delta": 1}]}', b"3"])
def test_a_stream_of_something_else_is_a_sentence(line: bytes) -> None:
    with serve_raw(lambda send: send(STREAM + b"data: " + line + b"\n\n")) as server, pytest.raises(NoReply) as caught:
        streamed(server)
    assert caught.value.kind == "protocol"


def test_a_stream_that_breaks_off_is_a_lost_connection() -> None:
    head = STREAM.replace(b"\r\n\r\n", b"\r\nContent-Length: 9000\r\n\r\n")
    with serve_raw(lambda send: send(head + DELTA)) as server, pytest.raises(NoReply) as caught:
        streamed(server)
    assert caught.value.kind == "connection"


def test_a_key_that_a_server_echoes_is_not_shown() -> None:
    with serve_raw(answer(b"you are sk-secret, I know")) as server, pytest.raises(NoReply) as caught:
        asked(server, token="sk-secret")
    assert caught.value.detail == "a reply that is not a JSON object: you are $OPENAI_API_KEY, I know"


def test_counts_that_are_not_numbers_are_left_out() -> None:
    with serve_raw(answer(reply(usage={"prompt_tokens": "9", "completion_tokens": True}))) as server:
        said = asked(server)
    assert (said.text, said.prompt_tokens, said.completion_tokens) == ("Amber.", None, None)


def test_the_proxy_is_for_other_machines_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_raw(answer(reply("from the proxy"))) as proxy, serve_raw(answer(reply("from here"))) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        port = server.server_address[1]
        for host in ("127.0.0.1", "localhost", "0.0.0.0"):
            assert asked(server, base_url=f"http://{host}:{port}/v1").text == "from here"
        assert asked(server, base_url="http://llm.example/v1").text == "from the proxy"
        assert proxy.requests[0].startswith(b"POST http://llm.example/v1/chat/completions ")


def test_a_key_is_required_for_the_address_that_is_really_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"judge_base_url: https://api\.openai\.com/v1 wants a key; set OPENAI_API_KEY"):
        LibraryClient()
    assert token_for("http://[::1]:8000/v1", key="base_url") == "none"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://llm.example/v1/")
    assert openai_address(None, key="base_url") == "http://llm.example/v1"
    with pytest.raises(UserError, match=r"judge_base_url: http://llm\.example/v1 wants a key"):
        LibraryClient()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    assert LibraryClient().api_key == "sk-1"


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("http://127.0.0.1:1", True),
        ("127.8.9.1:80", True),
        ("http://[::1]/v1", True),
        ("http://0.0.0.0:8000", True),
        ("http://llm.localhost", True),
        ("http://127.0.0.1.example", False),
        ("http://10.0.0.1", False),
        ("http://localhost@llm.example", False),
    ],
)
def test_what_is_this_machine(address: str, here: bool) -> None:
    assert is_loopback(address) is here
