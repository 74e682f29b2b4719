import asyncio
from typing import Any

import pytest

from heed.arena.same_site import MAX_BODY, Guard, login

LOCAL = {"host": "127.0.0.1:7860"}


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


def status(path: str, headers: dict[str, str], *, any_host: bool = False) -> tuple[int, dict[bytes, bytes]]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "headers": raw}
    asyncio.run(Guard(app, any_host=any_host)(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"])


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/", LOCAL, 200),
        ("/", {"host": "localhost"}, 200),
        ("/", {"host": "[::1]:7860"}, 200),
        ("/", {"host": "evil.example:7860"}, 421),
        ("/", {"host": "127.0.0.1.evil.example"}, 421),
        ("/", {}, 421),
        ("/gradio_api/upload", LOCAL, 404),
        ("/gradio_api/file=/etc/passwd", LOCAL, 404),
        ("/gradio_api/queue/join", LOCAL | {"content-length": str(MAX_BODY)}, 200),
        ("/gradio_api/queue/join", LOCAL | {"content-length": str(MAX_BODY + 1)}, 413),
        ("/gradio_api/queue/join", LOCAL | {"transfer-encoding": "chunked"}, 413),
    ],
)
def test_strangers_files_and_large_requests_are_refused(path: str, headers: dict[str, str], expected: int) -> None:
    assert status(path, headers)[0] == expected


def test_pages_may_talk_to_nobody_else() -> None:
    policy = status("/", {"host": "arena.example"}, any_host=True)[1][b"content-security-policy"].decode()
    assert "default-src 'self';" in policy and "connect-src 'self';" in policy and "http" not in policy


def test_the_password_is_needed_and_a_wrong_one_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    right = login("correct horse battery")
    assert asyncio.run(right("Ada", "correct horse battery")) and not waited
    assert not asyncio.run(right("Ada", "correct horse")) and not asyncio.run(right("judge:x", "correct horse battery"))
    assert waited == [1.0, 1.0]
