import asyncio
from typing import Any

import pytest

from heed.arena import same_site
from heed.arena.same_site import MAX_BODY, MOST_LOGINS, MOST_UNDER_WAY, Guard, login

LOCAL = {"host": "127.0.0.1:7860"}
JOIN = "/gradio_api/queue/join"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body it was given."""
    body = (await receive())["body"] if dict(scope["headers"]).get(b"content-length", b"0") != b"0" else b"in"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def answer(guard: Guard, path: str, headers: dict[str, str], *parts: bytes) -> list[Any]:
    """The messages that come back; a request whose parts are used up goes on for ever."""
    sent: list[Any] = []
    left = list(parts)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        if not left:
            await asyncio.Event().wait()
        part = left.pop(0)
        return {"type": "http.request", "body": part, "more_body": part != b""}

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await guard({"type": "http", "path": path, "headers": raw}, receive, send)
    return sent


def status(path: str, headers: dict[str, str], *parts: bytes, **options: Any) -> int:
    guard = Guard(app, logged_in=options.get("logged_in"))
    code: int = asyncio.run(answer(guard, path, headers, *parts))[0]["status"]
    return code


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
        (JOIN, LOCAL | {"content-length": str(MAX_BODY)}, 200),
        (JOIN, LOCAL | {"content-length": str(MAX_BODY + 1)}, 413),
        (JOIN, LOCAL | {"content-length": "-1"}, 413),
        (JOIN, LOCAL | {"transfer-encoding": "chunked"}, 413),
        (JOIN, LOCAL | {"content-length": "5", "transfer-encoding": "chunked"}, 400),
        (JOIN, LOCAL | {"content-length": "0", "transfer-encoding": "identity, chunked"}, 400),
    ],
)
def test_strangers_files_and_large_requests_are_refused(path: str, headers: dict[str, str], expected: int) -> None:
    assert status(path, headers, b"x", b"") == expected


def test_the_bytes_that_arrive_are_counted_whatever_was_promised() -> None:
    promised = LOCAL | {"content-length": "5"}
    guard = Guard(app, logged_in=None)
    assert asyncio.run(answer(guard, JOIN, promised, b"he", b"llo", b""))[1]["body"] == b"hello"
    assert status(JOIN, promised, *[b"x" * 1024] * 65, b"") == 413
    assert status(JOIN, promised, *[b"x" * 1024] * 100_000) == 413


def test_a_request_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same_site, "BODY_PATIENCE", 0.05)
    assert status(JOIN, LOCAL | {"content-length": "5"}, b"he") == 408


@pytest.mark.parametrize(
    "path",
    [
        "/openapi.json",
        "/gradio_api/openapi.json",
        "/docs",
        "/config",
        "/gradio_api/info",
        "/gradio_api/app_id",
        "/gradio_api/heartbeat/x",
        "/gradio_api/token",
        "/gradio_api/reset",
        "/gradio_api/queue/join",
        "/monitoring/summary",
        "/logout",
        "//",
        "/login/x",
        "/\n",
    ],
)
def test_before_the_login_there_is_only_the_page_that_asks_for_the_password(path: str) -> None:
    elsewhere = {"host": "arena.example"}
    assert status(path, elsewhere, logged_in=lambda scope: False) == 401
    assert status(path, elsewhere, logged_in=lambda scope: True) == 200
    for open_to_all in ("/", "/login", "/static/img/logo.svg", "/assets/index.js", "/theme.css"):
        assert status(open_to_all, elsewhere, logged_in=lambda scope: False) == 200


@pytest.mark.parametrize(("path", "most"), [("/login", MOST_LOGINS), (JOIN, MOST_UNDER_WAY)])
def test_only_so_many_are_served_at_once(path: str, most: int) -> None:
    async def crowd() -> list[int]:
        wait = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await wait.wait()
            await app(scope, receive, send)

        guard = Guard(slow, logged_in=None)
        tasks = [asyncio.create_task(answer(guard, path, LOCAL)) for _ in range(most)]
        await asyncio.sleep(0)
        refused = await answer(guard, path, LOCAL)
        wait.set()
        served = await asyncio.gather(*tasks)
        return [each[0]["status"] for each in (refused, *served, await answer(guard, path, LOCAL))]

    assert asyncio.run(crowd()) == [503, *[200] * (most + 1)]


def test_pages_may_talk_to_no_other_host() -> None:
    guard = Guard(app, logged_in=lambda scope: True)
    headers = dict(asyncio.run(answer(guard, "/", {"host": "arena.example"}))[0]["headers"])
    policy = headers[b"content-security-policy"].decode()
    assert "default-src 'self';" in policy and "connect-src 'self';" in policy and "http" not in policy


def test_a_wrong_password_makes_every_next_one_wait_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)

    async def tries() -> list[bool]:
        right = login("correct horse battery")
        assert await right("Ada", "correct horse battery") and not waited
        assert not await right("judge:x", "correct horse battery")
        wrong = await asyncio.gather(*(right(f"Ada {number}", "correct horse") for number in range(5)))
        return [*wrong, await right("Ada", "correct horse battery"), await right("Bob", "correct horse battery")]

    assert asyncio.run(tries()) == [False] * 5 + [True] * 2
    assert waited == [1, 2, 4, 8, 8, 8]  # the right one too, or its speed would give it away
