"""What every kind of judge can do, and the one that most servers are: OpenAI's protocol.

A backend turns a question into the body of a request, sends it, and reads the reply. What goes wrong with one request
is an Unanswered with its reason; what would go wrong with all of them (no such model, no key) is a UserError.
"""

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

from heed.errors import UserError
from heed.judge.cache import Reply
from heed.judge.parsing import Verdict, read_reply
from heed.judge.prompts import Message, Question
from heed.judge.settings import JudgeSettings
from heed.servers.addresses import is_loopback

if TYPE_CHECKING:
    from heed.servers.client import NoReply

SEED = 123
LOCAL_REQUESTS, REMOTE_REQUESTS = 4, 8
"""Requests in flight."""
RENAMED = {"max_tokens": "max_completion_tokens"}
"""OpenAI's reasoning models want the newer name; every other server knows the older one."""


class Unanswered(Exception):
    """A request that got no reply; `reason` is counted, `detail` is for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class ParameterRefused(Exception):
    """The server knows no such parameter; ask again without it."""

    def __init__(self, parameter: str) -> None:
        super().__init__(parameter)
        self.parameter = parameter


class Backend(Protocol):
    """A kind of judge. Entered once for a batch of questions, which it may look at before the first is asked."""

    name: str
    model: str
    server: str
    """Where and who: replies and refused parameters are remembered for it."""
    concurrency: int

    def prepare(self, questions: Sequence[Question]) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *error: object) -> None: ...

    def body(self, question: Question, without: frozenset[str], more: Sequence[Message] = ()) -> dict[str, Any]: ...

    async def ask(self, body: dict[str, Any]) -> Reply: ...

    def read(self, question: Question, reply: Reply) -> Verdict: ...


class OpenAIBackend:
    """Any server with /v1/chat/completions: OpenAI, vLLM, llama.cpp, `transformers serve`, Ollama's other interface."""

    name = "openai"

    def __init__(self, settings: JudgeSettings) -> None:
        from heed.servers.client import Server, openai_address, token_for  # takes half a second

        self.model, self.max_tokens = settings.model, settings.max_tokens
        base_url = openai_address(settings.base_url, key="judge_base_url")
        self.server = f"{base_url} {self.model}"
        self.concurrency = settings.concurrency or requests_at_once(base_url)
        token = token_for(base_url, key="judge_base_url")
        self._address = Server(base_url=base_url, token=token, timeout=settings.timeout, retries=settings.retries)

    def prepare(self, questions: Sequence[Question]) -> None:
        """Nothing depends on the others."""

    async def __aenter__(self) -> Self:
        from heed.servers.client import Client

        self._client = Client(self._address)  # of this batch, as the event loop is
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.__aexit__()

    def body(self, question: Question, without: frozenset[str], more: Sequence[Message] = ()) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [*question.messages, *more],
            "temperature": 0,
            "seed": SEED,
            "max_tokens": self.max_tokens,
        }
        if question.schema:
            schema = {"name": "verdict", "strict": True, "schema": question.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return leave_out(body, without)

    async def ask(self, body: dict[str, Any]) -> Reply:
        from heed.servers.client import NoReply

        try:
            completion = await self._client.complete(body)
        except NoReply as error:
            raise explained(error, body, self.server) from error
        return Reply(
            text=completion.text,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            cut=completion.finish_reason == "length",
        )

    def read(self, question: Question, reply: Reply) -> Verdict:
        return read_chat(question, reply)


def read_chat(question: Question, reply: Reply) -> Verdict:
    verdict = read_reply(reply.text, question.kind)
    if reply.cut and verdict.how not in ("schema", "json"):  # an 8 may be the beginning of 85
        return Verdict(value=None, failure="cut")
    return verdict


def again(question: Question, reply: str = "") -> tuple[Message, Message]:
    """The turns that ask once more."""
    return {"role": "assistant", "content": reply or "(nothing)"}, {"role": "user", "content": question.reask}


def leave_out(body: dict[str, Any], without: frozenset[str]) -> dict[str, Any]:
    kept = {}
    for name, value in body.items():
        if name not in without:
            kept[name] = value
        elif name in RENAMED:
            kept[RENAMED[name]] = value
    return kept


def requests_at_once(base_url: str) -> int:
    return LOCAL_REQUESTS if is_loopback(base_url) else REMOTE_REQUESTS


def explained(error: "NoReply", body: dict[str, Any], server: str) -> Exception:
    """What a request without a reply means: for this parameter, for this request, or for all."""
    detail = error.detail
    if error.kind == "key":
        return UserError(f"judge {server}: the key is refused ({detail}); see OPENAI_API_KEY")
    if error.kind == "missing":
        return UserError(
            f"judge {server}: there is no such model, or nothing that chats at this address ({detail}); judge_base_url "
            "usually ends in /v1"
        )
    if error.kind == "redirect":
        return UserError(f"judge {server}: {detail} (judge_base_url)")
    if error.kind == "connection":
        return Unanswered("connection", f"{server.partition(' ')[0]}: {detail}")
    if error.status in (400, 413, 422) and re.search(r"context|too (?:long|large)", detail, re.IGNORECASE):
        return Unanswered("too_long", detail)
    if error.status in (400, 422) and (parameter := refused_parameter(detail, body)):
        return ParameterRefused(parameter)
    return Unanswered(error.kind, detail)


def refused_parameter(message: str, body: dict[str, Any]) -> str | None:
    """The parameter that a 400 complains of; one that names none is put down to the JSON schema."""
    text = message.lower()
    for name in ("response_format", "format", "max_tokens", "temperature", "seed"):
        if name in body and re.search(rf"\b{name}\b", text):
            return name
    schema = next((name for name in ("response_format", "format") if name in body), None)
    return schema if schema and re.search(r"schema|json|grammar", text) else None


def most_request_tokens(body: dict[str, Any]) -> int:
    return len(json.dumps(body, ensure_ascii=False).encode())
