"""What every kind of judge can do, and the one that most servers are: OpenAI's protocol.

A backend turns a question into the body of a request, sends it, and reads the reply. What goes wrong with one request
is an Unanswered with its reason; what would go wrong with all of them (no such model, no key) is a UserError.
"""

import json
import os
import re
from collections.abc import Sequence
from typing import Any, Protocol, Self

from heed.errors import UserError
from heed.files.run_folder import writable
from heed.judge.cache import Reply
from heed.judge.parsing import Verdict, read_reply
from heed.judge.prompts import Message, Question
from heed.servers.addresses import check_address, is_loopback

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
        base_url = (base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1").rstrip("/")
        check_address(base_url, key="judge_base_url", token="OPENAI_API_KEY")
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
            text=writable(choices[0].message.content or ""),
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=usage.completion_tokens if usage else None,
            cut=choices[0].finish_reason == "length",
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


def most_request_tokens(body: dict[str, Any]) -> int:
    return len(json.dumps(body, ensure_ascii=False).encode())
