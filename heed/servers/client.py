"""The one client of servers that answer over HTTP: waiting and reading have limits, and nothing is sent elsewhere.

The SDK of OpenAI does the asking, with its retries and its pauses between them. A try ends in time even if the server
sends a byte every second; a reply has an end; a redirect is not followed, since the whole prompt would go there.
"""

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import httpx2
import openai

from heed.errors import UserError
from heed.saying import Say, writable
from heed.servers.addresses import check_address, is_loopback

KEY = "OPENAI_API_KEY"
NO_KEY = "none"  # the SDK insists on a key
LARGEST_REPLY = 4 * 2**20
Kind = Literal[
    "timeout",
    "connection",
    "redirect",
    "too_large",
    "key",
    "missing",
    "rate_limit",
    "server_error",
    "refused",
    "protocol",
]
FinishReason = Literal["stop", "length", "content_filter"]
# As servers have them: OpenAI and vLLM; TGI; Anthropic's and Google's compatible interfaces; Mistral.
FINISH_REASONS: dict[str, FinishReason] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "stop_token", "stop_sequence", "end_turn"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_length", "model_length"), "length"),
    **dict.fromkeys(("content_filter", "safety"), "content_filter"),
}


class NoReply(Exception):
    """A request that failed."""

    def __init__(self, kind: Kind, detail: str, status: int | None = None) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.status = kind, detail, status


class Unwanted(openai.OpenAIError):
    """A reply that is not taken; the SDK passes its own errors on and does not ask again."""

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What a server said in OpenAI's protocol. Tokens are None where it does not count them."""

    text: str
    finish_reason: FinishReason | None
    """None for a reason that does not say whether the reply is whole."""
    server_reason: str | None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where a server is and how long to wait for it: `timeout` seconds for each try, from the first byte sent to the
    last one received."""

    base_url: str
    token: str = field(default=NO_KEY, repr=False)
    timeout: float
    retries: int = 2
    """After 408, 409, 429, 5xx, a time-out or a lost connection, with growing pauses between (the SDK's)."""


def token_for(base_url: str, *, key: str) -> str:
    """From the environment alone. Raises UserError where there is none, except for a server on this machine."""
    if token := os.environ.get(KEY):
        return token
    if is_loopback(base_url):
        return NO_KEY
    raise UserError(
        f"{key}: {base_url} wants a key; set {KEY} in the environment (to anything, if the server asks for none)"
    )


def openai_address(base_url: str | None, *, key: str) -> str:
    """Where OpenAI's SDK would go. Raises UserError for what is not an address."""
    address = (base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1").rstrip("/")
    check_address(address, key=key, token=KEY)
    return address


class Client:
    """Belongs to the event loop that it is first used in."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.sdk = openai.AsyncOpenAI(
            base_url=server.base_url,
            api_key=server.token,
            max_retries=server.retries,
            timeout=server.timeout,
            http_client=Bounded(server.base_url, seconds=server.timeout),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.sdk.close()

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The object that the server answers with. Raises NoReply."""
        try:
            response = await self.sdk.post(path, body=dict(body), cast_to=httpx2.Response)
        except openai.OpenAIError as error:
            raise self.no_reply(error) from error
        try:
            value = json.loads(response.content.decode())
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise NoReply("protocol", f"a reply that is not a JSON object: {self.shown(response.text)}")
        return value

    async def complete(self, body: Mapping[str, Any]) -> Completion:
        """Raises NoReply, also for a reply without a text."""
        value = await self.post("/chat/completions", body)
        try:
            choice, usage = value["choices"][0], value.get("usage") or {}
            text = choice["message"].get("content") or ""
            if not isinstance(text, str):
                raise TypeError(text)
            reason = choice.get("finish_reason")
            return Completion(
                text=writable(text),
                finish_reason=finish_reason(reason),
                server_reason=None if reason is None else self.shown(reason),
                prompt_tokens=whole_number(usage.get("prompt_tokens")),
                completion_tokens=whole_number(usage.get("completion_tokens")),
            )
        except (KeyError, IndexError, TypeError, AttributeError):
            raise NoReply("protocol", f"a reply that is not a chat completion: {self.shown(value)}") from None

    async def stream(self, body: Mapping[str, Any], say: Say, stop: threading.Event) -> Completion:
        """A completion; `say` receives its text as it grows. It ends early once the event is set.

        Raises NoReply.
        """
        text, reason = "", None
        create: Any = self.sdk.chat.completions.create
        try:
            async with asyncio.timeout(self.server.timeout), await create(**body, stream=True) as chunks:
                async for chunk in chunks:
                    if stop.is_set():
                        break
                    if chunk.choices:
                        text += chunk.choices[0].delta.content or ""
                        reason = chunk.choices[0].finish_reason or reason
                        say(writable(text))
        except (openai.OpenAIError, httpx2.HTTPError) as error:  # the SDK passes on what breaks a stream
            raise self.no_reply(error) from error
        except TimeoutError:
            raise NoReply("timeout", f"no whole answer in {self.server.timeout:g} s") from None
        except (ValueError, RecursionError, TypeError, AttributeError, IndexError) as error:
            raise NoReply("protocol", f"a stream that is not a chat completion ({self.shown(error)})") from error
        return Completion(text=writable(text), finish_reason=finish_reason(reason), server_reason=reason)

    def no_reply(self, error: Exception) -> NoReply:
        """What an error of the SDK means."""
        if isinstance(error, Unwanted):
            return NoReply(error.kind, self.shown(error))
        if isinstance(error, openai.APITimeoutError):
            return NoReply("timeout", f"no whole answer in {self.server.timeout:g} s")
        if isinstance(error, openai.APIConnectionError):
            return NoReply("connection", self.shown(error.__cause__ or error))
        if isinstance(error, openai.APIStatusError):
            return NoReply(kind_of(error.status_code), self.shown(message_of(error)), error.status_code)
        if isinstance(error, httpx2.HTTPError):
            return NoReply("connection", self.shown(error))
        return NoReply("protocol", self.shown(error))

    def shown(self, words: object) -> str:
        """One line for people. A server may echo the key."""
        text = writable(" ".join(str(words).split()))
        return (text if self.server.token == NO_KEY else text.replace(self.server.token, f"${KEY}"))[:300]


class Bounded(openai.DefaultAsyncHttpxClient):
    """One try at an address: an end in time and size, no proxy to this machine, no redirect."""

    def __init__(self, url: str, *, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(
            timeout=seconds,
            trust_env=not is_loopback(url),  # a proxy cannot reach this machine
            follow_redirects=False,
            headers={"Accept-Encoding": "identity"},  # so that what is counted is what is unpacked
        )

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        try:
            async with asyncio.timeout(self.seconds):
                response = await super().send(request, stream=True, **options)
                try:
                    refuse_unwanted(response)
                    response.stream = Counted(response.stream)
                    if not stream:
                        await response.aread()
                except BaseException:
                    await response.aclose()
                    raise
                return response
        except TimeoutError as error:
            raise httpx2.ReadTimeout(f"no whole reply in {self.seconds:g} s", request=request) from error


def refuse_unwanted(response: httpx2.Response) -> None:
    if response.is_redirect:
        target = response.headers.get("Location", "nowhere")
        raise Unwanted(
            "redirect", f"it redirects to {target}, which is not followed; if that is the right address, give it"
        )
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise Unwanted("protocol", f"a reply packed as {response.headers['Content-Encoding']}, which nobody asked for")


class Counted(httpx2.AsyncByteStream):
    """A reply that may be read up to LARGEST_REPLY."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self.stream:
            size += len(part)
            if size > LARGEST_REPLY:
                raise Unwanted("too_large", f"a reply of more than {LARGEST_REPLY // 2**20} MiB, which is not taken")
            yield part

    async def aclose(self) -> None:
        await self.stream.aclose()


class LibraryClient(openai.OpenAI):
    """The same bounds for libraries that make a client of OpenAI's class themselves."""

    def __init__(self, *, base_url: str | None = None, timeout: float = 120.0, **options: Any) -> None:
        address = openai_address(base_url, key="judge_base_url")
        token = token_for(address, key="judge_base_url")
        super().__init__(
            base_url=address,
            api_key=token,
            timeout=timeout,
            http_client=BoundedThread(address, seconds=timeout),
            **options,
        )


class BoundedThread(openai.DefaultHttpxClient):
    """Bounded, for a thread that has no event loop."""

    def __init__(self, url: str, *, seconds: float) -> None:
        super().__init__()
        self.url, self.seconds = url, seconds

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        async def send() -> httpx2.Response:
            async with Bounded(self.url, seconds=self.seconds) as client:
                return await client.send(request)

        reply = asyncio.run(send())
        return httpx2.Response(reply.status_code, headers=reply.headers, content=reply.content, request=request)


def kind_of(status: int) -> Kind:
    if status >= 500:
        return "server_error"
    kinds: dict[int, Kind] = {401: "key", 403: "key", 404: "missing", 429: "rate_limit"}
    return kinds.get(status, "refused")


def message_of(error: openai.APIStatusError) -> str:
    """The status and what the server says of it; the parameter it names, if any, is part of that."""
    body: Any = error.body
    if not isinstance(body, dict):
        return f"{error.status_code}: {body or error.message}"
    message, parameter = str(body.get("message", body)), body.get("param")
    named = f" ({parameter})" if parameter and str(parameter) not in message else ""
    return f"{error.status_code}: {message}{named}"


def finish_reason(reason: object) -> FinishReason | None:
    return FINISH_REASONS.get(str(reason).lower())


def whole_number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
