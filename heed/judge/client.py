"""Who judges: servers that speak OpenAI's protocol, and Ollama by its own. (decision.py asks a model in this process.)

A backend turns a question into the body of a request, sends it, and reads the reply. What goes wrong with one request
is an Unanswered with its reason; what would go wrong with all of them (no such model, no key) is a UserError.
"""

import asyncio
import ipaddress
import json
import os
import re
from collections.abc import Sequence
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

from heed.errors import UserError
from heed.judge.cache import Reply
from heed.judge.parsing import Verdict, read_reply
from heed.judge.prompts import Message, Question

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
    """Where and who: refused parameters are remembered for it."""
    concurrency: int

    def prepare(self, questions: Sequence[Question]) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *error: object) -> None: ...

    def body(self, question: Question, without: frozenset[str], more: Sequence[Message] = ()) -> dict[str, Any]: ...

    async def ask(self, body: dict[str, Any]) -> Reply: ...

    def read(self, question: Question, reply: Reply) -> Verdict: ...


class OpenAIBackend:
    """Any server with /v1/chat/completions: OpenAI, vLLM, llama.cpp, `transformers serve`, Ollama's second face."""

    name = "openai"

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
        import openai  # takes half a second

        self.model, self.max_tokens = model, max_tokens
        base_url = base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        local = is_loopback(base_url)
        self.server = f"{base_url} {model}"
        self.base_url = base_url
        self.concurrency = concurrency or (LOCAL_REQUESTS if local else REMOTE_REQUESTS)
        key = os.environ.get("OPENAI_API_KEY") or ("none" if local else None)
        if key is None:
            raise UserError(
                f"judge_base_url: {base_url} wants a key; set OPENAI_API_KEY in the environment (to anything, if the "
                "server asks for none)"
            )
        # The client belongs to the event loop it is first used in, so each batch of questions opens one.
        self._open = lambda: openai.AsyncOpenAI(
            api_key=key,
            base_url=base_url,
            timeout=timeout,
            max_retries=retries,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not local),  # a proxy cannot reach this machine
        )

    def prepare(self, questions: Sequence[Question]) -> None:
        """Nothing depends on the others."""

    async def __aenter__(self) -> Self:
        self._client = self._open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()

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
        import openai

        try:
            completion = await self._client.chat.completions.create(**body)
        except openai.APITimeoutError as error:
            raise Unanswered("timeout", str(error)) from error
        except openai.APIConnectionError as error:
            raise Unanswered("connection", f"{self.base_url}: {error.__cause__ or error}") from error
        except openai.APIStatusError as error:
            raise explain_status(error.status_code, error.message, body, self.server) from error
        except (openai.OpenAIError, ValueError) as error:  # a reply that is not of the protocol
            raise Unanswered("protocol", str(error)) from error
        choices = getattr(completion, "choices", None)
        if not choices or choices[0].message is None:
            raise Unanswered("protocol", f"a reply without choices: {str(completion)[:200]}")
        usage = completion.usage
        return Reply(
            text=choices[0].message.content or "",
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=usage.completion_tokens if usage else None,
            cut=choices[0].finish_reason == "length",
        )

    def read(self, question: Question, reply: Reply) -> Verdict:
        return read_chat(question, reply)


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
        if urlsplit(host).path.strip("/"):
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
            text=response.message.content or "",
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


def explain_status(status: int, message: str, body: dict[str, Any], server: str) -> Exception:
    """What an HTTP error means: for this parameter, for this request, or for all."""
    detail = f"{status}: {' '.join(message.split())[:300]}"
    if status in (401, 403):
        return UserError(f"judge {server}: the key is refused ({detail}); see OPENAI_API_KEY")
    if status == 404:
        return UserError(
            f"judge {server}: there is no such model, or nothing that chats at this address ({detail}); judge_base_url "
            "usually ends in /v1"
        )
    if status in (400, 413, 422) and re.search(r"context|too (?:long|large)", message, re.IGNORECASE):
        return Unanswered("too_long", detail)
    if status in (400, 422) and (parameter := refused_parameter(message, body)):
        return ParameterRefused(parameter)
    if status == 429:
        return Unanswered("rate_limit", detail)
    return Unanswered("server_error" if status >= 500 else "refused", detail)


def refused_parameter(message: str, body: dict[str, Any]) -> str | None:
    """The parameter that a 400 complains of; one that names none is put down to the JSON schema."""
    text = message.lower()
    for name in ("response_format", "format", "max_tokens", "temperature", "seed"):
        if name in body and re.search(rf"\b{name}\b", text):
            return name
    schema = next((name for name in ("response_format", "format") if name in body), None)
    return schema if schema and re.search(r"schema|json|grammar", text) else None


def is_loopback(url: str) -> bool:
    host = urlsplit(url if "://" in url else f"//{url}").hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def most_tokens(messages: Sequence[Message]) -> int:
    """No tokenizer makes more tokens than bytes; a chat template adds a few to each turn."""
    return sum(len(message["content"].encode()) + 16 for message in messages)


def least_tokens(messages: Sequence[Message]) -> int:
    """Fewer than one token for eight bytes are not heard of."""
    return sum(len(message["content"].encode()) for message in messages) // 8


def most_request_tokens(body: dict[str, Any]) -> int:
    return len(json.dumps(body, ensure_ascii=False).encode())
