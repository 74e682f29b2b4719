"""The arena in a real browser: people vote, servers are killed, and nothing is sent anywhere else."""

import json
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import pytest

from world.arena_server import served
from world.browser import DESK, FAINT, PHONE, Visit, visit
from world.small_world import TINY

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(
    find_spec("gradio") is None,
    reason="gradio is missing (make arena-setup installs it)",
)
HOSTILE = "<script>document.title = 'owned'</script> ${document.title} {{value}} </div><img src=x onerror=alert(1)>"
ROWS = [{"instruction": f"Say {row}.", "input": "", "output": f"{row}!", "row_id": row} for row in range(6)]
NAMES = {"secret-alpha": "It is ROW.", "secret-beta": "Perhaps ROW? " + HOSTILE}
PASSWORD = "correct horse battery"


@pytest.fixture
def recorded(tmp_path: Path) -> list[str]:
    """The arguments that make arena.py show two recorded models."""
    files = {}
    for name, says in NAMES.items():
        files[name] = str(tmp_path / f"{name}.json")
        rows = [row | {"model_response": says.replace("ROW", str(row["row_id"]))} for row in ROWS]
        Path(files[name]).write_text(json.dumps(rows))
    return ["--responses", json.dumps(files), "--votes", str(tmp_path / "votes.jsonl")]


def votes(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "votes.jsonl").read_text().splitlines()]


def enter(page: "Page", name: str) -> None:
    page.locator("#name input, #name textarea").fill(name)
    page.locator("#enter").click()
    wait_for_pair(page)


def wait_for_pair(page: "Page") -> None:
    page.wait_for_function("document.querySelector('#vote-left') && !document.querySelector('#vote-left').disabled")


def wait_for_verdict(page: "Page") -> str:
    page.locator("#verdict p").wait_for()
    return page.locator("#verdict").inner_text()


def only_itself(visited: Visit, url: str) -> None:
    """No request left for another host, nothing was refused by the policy, and no script failed."""
    hosts = {urlsplit(request).netloc for request in visited.requests if not request.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(url).netloc}
    assert visited.problems == []


def test_a_person_votes_blind_by_click_and_key_and_sees_names_and_ratings_afterwards(
    chromium: "Browser", recorded: list[str], tmp_path: Path
) -> None:
    bodies: list[str] = []

    def listen(page: "Page") -> None:
        page.on("request", lambda request: bodies.append(request.post_data or ""))

    with served(*recorded) as (url, _), visit(chromium, url, before=listen) as visited:
        page = visited.page
        enter(page, "Ada")
        assert "secret" not in page.content() and "secret" not in "".join(bodies)
        assert "0 of 6 pairs" in page.locator("#progress").inner_text()
        shown = page.locator("#right").inner_text() + page.locator("#left").inner_text()
        assert HOSTILE in shown and page.title() == "Heed Arena"
        for scheme, width in (("dark", PHONE), ("light", DESK)):
            with visit(chromium, url, scheme=scheme, width=width) as other:  # type: ignore[arg-type]
                enter(other.page, "Ada")
                assert other.page.evaluate(FAINT) == [], (scheme, width)

        labels = page.locator("#votes button, #after button").all_inner_texts()
        assert [label.strip() for label in labels] == [
            "A is better",
            "Tie",
            "Both bad",
            "B is better",
            "Skip",
            "Next pair",
        ]

        page.locator("#note textarea").fill("a note, typed: b t x")
        page.locator("#vote-left").click()
        assert re.search(r"You preferred secret-\w+\. A was secret-\w+, B was secret-\w+\.", wait_for_verdict(page))
        assert page.locator("#vote-right").is_disabled() and page.locator("#note textarea").is_disabled()
        [vote] = votes(tmp_path)
        assert vote["note"] == "a note, typed: b t x" and vote["winner"] == vote["first"] and vote["voter"] == "Ada"
        assert vote[vote["winner"]] in page.locator("#left header").inner_text()

        for key in "btx":
            page.keyboard.press("n")
            wait_for_pair(page)
            page.keyboard.press(key)
            wait_for_verdict(page)
        first, second, third = votes(tmp_path)[1:]
        assert first["winner"] in "ab" and first["winner"] != first["first"]
        assert (second["winner"], third["winner"]) == ("tie", "both_bad")
        assert len({vote["row_id"] for vote in votes(tmp_path)}) == 4
        assert "4 of 6 pairs" in page.locator("#progress").inner_text()

        page.get_by_role("tab", name="Leaderboard").click()
        page.locator("table.ratings").wait_for()
        board = page.locator("#leaderboard").inner_text()
        assert "4 votes by 1 person" in board and "secret-alpha" in board and "secret-beta" in board
        only_itself(visited, url)


@pytest.mark.slow
def test_a_killed_server_loses_no_vote_and_the_page_continues_after_a_restart(
    chromium: "Browser", recorded: list[str], tmp_path: Path
) -> None:
    with served(*recorded) as (url, server), visit(chromium, url) as visited:
        page = visited.page
        enter(page, "Ada")
        page.keyboard.press("a")
        wait_for_verdict(page)
        page.keyboard.press("n")
        wait_for_pair(page)
        server.send_signal(signal.SIGKILL)
        server.wait()
        assert len(votes(tmp_path)) == 1
        with (tmp_path / "votes.jsonl").open("a") as file:
            file.write('{"time": "2026-11-22T06:01:00+0000", "voter": "Ad')  # as if killed while writing

        with served(*recorded, port=urlsplit(url).port):
            page.reload()
            wait_for_pair(page)  # the name is remembered
            assert "1 of 6 pairs" in page.locator("#progress").inner_text()
            page.keyboard.press("t")
            wait_for_verdict(page)
            page.keyboard.press("n")
            wait_for_pair(page)
    whole = [json.loads(line) for line in (tmp_path / "votes.jsonl").read_text().splitlines() if line.endswith("}")]
    assert [vote["winner"] for vote in whole][1:] == ["tie"] and len({vote["row_id"] for vote in whole}) == 2


@pytest.mark.slow
def test_a_vote_for_a_pair_of_an_earlier_server_is_not_counted(
    chromium: "Browser", recorded: list[str], tmp_path: Path
) -> None:
    with served(*recorded) as (url, server), visit(chromium, url) as visited:
        page = visited.page
        enter(page, "Ada")
        server.kill()
        server.wait()
        with served(*recorded, port=urlsplit(url).port):
            page.locator("#vote-left").click()
            assert "nothing was counted; please reload this page" in wait_for_verdict(page)
            assert votes(tmp_path) == []
            page.reload()
            wait_for_pair(page)
            page.locator("#vote-left").click()
            wait_for_verdict(page)
    assert len(votes(tmp_path)) == 1


@pytest.mark.slow
def test_two_people_at_once_and_one_with_two_windows(chromium: "Browser", recorded: list[str], tmp_path: Path) -> None:
    with (
        served(*recorded) as (url, _),
        visit(chromium, url) as ada,
        visit(chromium, url) as bob,
        visit(chromium, url) as ada_again,
    ):
        for visited, name in ((ada, "Ada"), (bob, "Bob"), (ada_again, "Ada")):
            enter(visited.page, name)
        questions = [visited.page.locator("#question .asked").inner_text() for visited in (ada, bob, ada_again)]
        assert questions[0] == questions[2] != questions[1]
        for visited in (ada, bob):
            visited.page.keyboard.press("a")
            wait_for_verdict(visited.page)
        ada_again.page.keyboard.press("b")
        assert "You have voted on this pair before" in wait_for_verdict(ada_again.page)
        for _ in range(5):
            for visited in (ada, bob):
                visited.page.keyboard.press("n")
                wait_for_pair(visited.page)
                visited.page.keyboard.press("a")
                wait_for_verdict(visited.page)
        for visited in (ada, bob):
            visited.page.keyboard.press("n")
            visited.page.get_by_text("You have voted on all 6 pairs").wait_for()
            only_itself(visited, url)
    cast = votes(tmp_path)
    assert len(cast) == 12 and len({(vote["voter"], vote["row_id"]) for vote in cast}) == 12


@pytest.mark.slow
def test_models_answer_live_and_answer_a_visitors_own_question(chromium: "Browser", tmp_path: Path) -> None:
    models = json.dumps({"secret-one": str(TINY), "secret-two": f"{TINY}/"})
    words = ["--models", models, "--prompt", "alpaca_short", "--max_new_tokens", "40"]
    words += ["--data", "data/instructions.json", "--limit", "3"]
    with (
        served(*words, "--votes", tmp_path / "votes.jsonl") as (url, _),
        visit(chromium, url) as visited,
    ):
        page = visited.page
        enter(page, "Ada")
        assert "0 of 3 pairs" in page.locator("#progress").inner_text() and "secret" not in page.content()
        page.keyboard.press("t")
        assert "A tie. A was secret" in wait_for_verdict(page)

        page.locator("#typed textarea").fill("What is a swan? " + HOSTILE)
        page.locator("#ask").click()
        page.locator("#question").get_by_text("Your question").wait_for()
        wait_for_pair(page)
        page.locator("#vote-both_bad").click()
        wait_for_verdict(page)
        page.locator("#ask").click()
        page.get_by_text("You have voted on this question with every pair of models").wait_for()
        page.locator("#typed textarea").fill("word " * 3000)  # longer than the context: the box takes 4,000 characters
        page.locator("#ask").click()
        page.get_by_text("This model could not answer").first.wait_for()
        assert page.locator("#vote-left").is_disabled() and "secret" not in page.locator("#answers").inner_html()
        assert page.title() == "Heed Arena"
        only_itself(visited, url)
    row, typed = votes(tmp_path)
    assert row["row_id"] in range(3) and row["responses"]["a"] == row["responses"]["b"]
    assert typed["row_id"] is None and typed["prompt"].startswith("What is a swan? <script>")


@pytest.mark.slow
def test_with_a_password_strangers_see_nothing_and_the_login_is_the_voter(
    chromium: "Browser", recorded: list[str], tmp_path: Path
) -> None:
    with (
        served(*recorded, HEED_ARENA_PASSWORD=PASSWORD) as (url, _),
        visit(chromium, url) as visited,
    ):
        page = visited.page
        fields = page.locator("input")
        for password in ("wrong password", PASSWORD):
            fields.nth(0).wait_for()
            assert "Say " not in page.content()
            fields.nth(0).fill("Grace")
            fields.nth(1).fill(password)
            page.get_by_role("button", name="Login").click()
            page.wait_for_timeout(1500)
        wait_for_pair(page)
        page.keyboard.press("a")
        wait_for_verdict(page)
        assert {urlsplit(each).netloc for each in visited.requests if each.startswith("http")} == {urlsplit(url).netloc}
    assert [vote["voter"] for vote in votes(tmp_path)] == ["Grace"]


@pytest.mark.slow
def test_without_a_password_nobody_can_look_or_fill_the_memory_or_guess_fast(
    recorded: list[str], tmp_path: Path
) -> None:
    with served(*recorded, HEED_ARENA_PASSWORD=PASSWORD) as (url, _):
        for path in (
            "/openapi.json",
            "/docs",
            "/config",
            "/gradio_api/info",
            "/gradio_api/openapi.json",
            "/monitoring",
        ):
            assert status(url, "GET", path) == 401, path
        assert status(url, "GET", "/") == 200

        both = {"Content-Length": "5", "Transfer-Encoding": "chunked"}
        assert status(url, "POST", "/gradio_api/queue/join", iter([b"x" * 2**20] * 400), both) in (400, None)
        assert status(url, "POST", "/login", iter([b"x" * 2**20] * 400), {"Transfer-Encoding": "chunked"}) in (
            413,
            None,
        )

        began = time.monotonic()
        with ThreadPoolExecutor(3) as threads:
            assert list(threads.map(lambda word: log_in(url, word), ("one", "two", "three"))) == [400] * 3
        assert time.monotonic() - began > 1 + 2
        assert log_in(url, PASSWORD) == 200


def status(url: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> int | None:
    """None when the server hangs up before the request is sent."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=120)
    try:
        connection.request(
            method,
            path,
            body,
            headers or {},
            encode_chunked=body is not None and "Transfer-Encoding" in (headers or {}),
        )
        return connection.getresponse().status
    except (BrokenPipeError, ConnectionResetError):
        return None
    finally:
        connection.close()


def log_in(url: str, password: str) -> int | None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    return status(url, "POST", "/login", urlencode({"username": "Ada", "password": password}), form)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_in_light_and_dark(chromium: "Browser", recorded: list[str], scheme: Any) -> None:
    with served(*recorded) as (url, _), visit(chromium, url, width=PHONE, scheme=scheme) as visited:
        page = visited.page
        enter(page, "Ada")
        paper = page.evaluate("getComputedStyle(document.querySelector('.gradio-container')).backgroundColor")
        assert paper == {"light": "rgb(251, 251, 249)", "dark": "rgb(20, 23, 26)"}[scheme]
        ballot = page.locator("#vote-both_bad").bounding_box()
        assert ballot is not None and ballot["y"] + ballot["height"] <= 800 and ballot["height"] >= 40
        assert visited.overflow() == 0
        page.locator("#vote-right").click()
        wait_for_verdict(page)
        assert page.locator("#next").is_visible() and visited.overflow() == 0
        page.get_by_role("tab", name="Leaderboard").click()
        page.locator("table.ratings").wait_for()
        assert visited.overflow() == 0
        only_itself(visited, url)
