import base64
import hashlib
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from heed.pages import FOLDER, json_markup, render_page, write_page
from world.browser import visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = "<script>alert(1)</script></script><!-- & \u2028\u2029 \ud83d"
PAPER = "getComputedStyle(document.body).backgroundColor"


def small_page(folder: Path) -> str:
    template = folder / "small.jinja"
    template.write_text('{% extends "base.jinja" %}{% block body %}<main id="main">{{ text }}</main>{% endblock %}')
    script = folder / "small.js"
    script.write_text("document.title = JSON.parse(document.getElementById('rows').textContent)[0];\n")
    return render_page(template, scripts=[script], data={"rows": [HOSTILE]}, text=HOSTILE)


def test_json_keeps_every_text_and_ends_no_script() -> None:
    text = json_markup({"text": HOSTILE})

    assert json.loads(text) == {"text": HOSTILE}
    assert not re.search("[<>&\u2028\u2029\ud83d]", text)


def test_numbers_that_json_cannot_express_become_words() -> None:
    assert json_markup([math.nan, math.inf, (1.5, None)]) == '["nan","inf",[1.5,null]]'


def test_text_in_a_template_is_escaped(tmp_path: Path) -> None:
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&lt;/script&gt;&lt;!-- &amp;" in small_page(tmp_path)


def test_the_policy_names_the_style_and_scripts_that_are_in_the_page(tmp_path: Path) -> None:
    html = small_page(tmp_path)
    policy = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)[0].replace("&#39;", "'")

    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
    for inlined in re.findall(r"<(?:style|script)>(.*?)</(?:style|script)>", html, flags=re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(inlined.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_a_script_that_would_end_its_own_tag_is_our_mistake(tmp_path: Path) -> None:
    (tmp_path / "bad.js").write_text('const tag = "</script>";')
    (tmp_path / "bad.jinja").write_text('{% extends "base.jinja" %}')

    with pytest.raises(AssertionError, match="end it early"):
        render_page(tmp_path / "bad.jinja", scripts=[tmp_path / "bad.js"])


def test_half_a_surrogate_pair_is_written_as_its_escape(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "broken: \ud83d")

    assert (tmp_path / "page.html").read_text() == r"broken: \ud83d"


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance of #rrggbb."""
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_colour_of_text_is_readable_on_every_background(scheme: int) -> None:
    style = (FOLDER / "base.css").read_text()
    colours = {name: pair[scheme] for name, *pair in re.findall(r"--([a-z-]+): light-dark\((#\w+), (#\w+)\)", style)}
    texts = ("ink", "muted", "accent", "ours", "theirs", "bad", "warn")
    pairs = [(text, ground) for text in texts for ground in ("paper", "surface", "sunken")]
    pairs += [
        ("bad", "bad-paper"),
        ("ink", "bad-paper"),
        ("warn", "warn-paper"),
        ("ink", "warn-paper"),
        ("ink", "mark"),
    ]

    for text, ground in pairs:
        low, high = sorted([luminance(colours[text]), luminance(colours[ground])])
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def test_a_page_runs_its_own_script_and_no_other(chromium: "Browser", tmp_path: Path) -> None:
    html = small_page(tmp_path).replace("</main>", "<img src='http://127.0.0.1:9/x.png' onerror='alert(1)'></main>")
    write_page(tmp_path / "page.html", html)

    with visit(chromium, (tmp_path / "page.html").as_uri()) as seen:
        assert seen.page.title().startswith("<script>alert(1)</script>")
        assert "<script>alert(1)</script>" in seen.page.inner_text("main")
        assert any(problem.startswith("policy: img-src http://127.0.0.1:9") for problem in seen.problems)
        assert any(problem.startswith("policy: script-src-attr inline") for problem in seen.problems)


def test_colours_follow_the_system_until_the_reader_chooses(chromium: "Browser", tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", small_page(tmp_path))
    light, dark = "rgb(251, 251, 249)", "rgb(20, 23, 26)"

    with visit(chromium, (tmp_path / "page.html").as_uri(), scheme="dark") as seen:
        assert seen.page.evaluate(PAPER) == dark
        seen.page.get_by_role("radio", name="Light").check()
        assert seen.page.evaluate(PAPER) == light
        seen.page.wait_for_timeout(300)  # Chromium stores in its own time, and the reload may get another process
        seen.page.reload()
        assert seen.page.evaluate(PAPER) == light
        seen.page.get_by_role("radio", name="Auto").check()
        assert seen.page.evaluate(PAPER) == dark
        assert seen.problems == []
