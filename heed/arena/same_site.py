"""What the arena's server refuses: large and endless requests, uploads, strangers; and what its pages may not do."""

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from heed.arena.votes import voter_name

MAX_BODY = 64 * 1024
BODY_PATIENCE = 10.0  # seconds until a request has arrived
MOST_UNDER_WAY = 512
"""Requests; an open page has one or two."""
MOST_LOGINS = 8
LOCAL_HOST = re.compile(rb"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")
# Gradio has routes for files that nothing here needs.
NOT_SERVED = ("/upload", "/file=", "/file/", "/proxy=", "/stream/")
# What the page that asks for the password is made of, and what Gradio asks itself when it starts.
BEFORE_LOGIN = re.compile(
    r"/|/login/?|/(static|assets|svelte)/.*|(/gradio_api)?/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt"
    r"|/gradio_api/startup-events"
)
LOGIN = ("/login", "/login/")
# Gradio's pages have inline scripts and make functions of text; what matters is that they can talk to nobody else.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'self'; "
    "object-src 'none'; frame-ancestors 'none'"
)
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}
FIRST_WAIT, LONGEST_WAIT = 1.0, 8.0

LoggedIn = Callable[[Any], bool]
"""Whether the ASGI scope of a request brings a login."""


class Guard:
    """An ASGI layer in front of everything else."""

    def __init__(self, app: Any, *, logged_in: LoggedIn | None) -> None:
        """`logged_in` is for servers with a password. Without one only this machine's names are answered, so that no
        web page can reach the arena by giving its own name this machine's address."""
        self.app, self.logged_in = app, logged_in
        self.under_way = self.logins = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close"})
        elif refusal := self.refusal(scope):
            await refuse(send, *refusal)
        else:
            login = scope["path"] in LOGIN
            self.under_way += 1
            self.logins += login
            try:
                await self.answer(scope, receive, send)
            finally:
                self.under_way -= 1
                self.logins -= login

    def refusal(self, scope: Any) -> tuple[int, str] | None:
        """What can be told from the head of a request, as a status and its reason."""
        headers = dict(scope["headers"])
        length, path = headers.get(b"content-length", b"0"), scope["path"]
        if self.logged_in is None and not LOCAL_HOST.fullmatch(headers.get(b"host", b"")):
            return 421, "this arena answers to its own machine only"
        if any(part in path for part in NOT_SERVED):
            return 404, "no files here"
        if b"transfer-encoding" in headers and b"content-length" in headers:
            return 400, "two lengths"
        if b"transfer-encoding" in headers or not length.isdigit() or int(length) > MAX_BODY:
            return 413, "too large"
        if self.logged_in is not None and not BEFORE_LOGIN.fullmatch(path) and not self.logged_in(scope):
            return 401, "log in first"
        if self.under_way >= MOST_UNDER_WAY or (path in LOGIN and self.logins >= MOST_LOGINS):
            return 503, "too many at once"
        return None

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        if dict(scope["headers"]).get(b"content-length", b"0") != b"0":
            try:
                async with asyncio.timeout(BODY_PATIENCE):
                    body = await arrived(receive)
            except TimeoutError:
                return await refuse(send, 408, "too slow")
            if len(body) > MAX_BODY:  # whatever its head has said
                return await refuse(send, 413, "too large")
            receive = with_body(body, receive)
        await self.app(scope, receive, with_headers(send))


async def arrived(receive: Any) -> bytes:
    """The body, or as much of it as shows that it is too large."""
    body, more = b"", True
    while more and len(body) <= MAX_BODY:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def with_body(body: bytes, receive: Any) -> Callable[[], Awaitable[Any]]:
    """Replays the body that has been read, then passes on whatever comes after it."""
    told = False

    async def again() -> Any:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def with_headers(send: Any) -> Callable[[Any], Awaitable[None]]:
    async def guarded(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *HEADERS.items()]
        await send(message)

    return guarded


async def refuse(send: Any, status: int, reason: str) -> None:
    # What is left of a refused request is not read, so nothing may follow it on this connection.
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})


def login(password: str) -> Callable[[str, str], Coroutine[Any, Any, bool]]:
    """One password for all; the name is the voter's own.

    Tries are taken one after the other, and each waits longer the more wrong ones came before it, whoever made them:
    many at once gain nothing.
    """
    turn, wrong = asyncio.Lock(), 0

    async def right(name: str, given: str) -> bool:
        nonlocal wrong
        async with turn:
            if wrong:
                await asyncio.sleep(min(FIRST_WAIT * 2 ** (wrong - 1), LONGEST_WAIT))
            known = hmac.compare_digest(given.encode(), password.encode()) and bool(voter_name(name))
            wrong = 0 if known else min(wrong + 1, 10)
            return known

    return right
