"""A judge on the loopback: what a function says is served in OpenAI's protocol and in Ollama's own.

The function gets the body of each request and gives the text of the reply, or a Trouble.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CONTEXT_LENGTH = 8192


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What a server may do instead of answering."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    message: str = ""
    body: bytes | None = None
    """Sent as it is, instead of an error in JSON."""
    wait: float = 0.0
    reset: bool = False
    """Close the connection without a word."""
    text: str | None = None
    """The reply after all, once it has waited."""
    finish_reason: str = "stop"
    usage: dict[str, int] | None = field(default_factory=dict)
    """Counts in place of the stub's own; None sends none."""


Says = Callable[[dict[str, Any]], str | Trouble]


class StubJudge(ThreadingHTTPServer):
    request_queue_size = 64

    def __init__(self, says: Says) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.says = says
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        return f"{self.host}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up waiting is no news."""


@contextmanager
def serve(says: Says) -> Iterator[StubJudge]:
    server = StubJudge(says)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Connection(BaseHTTPRequestHandler):
    server: StubJudge
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/api/show":
            return self.answer(200, {"model_info": {"llama.context_length": CONTEXT_LENGTH}})
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.at_once, self.server.most_at_once)
            said = self.server.says(body)
        trouble = said if isinstance(said, Trouble) else Trouble(text=said)
        time.sleep(trouble.wait)
        with self.server.lock:
            self.server.at_once -= 1
        if trouble.reset:
            self.close_connection = True
        elif trouble.body is not None:
            self.answer(trouble.status, trouble.body, trouble.headers)
        elif trouble.text is None:
            error = trouble.message if self.path == "/api/chat" else {"message": trouble.message}
            self.answer(trouble.status, {"error": error}, trouble.headers)
        else:
            self.answer(200, (ollama_reply if self.path == "/api/chat" else openai_reply)(body, trouble.text, trouble))

    def answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: tests speak through their asserts."""


def prompt_tokens(body: dict[str, Any]) -> int:
    return sum(len(message["content"]) for message in body["messages"]) // 4


def openai_reply(body: dict[str, Any], text: str, trouble: Trouble) -> dict[str, Any]:
    counts = {"prompt_tokens": prompt_tokens(body), "completion_tokens": len(text) // 4 + 1, "total_tokens": 0}
    return {
        "id": "stub",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": trouble.finish_reason}
        ],
        "usage": None if trouble.usage is None else counts | trouble.usage,
    }


def ollama_reply(body: dict[str, Any], text: str, trouble: Trouble) -> dict[str, Any]:
    counts = {"prompt_eval_count": prompt_tokens(body), "eval_count": len(text) // 4 + 1}
    return {
        "model": body["model"],
        "message": {"role": "assistant", "content": text},
        "done": True,
        "done_reason": trouble.finish_reason,
        **counts,
        **(trouble.usage or {}),
    }


def fenced(body: dict[str, Any], name: str) -> str:
    """A text of the request, between the lines that fence it."""
    found = re.search(rf"<{name} (\w{{16}})>\n(.*?)\n?</{name} \1>", body["messages"][1]["content"], re.DOTALL)
    assert found, name
    return found[2]


def overlap(body: dict[str, Any]) -> str:
    """A judge that counts how many words of the reference and of the answer are common to both."""
    reference = words(fenced(body, "reference"))
    if "<answer A " in body["messages"][1]["content"]:
        first, second = (f1(words(fenced(body, f"answer {side}")), reference) for side in "AB")
        winner = "tie" if first == second else "A" if first > second else "B"
        return json.dumps({"reasoning": f"A {first}, B {second}", "winner": winner})
    score = f1(words(fenced(body, "answer")), reference)
    return json.dumps({"reasoning": f"{score} % of the words", "score": score})


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def f1(answer: list[str], reference: list[str]) -> int:
    common = sum(min(answer.count(word), reference.count(word)) for word in set(answer))
    return round(200 * common / (len(answer) + len(reference))) if answer or reference else 0
