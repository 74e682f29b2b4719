"""What a judge's reply says, or why it says nothing: no score is ever guessed.

Read in this order: the JSON that was asked for; one JSON object somewhere in the text; one number that can only be the
score. Two different verdicts in one reply are none.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from heed.judge.prompts import Kind
from heed.saying import writable

How = Literal["schema", "json", "number", "word", "reask", "decision", "identical"]

THINKING = re.compile(r"^.*</think>|<think>.*$", re.DOTALL)
SCALE = re.compile(r"\b(?:from |of |between )?0 ?(?:to|-|–|and) ?100\b|\b(?:0 ?[-–] ?100)\b", re.IGNORECASE)
OF_HUNDRED = re.compile(r"(?<=\d) ?(?:/ ?100|out of 100)\b", re.IGNORECASE)
NUMBER = re.compile(r"[-+]?\d[\d.,]*")
# Words that may stand between "score" and its number; any other word could make the number a count of something.
WORDS = "a|an|as|at|be|given|i|is|it|me|model|my|of|response|answer|the|this|to|with|would"
FILLER = rf"(?:[\s:=*_`\"'#>.,()\[\]|-]|\b(?:{WORDS})\b)*"
LABELLED = re.compile(rf"\b(?:scores?|scored|rating|rate|grade|give|assign)\b{FILLER}$", re.IGNORECASE)
WINNERS = {"a": "A", "b": "B", "tie": "tie", "c": "tie"}
WINNER_WORD = re.compile(r"(?:winner|verdict)?[\s:*_`\"'\[\(]*(?:answer )?(a|b|c|tie)[\s*_`\"'\]\).]*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A score (0 to 100) or a winner (A, B or tie); or neither, and the reason why."""

    value: float | str | None
    reason: str = ""
    """What the judge gave as its reasoning."""
    how: How | None = None
    failure: str | None = None


def read_reply(text: str, kind: Kind) -> Verdict:
    """The verdict in a chat model's reply."""
    text = THINKING.sub("", text).strip()
    if not text:
        return Verdict(value=None, failure="empty")
    field, valid = ("score", whole_score) if kind == "score" else ("winner", winner)
    found = [each for each in json_objects(text) if field in each]
    if found:
        return from_json(text, found, field, valid)
    return from_number(text) if kind == "score" else from_word(text)


def from_json(text: str, found: list[dict[str, Any]], field: str, valid: Callable[[Any], Any]) -> Verdict:
    values = {json.dumps(each[field]): valid(each[field]) for each in found}
    if None in values.values():
        return Verdict(value=None, failure="out_of_range")
    if len(set(values.values())) > 1:
        return Verdict(value=None, failure="ambiguous")
    whole = text.startswith("{") and text.endswith("}") and len(found) == 1
    last = found[-1]
    return Verdict(
        value=valid(last[field]),
        reason=writable(str(last.get("reasoning", "")).strip()),
        how="schema" if whole else "json",
    )


def from_number(text: str) -> Verdict:
    """One number and nothing else, or one that is called the score, in a text without any other number."""
    bare = OF_HUNDRED.sub(" ", SCALE.sub(" ", text))
    of_hundred = bool(OF_HUNDRED.search(text))
    numbers = [(match.start(), match[0].rstrip(".,")) for match in NUMBER.finditer(bare)]
    if not numbers:
        return Verdict(value=None, failure="garbage")
    if len({number for _, number in numbers}) > 1 or re.search(r"\d\s*(?:/|out of|%)", bare):
        return Verdict(value=None, failure="ambiguous")
    place, number = numbers[0]
    alone = not re.search(r"[^\W\d_]", bare)
    on_the_first_line = re.fullmatch(r"\W*\d+\W*", bare.strip().partition("\n")[0])
    if not (alone or on_the_first_line or of_hundred or LABELLED.search(bare[:place])):
        return Verdict(value=None, failure="garbage")
    score = whole_score(number)
    if score is None:
        return Verdict(value=None, failure="out_of_range")
    return Verdict(value=score, how="number")


def from_word(text: str) -> Verdict:
    match = WINNER_WORD.fullmatch(text)
    if match is None:
        return Verdict(value=None, failure="garbage")
    return Verdict(value=WINNERS[match[1].lower()], how="word")


def whole_score(value: Any) -> int | None:
    """A whole number from 0 to 100, also when it was written as 85.0 or "85/100"; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = OF_HUNDRED.sub("", str(value).strip())
    match = re.fullmatch(r"(\d{1,3})(?:\.0+)?", text, re.ASCII)
    return int(match[1]) if match and int(match[1]) <= 100 else None


def winner(value: Any) -> str | None:
    return WINNERS.get(value.strip().lower()) if isinstance(value, str) else None


def json_objects(text: str) -> list[dict[str, Any]]:
    """Every JSON object that stands in the text, outermost ones only; one that names a field twice is none."""
    decoder, objects, place = json.JSONDecoder(strict=False, object_pairs_hook=named_once), [], 0
    while (place := text.find("{", place)) >= 0:
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            place += 1
            continue
        objects.append(value)
    return objects


def named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a field is named twice")
    return dict(pairs)
