"""Ollama as a judge, through its own protocol."""

import asyncio
import os
from collections.abc import Sequence
from typing import Any, Self
from urllib.parse import urlsplit

from heed.errors import UserError
from heed.judge.cache import Reply
from heed.judge.client import SEED, Unanswered, again, explained, leave_out, read_chat, requests_at_once
from heed.judge.parsing import Verdict
from heed.judge.prompts import Message, Question
from heed.judge.settings import JudgeSettings
from heed.saying import writable
from heed.servers.addresses import check_address

KEY = "OLLAMA_API_KEY"


class OllamaBackend:
    """Ollama's own /api/chat: only there can the context be sized, and a prompt past it is cut silently."""

    name = "ollama"
    SMALLEST_CONTEXT = 4096

    def __init__(self, settings: JudgeSettings) -> None:
        from heed.servers.client import NO_KEY, Server  # takes half a second

        self.model, self.max_tokens = settings.model, settings.max_tokens
        host = settings.base_url or os.environ.get("OLLAMA_HOST") or "http://127.0.0.1:11434"
        host = (host if "://" in host else f"http://{host}").rstrip("/")  # Ollama's own variable mostly has no scheme
        check_address(host, key="judge_base_url", token=KEY)
        if urlsplit(host).path:
            raise UserError(f"judge_base_url: {host} names a path; Ollama's own API has none, give http://HOST:11434")
        self.host = host
        self.server = f"{host} {self.model}"
        self.concurrency = settings.concurrency or requests_at_once(host)
        token = os.environ.get(KEY) or NO_KEY
        self._address = Server(base_url=host, token=token, timeout=settings.timeout, retries=settings.retries)
        self._context = self.SMALLEST_CONTEXT

    def prepare(self, questions: Sequence[Question]) -> None:
        longest = max((most_tokens([*question.messages, *again(question)]) for question in questions), default=0)
        self._context = self._size(longest + 2 * self.max_tokens)

    def _size(self, wanted: int) -> int:
        """One context for all requests, since Ollama loads the model again for another one.

        It is a power of two, so that a few rows more or less change neither it nor the keys of the cache, and no more
        than the model has.
        """
        size = self.SMALLEST_CONTEXT
        while size < wanted:
            size *= 2
        most = self._context_of_model()
        return min(size, most) if most else size

    def _context_of_model(self) -> int | None:
        from heed.servers.client import Client, NoReply

        async def show() -> dict[str, Any]:
            async with Client(self._address) as client:
                return await client.post("/api/show", {"model": self.model})

        try:
            known = asyncio.run(show()).get("model_info")
        except NoReply as error:
            if error.kind == "missing":
                raise UserError(
                    f"judge_model: {self.host} has no {self.model}; run: ollama pull {self.model}"
                ) from error
            if error.status:
                raise UserError(f"judge_base_url: {self.host} says {error.detail!r}") from error
            raise UserError(f"judge_base_url: no Ollama answers at {self.host} ({error.detail})") from error
        sizes = known.items() if isinstance(known, dict) else ()
        return next((value for name, value in sizes if name.endswith(".context_length") and type(value) is int), None)

    async def __aenter__(self) -> Self:
        from heed.servers.client import Client

        self._client = Client(self._address)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.__aexit__()

    def body(self, question: Question, without: frozenset[str], more: Sequence[Message] = ()) -> dict[str, Any]:
        options = {"seed": SEED, "temperature": 0, "num_ctx": self._context, "num_predict": self.max_tokens}
        body: dict[str, Any] = {"model": self.model, "messages": [*question.messages, *more], "options": options}
        if question.schema:
            body["format"] = question.schema
        return leave_out(body, without)

    async def ask(self, body: dict[str, Any]) -> Reply:
        context = body["options"]["num_ctx"]
        if least_tokens(body["messages"]) + self.max_tokens > context:
            raise Unanswered("too_long", f"the request cannot fit into a context of {context} tokens")
        value = await self._send(body)
        message, reason = value.get("message"), value.get("done_reason")
        text = message.get("content") if isinstance(message, dict) else None
        if not isinstance(text, str):
            raise Unanswered("protocol", f"a reply without a message: {str(value)[:200]}")
        prompt_tokens, completion_tokens = (
            count if type(count := value.get(name)) is int else None for name in ("prompt_eval_count", "eval_count")
        )
        # Ollama cuts a prompt that does not fit and answers anyway; its own count gives it away.
        if (prompt_tokens or 0) + self.max_tokens > context:
            raise Unanswered("too_long", f"{prompt_tokens} prompt tokens leave no room in a context of {context}")
        return Reply(
            text=writable(text),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cut=reason == "length",
        )

    async def _send(self, body: dict[str, Any]) -> dict[str, Any]:
        from heed.servers.client import NoReply

        try:
            return await self._client.post("/api/chat", body | {"stream": False})
        except NoReply as error:
            if error.kind == "missing":
                raise UserError(f"judge_model: {self.host} no longer has {self.model} ({error.detail})") from error
            raise explained(error, body, self.server) from error

    def read(self, question: Question, reply: Reply) -> Verdict:
        return read_chat(question, reply)


def most_tokens(messages: Sequence[Message]) -> int:
    """No tokenizer makes more tokens than bytes; a chat template adds a few to each turn."""
    return sum(len(message["content"].encode()) + 16 for message in messages)


def least_tokens(messages: Sequence[Message]) -> int:
    """Fewer than one token for eight bytes is unheard of."""
    return sum(len(message["content"].encode()) for message in messages) // 8
