"""A real browser for pages: headless Chromium, that records everything a page must not do."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PHONE, DESK = 390, 1280
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
TELL_VIOLATIONS = """document.addEventListener("securitypolicyviolation", (event) =>
    console.error("policy: " + event.violatedDirective + " " + event.blockedURI));"""


@dataclass(frozen=True, kw_only=True)
class Visit:
    """An open page; `problems` are its console errors, uncaught errors and breaches of its policy so far."""

    page: "Page"
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        pixels: int = self.page.evaluate(OVERFLOW)
        return pixels


@pytest.fixture(scope="module")  # not the session: while Playwright runs, other tests could not use asyncio.run
def chromium() -> "Iterator[Browser]":
    """Skips the test, with the way out, where no Chromium is installed."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine (make browser-setup installs it)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Containers and root have no user namespaces for the sandbox; the pages are our own.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def visit(
    browser: "Browser",
    url: str,
    *,
    width: int = DESK,
    scheme: Literal["light", "dark"] = "light",
    before: "Callable[[Page], object]" = lambda page: None,
) -> Iterator[Visit]:
    """Open `url` in a new session; `before` sees the page first, to set up routes or scripts."""
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce", service_workers="block"
    )
    visited = Visit(page=context.new_page())
    page = visited.page
    page.add_init_script(TELL_VIOLATIONS)
    page.on("request", lambda request: visited.requests.append(request.url))
    page.on("pageerror", lambda error: visited.problems.append(str(error)))
    page.on("console", lambda line: visited.problems.append(line.text) if line.type in ("error", "warning") else None)
    before(page)
    page.goto(url)
    yield visited
    context.close()
