"""How large the rows of a page may be: beyond that most of their texts are cut, and the page says so."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from markupsafe import Markup

from heed.pages import json_bytes, json_markup
from heed.report.answers import verdicts_of

ROOM, ROWS = 7_700_000, 10_000
"""Bytes of so many rows, or fewer: a page of them stays below 8 MB. More rows have more room, each as much as these."""
WHOLE = 1_500_000
"""Bytes of the rows that are looked at first, whose texts stay whole as long as they are no more."""
LEAST = 20
"""Characters that a text keeps, even if the page grows beyond its room. A judge's reasons are left out before."""
TEXTS = ("system", "instruction", "input", "output", "text")

Place = tuple[Any, Any]
"""Where a text is: a row, an answer or a verdict, and under which name or number."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How many texts, and in how many rows, are not whole in a page."""

    length: int
    texts: int
    gone: int
    """Those of them that no character is left of."""
    rows: int
    n_rows: int


def fit(data: dict[str, Any], first: Iterable[int]) -> tuple[Markup, Cut | None]:
    """The data as JSON. Where it is too large its texts are cut at one length, the greatest that fits.

    A cut text becomes its beginning and how many characters it had. `first` are the rows that stay whole if they can.
    """
    room = int(ROOM * max(1, len(data["rows"]) / ROWS))
    answered = sum(len(answer.get("text", "")) for row in data["rows"] for answer in row["answers"] if answer)
    if answered <= room and len(written := json_bytes(data)) <= room:  # writing much takes long
        return Markup(written.decode()), None
    places = {row["id"]: list(places_of(row)) for row in data["rows"]}
    whole = kept(data["rows"], first)
    length = cut_all(data, [place for row_id, each in places.items() if row_id not in whole for place in each], room)
    cut = [[has[name] for has, name in each if isinstance(has[name], list)] for each in places.values()]
    texts, rows, gone = sum(map(len, cut)), sum(map(bool, cut)), sum(not text for each in cut for text, _ in each)
    found = Cut(length=length, texts=texts, gone=gone, rows=rows, n_rows=len(cut))
    return json_markup(data), found if texts else None


def places_of(row: dict[str, Any]) -> Iterator[Place]:
    texts = ((has, name) for has in (row, *row["answers"]) if has for name in TEXTS if has.get(name))
    return chain(texts, ((verdict, 1) for verdict in verdicts_of(row) if len(verdict) > 1))


def kept(rows: list[dict[str, Any]], first: Iterable[int]) -> set[int]:
    """Those of `first` whose texts stay whole."""
    by_id = {row["id"]: row for row in rows}
    room, found = WHOLE, set()
    for row_id in dict.fromkeys(each for each in first if each in by_id):
        size = len(json_bytes(by_id[row_id]))
        if size <= room:
            room -= size
            found.add(row_id)
    return found


def cut_all(data: dict[str, Any], places: list[Place], room: int) -> int:
    """Cut what is longer than the greatest length with which the data fits, and return that."""
    texts = [has[name] for has, name in places]
    least = np.array([0 if isinstance(has, list) else LEAST for has, _ in places], dtype=int)
    for has, name in places:
        has[name] = ""
    room -= len(json_bytes(data))
    lengths = np.array([len(text) for text in texts], dtype=int)
    marks = np.array([len(f"[,{length}]") for length in lengths], dtype=int)

    def ends(length: int) -> Any:
        """Where each text ends at the latest."""
        return np.full_like(least, length) if length >= LEAST else least

    def size(length: int) -> int:
        """Of all texts, as they are written."""
        end = ends(length)
        marked = int(marks[lengths > end].sum())
        fewest = int(np.minimum(lengths, end).sum()) + marked  # a character has a byte or more
        if fewest > room:
            return fewest
        return len(json_bytes("".join(text[:last] for text, last in zip(texts, end.tolist(), strict=True)))) + marked

    candidates = range(LEAST - 1, lengths.max(initial=LEAST))  # the first leaves judges' reasons out
    length = candidates[max(bisect_right(candidates, room, key=size) - 1, 0)]
    for (has, name), text, end in zip(places, texts, ends(length).tolist(), strict=True):
        has[name] = [text[:end], len(text)] if len(text) > end else text
    return max(length, LEAST)
