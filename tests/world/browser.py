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


# What is drawn, not what the style says: each text against the colours that lie behind it, in HTML and SVG.
FAINT = """() => {
  const channels = (colour) => {
    const [r, g, b, a = "1"] = colour.match(/[\\d.]+/g);
    return [Number(r), Number(g), Number(b), Number(a)];
  };
  const over = (top, below) => top.slice(0, 3).map((each, place) => each * top[3] + below[place] * (1 - top[3]));
  const luminance = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((each) => {
      const share = each / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const layers = [];
    for (let each = element; each; each = each.parentElement)
      layers.push(channels(getComputedStyle(each).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const shown = element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
    if (!walker.currentNode.data.trim() || !shown) continue;
    if (element.closest("script, style, .unseen, :disabled, [aria-disabled=true]")) continue;
    const style = getComputedStyle(element);
    const ink = channels(element.closest("svg") ? style.fill : style.color);
    const below = ground(element);
    const [low, high] = [luminance(over(ink, below)), luminance(below)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)}: ${walker.currentNode.data.trim().slice(0, 40)}`);
  }
  return [...new Set(found)];
}"""
# What can be used by mouse: each must get the focus by Tab alone, with something to show for it.
USABLE = """() => [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")]
  .filter((each) => !each.disabled && each.checkVisibility({ visibilityProperty: true }))
  .filter((each) => each.type !== "radio" || each.checked)  // arrows reach the others of a group
  .length"""
FOCUSED = """() => {
  const each = document.activeElement;
  if (each === document.body) return null;
  const style = getComputedStyle(each);
  const parent = getComputedStyle(each.closest("label") ?? each);
  const shows = style.outlineStyle !== "none" || style.boxShadow !== "none" || parent.outlineStyle !== "none";
  each.dataset.seen = "yes";
  return `${each.tagName} ${each.textContent.trim().slice(0, 30)} ${shows ? "" : "(no sign of focus)"}`.trim();
}"""


def tabbed(page: "Page", most: int = 400) -> tuple[int, list[str]]:
    """How many things Tab reaches, and those of them that show no sign of having the focus."""
    page.evaluate("document.activeElement.blur()")
    hidden = []
    for _ in range(most):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if focused is None:
            break
        if focused.endswith("(no sign of focus)"):
            hidden.append(focused)
    reached: int = page.evaluate("document.querySelectorAll('[data-seen]').length")
    return reached, hidden
