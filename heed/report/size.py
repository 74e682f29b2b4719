"""How large the rows of a page may be: beyond that most of their texts are cut, and the page says so."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from heed.pages import json_bytes, json_markup

ROOM, ROWS = 7_700_000, 10_000
"""Bytes of so many rows, or fewer: a page of them stays below 8 MB. More rows have more room, each as much as these."""
WHOLE = 1_500_000
"""Bytes of the rows that are looked at first, whose texts stay whole as long as they are no more."""
LEAST = 20
"""Characters that a text keeps, even if the page grows beyond its room."""
TEXTS = ("system", "instruction", "input", "output", "text", "reason", "raw")

Place = tuple[dict[str, Any], str]
"""Where a text is: what has it, and under which name."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How many texts, and in how many rows, are not whole in a page."""

    length: int
    texts: int
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
    cut = [sum(isinstance(has[name], list) for has, name in each) for each in places.values()]
    texts, rows = sum(cut), sum(map(bool, cut))
    return json_markup(data), Cut(length=length, texts=texts, rows=rows, n_rows=len(cut)) if texts else None


def places_of(row: dict[str, Any]) -> Iterator[Place]:
    answers = [answer for answer in row["answers"] if answer is not None]
    verdicts = [verdict for answer in answers for verdict in answer.get("verdicts", [])]
    return ((has, name) for has in (row, *answers, *verdicts, *row.get("pairs", [])) for name in TEXTS if has.get(name))


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
    for has, name in places:
        has[name] = ""
    room -= len(json_bytes(data))
    lengths = np.array([len(text) for text in texts], dtype=int)
    marks = np.array([len(f"[,{length}]") for length in lengths], dtype=int)

    def size(length: int) -> int:
        """Of all texts, as they are written."""
        marked = int(marks[lengths > length].sum())
        least = int(np.minimum(lengths, length).sum()) + marked  # a character has a byte or more
        return least if least > room else len(json_bytes("".join(text[:length] for text in texts))) + marked

    fitting = bisect_right(range(LEAST, lengths.max(initial=LEAST)), room, key=size)
    length = LEAST + max(fitting - 1, 0)
    for (has, name), text in zip(places, texts, strict=True):
        has[name] = [text[:length], len(text)] if len(text) > length else text
    return length
