"""What the arena's server refuses: large requests, uploads, strangers' host names; and what its pages may not do."""

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from heed.arena.votes import voter_name

MAX_BODY = 64 * 1024
LOCAL_HOST = re.compile(rb"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")
# Gradio has routes for files that nothing here needs.
NOT_SERVED = ("/upload", "/file=", "/file/", "/proxy=", "/stream/")
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
WRONG_PASSWORD_WAIT = 1.0


class Guard:
    """An ASGI layer in front of all else."""

    def __init__(self, app: Any, *, any_host: bool) -> None:
        """`any_host` is for servers with a password. Without one only this machine's names are answered, so that no web
        page can reach the arena by giving its own name this machine's address."""
        self.app = app
        self.any_host = any_host

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0" if b"transfer-encoding" not in headers else b"")
        if not self.any_host and not LOCAL_HOST.fullmatch(headers.get(b"host", b"")):
            await refuse(send, 421, "this arena answers to its own machine only")
        elif any(part in scope["path"] for part in NOT_SERVED):
            await refuse(send, 404, "no files here")
        elif not length.isdigit() or int(length) > MAX_BODY:
            await refuse(send, 413, "too large")
        else:
            await self.app(scope, receive, with_headers(send))


def with_headers(send: Any) -> Callable[[Any], Awaitable[None]]:
    async def guarded(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *HEADERS.items()]
        await send(message)

    return guarded


async def refuse(send: Any, status: int, reason: str) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": reason.encode()})


def login(password: str) -> Callable[[str, str], Coroutine[Any, Any, bool]]:
    """One password for all; the name is the voter's own. A wrong one waits, or it could be guessed quickly."""

    async def right(name: str, given: str) -> bool:
        if voter_name(name) and hmac.compare_digest(given.encode(), password.encode()):
            return True
        await asyncio.sleep(WRONG_PASSWORD_WAIT)
        return False

    return right
