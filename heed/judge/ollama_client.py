"""Ollama as a judge, by its own protocol."""

import asyncio
import os
from collections.abc import Sequence
from typing import Any, Self
from urllib.parse import urlsplit

from heed.errors import UserError
from heed.files.run_folder import writable
from heed.judge.cache import Reply
from heed.judge.client import (
    LOCAL_REQUESTS,
    REMOTE_REQUESTS,
    SEED,
    Unanswered,
    again,
    explain_status,
    leave_out,
    read_chat,
)
from heed.judge.parsing import Verdict
from heed.judge.prompts import Message, Question
from heed.servers.addresses import check_address, is_loopback


class OllamaBackend:
    """Ollama's own /api/chat: only there can the context be sized, and a prompt past it is cut without a word."""

    name = "ollama"
    SMALLEST_CONTEXT = 4096

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None,
        timeout: float,
        retries: int,
        max_tokens: int,
        concurrency: int | None,
    ) -> None:
        self.model, self.max_tokens, self.retries = model, max_tokens, retries
        host = base_url or os.environ.get("OLLAMA_HOST") or "http://127.0.0.1:11434"
        host = (host if "://" in host else f"http://{host}").rstrip("/")  # Ollama's own variable has no scheme, mostly
        check_address(host, key="judge_base_url", token="OLLAMA_API_KEY")
        if urlsplit(host).path:
            raise UserError(f"judge_base_url: {host} names a path; Ollama's own API has none, give http://HOST:11434")
        self.host, self.local, self.timeout = host, is_loopback(host), timeout
        self.server = f"{host} {model}"
        self.concurrency = concurrency or (LOCAL_REQUESTS if self.local else REMOTE_REQUESTS)
        self._context = self.SMALLEST_CONTEXT

    def prepare(self, questions: Sequence[Question]) -> None:
        longest = max((most_tokens([*question.messages, *again(question)]) for question in questions), default=0)
        self._context = self._size(longest + 2 * self.max_tokens)

    def _size(self, wanted: int) -> int:
        """One context for all requests, since Ollama loads the model anew for another one.

        It is a power of two, so that a few rows more or less change neither it nor the keys of the cache, and no more
        than the model has.
        """
        size = self.SMALLEST_CONTEXT
        while size < wanted:
            size *= 2
        most = self._context_of_model()
        return min(size, most) if most else size

    def _context_of_model(self) -> int | None:
        import httpx
        import ollama

        try:
            with ollama.Client(self.host, timeout=self.timeout, trust_env=not self.local) as client:
                info = client.show(self.model).modelinfo or {}
        except ollama.ResponseError as error:
            if error.status_code == 404:
                raise UserError(
                    f"judge_model: {self.host} has no {self.model}; run: ollama pull {self.model}"
                ) from error
            raise UserError(f"judge_base_url: {self.host} says {error.error!r}") from error
        except (OSError, httpx.TransportError, ValueError) as error:
            raise UserError(f"judge_base_url: no Ollama answers at {self.host} ({error})") from error
        return next((int(value) for name, value in info.items() if name.endswith(".context_length")), None)

    async def __aenter__(self) -> Self:
        import ollama

        self._client = ollama.AsyncClient(self.host, timeout=self.timeout, trust_env=not self.local)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()

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
        response = await self._send(body)
        prompt_tokens, completion_tokens = response.prompt_eval_count, response.eval_count
        # Ollama cuts a prompt that does not fit and answers all the same; its own count gives it away.
        if (prompt_tokens or 0) + self.max_tokens > context:
            raise Unanswered("too_long", f"{prompt_tokens} prompt tokens leave no room in a context of {context}")
        return Reply(
            text=writable(response.message.content or ""),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cut=response.done_reason == "length",
        )

    async def _send(self, body: dict[str, Any]) -> Any:
        """The `ollama` package does not retry."""
        import httpx
        import ollama

        for attempt in range(self.retries + 1):
            try:
                return await self._client.chat(**body, stream=False)
            except ollama.ResponseError as error:
                if error.status_code == 404:
                    raise UserError(f"judge_model: {self.host} no longer has {self.model} ({error.error})") from error
                failure = explain_status(error.status_code, error.error, body, self.server)
                if not isinstance(failure, Unanswered) or failure.reason not in ("rate_limit", "server_error"):
                    raise failure from error
            except httpx.TimeoutException as error:
                failure = Unanswered("timeout", f"no reply ({type(error).__name__})")
            except (httpx.TransportError, ConnectionError) as error:
                failure = Unanswered("connection", f"{self.host}: {error}")
            except ValueError as error:  # not JSON, or not of the protocol
                raise Unanswered("protocol", str(error)) from error
            if attempt < self.retries:
                await asyncio.sleep(min(0.5 * 2**attempt, 8.0))
        raise failure

    def read(self, question: Question, reply: Reply) -> Verdict:
        return read_chat(question, reply)


def most_tokens(messages: Sequence[Message]) -> int:
    """No tokenizer makes more tokens than bytes; a chat template adds a few to each turn."""
    return sum(len(message["content"].encode()) + 16 for message in messages)


def least_tokens(messages: Sequence[Message]) -> int:
    """Fewer than one token for eight bytes are not heard of."""
    return sum(len(message["content"].encode()) for message in messages) // 8
