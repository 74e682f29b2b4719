"""What a judge's reply says, or why it says nothing: no score is ever guessed, since a wrong one is worse than none.

Read in this order: the whole reply as JSON; what follows a leading block of thinking, as JSON; an object in the text;
a number or a winner that the text names as its verdict. What is quoted never counts, and two verdicts are none.
"""

import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Literal

from heed.judge.prompts import Kind
from heed.saying import writable

How = Literal["schema", "json", "number", "word", "reask", "decision", "identical"]
FIELDS = {"score": ("score", "rating", "grade"), "pair": ("winner", "verdict")}
SCALE_FIELDS = ("max_score", "max", "maximum", "out_of", "scale")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A score (0 to 100) or a winner (A, B or tie); or neither, and the reason why."""

    value: float | str | None
    reason: str = ""
    """What the judge gave as its reasoning."""
    how: How | None = None
    failure: str | None = None


def nothing(failure: str) -> Verdict:
    return Verdict(value=None, failure=failure)


def read_reply(text: str, kind: Kind) -> Verdict:
    """The verdict in a chat model's reply; a score is from 0 to 100."""
    text = text.strip()
    whole = from_whole(text, kind)
    if whole is not None:
        return whole
    before, text = without_thinking(text)
    if not text:
        return nothing("empty")
    found = from_whole(text, kind) or from_objects(text, kind) or from_text(text, kind)
    if before and found.how in ("number", "word"):  # a text before a lone </think> may be the verdict, and this a quote
        earlier = from_text(before, kind)
        if before.count('"') % 2 or earlier.value not in (None, found.value):
            return nothing("ambiguous")
    return found


LEADING = re.compile(r"(?:<(think|thinking|reasoning)>.*?</\1>\s*)+", re.DOTALL)
OPENED = re.compile(r"<(?:think|thinking|reasoning)>")
CLOSED = re.compile(r"</(?:think|thinking|reasoning)>")


def without_thinking(text: str) -> tuple[str, str]:
    """What a lone closing tag ends, and what is left to read; a block that never ends leaves nothing.

    Some servers put the opening tag into the prompt. A block anywhere else is part of the text.
    """
    if block := LEADING.match(text):
        return "", text[block.end() :].strip()
    if OPENED.match(text):
        return "", ""
    closed = CLOSED.search(text)
    if closed and not OPENED.search(text) and not CLOSED.search(text, closed.end()):
        return text[: closed.start()], text[closed.end() :].strip()
    return "", text


# ---- JSON


def from_whole(text: str, kind: Kind) -> Verdict | None:
    """Of a text that is one JSON object and nothing else, apart from fences around it."""
    bare = re.sub(r"^(?:```(?:json)?|`)\s*(\{.*\})\s*(?:```|`)$", r"\1", text, flags=re.DOTALL | re.IGNORECASE)
    try:
        value = DECODER.decode(bare)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    return from_object(value, kind, "schema" if bare == text else "json")


def from_objects(text: str, kind: Kind) -> Verdict | None:
    """Of the JSON objects in a text that are its verdict; None where it has none."""
    found = [each for place, each in json_objects(text) if field_of(each, kind) and not is_quoted(text, place)]
    verdicts = [from_object(each, kind, "json") or nothing("garbage") for each in found]
    if len({(each.value, each.failure) for each in verdicts}) > 1:
        return nothing("ambiguous")
    return verdicts[-1] if verdicts else None


def from_object(value: dict[str, Any], kind: Kind, how: How) -> Verdict | None:
    name = field_of(value, kind)
    if name is None:
        return None
    if any(isinstance(value.get(field), int | float) and value[field] != 100 for field in SCALE_FIELDS):
        return nothing("out_of_range")
    said = winner(value[name]) if kind == "pair" else whole_score(value[name])
    if said is None:
        return nothing("out_of_range")
    reason = next((value[field] for field in value if field.lower() == "reasoning"), "")
    return Verdict(value=said, reason=writable(str(reason).strip()), how=how)


def field_of(value: dict[str, Any], kind: Kind) -> str | None:
    """The name that a verdict's field has here; None where there is none, or more than one."""
    names = [name for name in value if name.lower() in FIELDS[kind]]
    return names[0] if len(names) == 1 else next((name for name in names if name == FIELDS[kind][0]), None)


QUOTED_BEFORE = re.compile(
    r"[\"'`“‘«„]$|\b(?:says?|said|contains?|includes?|outputs?|writes?|wrote|states?|claims?|asks?|prints?|returns?|"
    r"quotes?|examples?|formats?|not|instead of|rather than)\b[^.!?\n]*$",
    re.IGNORECASE,
)


def is_quoted(text: str, place: int) -> bool:
    """Whether what begins there is quoted or reported rather than said."""
    before = text[:place].rstrip()
    if before.endswith("```") or re.search(r"```\w*$", before):
        return False
    return bool(QUOTED_BEFORE.search(before))


def json_objects(text: str) -> list[tuple[int, dict[str, Any]]]:
    """Every JSON object in the text, and where; outermost ones only. One that names a field twice does not count."""
    objects, place = [], 0
    while (place := text.find("{", place)) >= 0:
        try:
            value, end = DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            place += 1
            continue
        objects.append((place, value))
        place = end
    return objects


def named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a field is named twice")
    return dict(pairs)


DECODER = json.JSONDecoder(strict=False, object_pairs_hook=named_once)


# ---- text


def from_text(text: str, kind: Kind) -> Verdict:
    if any(is_inside(text, match.start()) for match in FIELD.finditer(text)):  # of an object that is broken
        return nothing("garbage")
    plain = unquoted(text)
    return from_words(plain) if kind == "pair" else from_number(re.sub(r"[\[\]]", "", plain))


FIELD = re.compile(r"\b(?:score|rating|grade|winner|verdict)\b", re.IGNORECASE)


def is_inside(text: str, place: int) -> bool:
    """Whether a brace is open there: what follows may be cut in the middle of a number."""
    return text.rfind("{", 0, place) > text.rfind("}", 0, place)


QUOTES = re.compile(
    r"```.*?(?:```|\Z)|^\s*>.*?$|(?<!`)`[^`\n]+`|\"[^\"]*\"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|(?<!\w)'[^'\n]+'(?!\w)",
    re.DOTALL | re.MULTILINE,
)
ALONE = re.compile(
    r"[\s\"'`]*-?\d[\d.,]*\s*(?:/\s*\d+|%)?[\s\"'`.]*|[\s\"'`]*(?:answer )?(?:a|b|c|tie)[\s\"'`.]*", re.IGNORECASE
)
LABEL_IN_QUOTES = re.compile(r"[\"'`]\s*(score|rating|grade|winner|verdict)\s*[\"'`]", re.IGNORECASE)


def unquoted(text: str) -> str:
    """The text without what it quotes and how it is set; a number or a label alone in quotes stays."""
    text = unicodedata.normalize("NFKC", text)
    text = LABEL_IN_QUOTES.sub(r"\1", text)
    text = QUOTES.sub(lambda found: found[0].strip("\"'` ") if ALONE.fullmatch(found[0]) else " … ", text)
    text = re.sub(r"\((?:0\s*(?:-|–|to)\s*|out of )100\)\s*:", ":", text)
    return re.sub(r"\*+|__+|^#+ *", "", text, flags=re.MULTILINE).strip()


LABEL = (
    r"(?:scor(?:e|es|ing)|rating|grade|mark|punktzahl|bewertung|wertung|score|puntuación|puntaje|calificación|"
    r"punteggio|pontuação|得分|分数|评分|总分|点数|得点|スコア|점수|оценка|балл)"
)
# What may come before a label that opens a sentence, and between a label and its number.
LEAD = (
    r"(?:(?:so|thus|therefore|overall|in total|the|a|my|our|this|his|her|its|final|total|numeric|numerical|quality|"
    r"answer|response|model|judge|die|der|meine|le|la|el|il|o|mi|mon)[ ,:]*)*"
)
LINK = (
    r"(?:[\s:=,]|[-–—](?!\d)|\b(?:is|be|would|will|of|for|as|to|a|an|at|the|this|that|it|model|answer|response|given|"
    r"ist|beträgt|lautet|est|de|es|è|é|der|antwort|是|为|은|는)\b)*"
)
GIVING = (
    r"\b(?:i|i'd|i'll|we)\s*(?:would|will|'d|'ll|can)?\s*(?:therefore |thus )?(?:give|assign|award|rate|score|grade)\b|"
    r"\b(?:it|the (?:answer|response|model)|this(?: answer| response)?|the model's (?:answer|response))\s+(?:would )?"
    r"(?:deserves?|earns?|scores?|gets?|receives?|merits?)\b"
)
NAMED_IN_GIVING = rf"(?:{LINK}{LABEL})?"
NUMBER = r"(?P<number>[-+−]?\d+(?:[.,]\d+)*)"
OVER = r"(?:\s*(?:/|out of|of|von|sur|de|su|из|over)\s*|\s*\(\s*(?:out of|of|von|sur|de|/)\s*)(?P<over>\d+)\s*\)?"
UNIT = r"\s*(?:%|percent\b|marks?\b|points?\b|punkten?\b|puntos\b|punti\b|pontos\b|分|点|点数|점|балл(?:а|ов)?\b)"
VALUE = rf"{NUMBER}(?:{OVER})?(?P<unit>{UNIT})?(?:{OVER.replace('over>', 'again>')})?"
AFTER = (
    r"(?=\s*(?:$|[.,;:!)。，；](?!\d)|[-–—](?!\s*\d)|\((?!\s*(?:out|of|von|sur|de|/))|…|"
    r"(?:since|because|as|but|which|given|due|with|overall|to the (?:answer|response)|and(?!\s+\d))\b))"
)
LABELLED = re.compile(rf"^\W*{LEAD}(?P<label>{LABEL}){LINK}{VALUE}{AFTER}", re.IGNORECASE)
GIVEN = re.compile(
    rf"(?:^|[,;:]|\bso\b|\btherefore\b|\bthus\b)\s*(?:{GIVING}){NAMED_IN_GIVING}{LINK}{VALUE}{AFTER}", re.IGNORECASE
)
BARE = re.compile(rf"^[^\w+−-]*{VALUE}\s*[.!]?\s*$", re.IGNORECASE)
FINAL = re.compile(r"\b(?:final|overall|total)\b|总分", re.IGNORECASE)
DOUBT = re.compile(
    r"\b(?:not|never|no|cannot|neither|nor|if|unless|could|might|nicht|kein\w*|pas|non|instead|rather|have)\b|n't\b|不|没",
    re.IGNORECASE,
)
OTHER_SCALE = re.compile(
    r"\b(?:from|of|between|scale)?\s*[01]\s*(?:to|-|–|and|bis|à)\s*(?P<end>\d+)\b|"
    r"\bout of (?P<out>\d+)\b|/\s*(?P<slash>\d+)\b",
    re.IGNORECASE,
)
SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+|(?<=[。！？])")


def from_number(text: str) -> Verdict:
    """A number that is all there is, or is alone on the first line, or next to what calls it the score."""
    first = text.partition("\n")[0]
    bare = BARE.match(text) or BARE.match(first)
    found = [(bool(FINAL.search(sentence)), match) for sentence in SENTENCE.split(text) for match in said(sentence)]
    if bare:
        found.append((False, bare))
    chosen = [match for final, match in found if final] or [match for _, match in found]
    scores = {score_of(match) for match in chosen}
    if not scores:
        return nothing("garbage")
    if len(scores) > 1:
        return nothing("ambiguous")
    [score] = scores
    if score is None:
        return nothing("out_of_range")
    stated = {int(end) for match in OTHER_SCALE.finditer(text) for end in match.groups() if end}
    explicit = any(match["over"] or match["again"] for match in chosen)
    if not explicit and stated - {100}:
        return nothing("ambiguous")
    return Verdict(value=score, how="number")


def said(sentence: str) -> list[re.Match[str]]:
    """Where a sentence says a score; not where it denies one, or says what it could have been."""
    match = LABELLED.search(sentence) or GIVEN.search(sentence)
    return [match] if match and not DOUBT.search(sentence[: match.end()]) else []


def score_of(match: re.Match[str]) -> int | None:
    """On the scale from 0 to 100; None where the text is not a number, or one on another scale."""
    return whole_score(match["number"]) if int(match["over"] or match["again"] or 100) == 100 else None


def whole_score(value: Any) -> int | None:
    """A whole number from 0 to 100, also when written as 85.0, "85/100" or "85%"; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    match = re.fullmatch(rf"(\d{{1,3}})(?:\.0+)?(?:{OVER}|{UNIT})?", str(value).strip(), re.ASCII | re.I)
    if match is None or int(match["over"] or 100) != 100:
        return None
    score = int(match[1])
    return score if score <= 100 else None


WINNERS = {"a": "A", "b": "B", "tie": "tie", "c": "tie"}
NAME = r"(?:(?:answer|response|assistant|model|option)\s+)?(?P<name>a|b|c|tie)"
WINNER = re.compile(NAME, re.IGNORECASE)
ONE_WORD = re.compile(rf"\W*(?:(?:final |the )?(?:winner|verdict)(?: is)?\b[\s:]*)?{NAME}\W*", re.IGNORECASE)
NAMED = re.compile(
    rf"^\W*(?:so |overall,? |therefore,? )?(?:my |the |final )*(?:winner|verdict|better (?:answer|response))(?: is|:)+"
    rf"\s*{NAME}\b(?!')(?=\s*(?:$|[.,;:!)(]|because|since|as\b))",
    re.IGNORECASE,
)
BRACKETED = re.compile(r"\[\[\s*(a|b|c|tie)\s*\]\]", re.IGNORECASE)


def from_words(text: str) -> Verdict:
    text, bracketed = re.sub(r"[\[\]]", "", text), BRACKETED.findall(text)
    whole = ONE_WORD.fullmatch(text) or ONE_WORD.fullmatch(text.partition("\n")[0])
    names = [*bracketed, *([whole["name"]] if whole else [])]
    names += [match["name"] for sentence in SENTENCE.split(text) if (match := NAMED.search(sentence))]
    found = {WINNERS[name.lower()] for name in names}
    if len(found) > 1:
        return nothing("ambiguous")
    return Verdict(value=found.pop(), how="word") if found else nothing("garbage")


def winner(value: Any) -> str | None:
    match = WINNER.fullmatch(value.strip()) if isinstance(value, str) else None
    return WINNERS[match["name"].lower()] if match else None
