"""A field of a row as JSON has it: what kind of value it is in words, and what is wrong with a text."""

import re
from typing import Any

HALF_A_PAIR = re.compile("[\ud800-\udfff]")


def text_problem(value: Any) -> str | None:
    """What is wrong with a text that must not be empty, or None."""
    if value is None:
        return "is null"
    if isinstance(value, str) and not value.strip():
        return "is empty"
    return optional_text_problem(value)


def optional_text_problem(value: Any) -> str | None:
    """What is wrong with a text that may be absent, null or empty, or None."""
    if value is None:
        return None
    if not isinstance(value, str):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return f"expected text, got {type_name(value)}" + ("; write it as text" if number else "")
    if "\x00" in value:
        return "contains a NUL character"
    if HALF_A_PAIR.search(value):
        return "contains half of a surrogate pair (broken \\u escape)"
    return None


def type_name(value: Any) -> str:
    """A value's type in JSON's words, which is what the user sees in the file."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return f"a number ({value})"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return {"str": "text", "dict": "an object"}.get(type(value).__name__, type(value).__name__)
