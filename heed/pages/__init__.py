"""A page in one file: style, script and data are inside it, and its policy lets nothing else in.

Texts of models and rows get onto a page in two ways only: through a template, where Jinja escapes them, or as JSON that
a script reads and shows with `textContent`.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from heed.files.run_folder import whole_file

FOLDER = Path(__file__).parent


def render_page(
    template: Path,
    *,
    styles: Sequence[Path] = (),
    scripts: Sequence[Path] = (),
    data: Mapping[str, Any] | None = None,
    **values: Any,
) -> str:
    """The HTML of a template that extends base.jinja.

    `styles` and `scripts` are files, put after the shared ones; each item of `data` becomes a JSON block with its name
    as id (Markup is JSON already); `values` are what the template itself shows. No `style` or `on...` attribute works
    on the page: the policy allows this style and these scripts by their hashes, and nothing else.
    """
    style = joined([FOLDER / "base.css", *styles])
    theme = joined([FOLDER / "theme.js"])
    script = joined(scripts)
    return (
        environment(template.parent)
        .get_template(template.name)
        .render(
            policy=content_policy(styles=[style], scripts=[theme, script]),
            style=Markup(style),
            theme=Markup(theme),
            script=Markup(script),
            data={
                name: value if isinstance(value, Markup) else json_markup(value) for name, value in (data or {}).items()
            },
            **values,
        )
    )


@cache
def environment(folder: Path) -> Environment:
    """Its templates are compiled once."""
    return Environment(
        loader=FileSystemLoader([folder, FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_page(path: Path, html: str) -> None:
    with whole_file(path) as file:
        file.write(html)


def joined(paths: Sequence[Path]) -> str:
    """The files one after the other, as a browser will hash them."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    assert "</" not in text and "<!--" not in text, "a tag in a style or script would end it early"
    return text


def content_policy(*, styles: Sequence[str], scripts: Sequence[str]) -> str:
    """Nothing may be loaded, sent or run but what is in the page; `data:` is for the page's icon."""
    return "; ".join(
        [
            "default-src 'none'",
            "style-src " + " ".join(map(source_hash, styles)),
            "script-src " + " ".join(map(source_hash, scripts)),
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def source_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def json_markup(value: Any) -> Markup:
    """JSON that can be inside a script tag whatever texts it contains.

    A number that JSON has no word for becomes the text `nan` or `inf`, so that a page shows it and does not take it for
    an absent one.
    """
    return Markup(json_bytes(value).decode())


def json_bytes(value: Any) -> bytes:
    """The same as it is written: what could end the tag or a line is escaped, and so is half a surrogate pair."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, TypeError):  # looking through all of it first would take longer than writing it
        text = json.dumps(json_value(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    written = text.encode(errors="backslashreplace")
    for character in "<>&\u2028\u2029":
        written = written.replace(character.encode(), f"\\u{ord(character):04x}".encode())
    return written


def json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {name: json_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return value
