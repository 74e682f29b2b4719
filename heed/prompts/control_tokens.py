"""Tokens that mean something to a model, and the same letters typed by a person."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from heed.data.records import Message
from heed.errors import UserError

if TYPE_CHECKING:  # heavy, and only named here
    from transformers import PreTrainedTokenizerBase

PRIVATE_USE = range(0xE000, 0xF900)


class Markers(NamedTuple):
    """Two characters that occur in none of a conversation's texts, set around control tokens that a user typed."""

    start: str
    end: str


def control_token_pattern(tokenizer: "PreTrainedTokenizerBase", template: str) -> re.Pattern[str]:
    """All special tokens, and those added tokens that the template itself uses as marks, longest first."""
    tokens = [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.special or (token.content in template and not token.content.isspace())
    ]
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or r"(?!)")


def mark_control_tokens(
    messages: Sequence[Message], control_tokens: re.Pattern[str]
) -> tuple[list[Message], Markers | None]:
    """Fence control tokens in the users' words, so that only the template's own become control tokens.

    The rendered text is then tokenized in pieces; a row without such tokens is not touched at all.
    """
    texts: list[str] = []
    each_text(messages, texts.append)
    if not any(control_tokens.search(text) for text in texts):
        return list(messages), None
    used = set("".join(texts))
    free = (chr(code) for code in PRIVATE_USE if chr(code) not in used)
    markers = Markers(next(free), next(free))

    def fence(text: str) -> str:
        return control_tokens.sub(lambda match: f"{markers.start}{match[0]}{markers.end}", text)

    return each_text(messages, fence), markers


def each_text(value: Any, change: Callable[[str], Any]) -> Any:
    """A turn, a list or an object with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: each_text(item, change) for name, item in value.items()}
    return [each_text(item, change) for item in value] if isinstance(value, list | tuple) else value


def split_fenced(text: str, markers: Markers, control_tokens: re.Pattern[str], name: str) -> list[str]:
    """A rendered text in pieces: between them, at odd places, the control tokens that somebody typed.

    A template may cut a fenced token and leave one of its markers, which then means nothing and is removed. Raises
    UserError where a marker that lost its partner touches a control token: nobody could tell whose token it is.
    """
    start, end = markers
    pieces = re.split(f"{start}([^{start}{end}]*){end}", text)
    torn = re.compile(f"{start}(?:{control_tokens.pattern})|(?:{control_tokens.pattern}){end}")
    if any(torn.search(piece) for piece in pieces[::2]) or not all(map(control_tokens.fullmatch, pieces[1::2])):
        raise UserError(
            f"prompt {name!r} cuts through a control token that is typed in this row; "
            "take it out of the row, or use a template that shows texts as they are"
        )
    return [piece if place % 2 else re.sub(f"[{start}{end}]", "", piece) for place, piece in enumerate(pieces)]
