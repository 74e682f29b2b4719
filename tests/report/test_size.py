import json
from typing import Any

import pytest

from heed.pages import json_markup
from heed.report import size
from heed.report.size import fit

SCRIPTS = ("plain words ", "schön ", "слово ", "漢字。", "🦉", "<&>\n\u2028", "\ud83d")


def rows(number: int) -> list[dict[str, Any]]:
    """Texts of many lengths, each in another script; every third row has a verdict and a pair."""
    found = []
    for row in range(number):
        text = SCRIPTS[row % len(SCRIPTS)] * (row + 1)
        answer = {"text": text, "finish": "stop", "verdicts": [[0, text[::-1]]] if row % 3 == 0 else []}
        asked = {"id": row, "instruction": text[: row + 2], "input": "", "output": text + "!", "system": "Be brief."}
        found.append(asked | {"answers": [None, answer], "pairs": [[1], [2, text[1:]]], "tags": ["Flag: x"]})
    return found


def plainly_cut(number: int, whole: set[int], length: int, reasons: int | None = None) -> list[dict[str, Any]]:
    """The rows with every text cut at this length but those of `whole`; reasons of judges may have another length."""

    def shortened(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: shortened(each, key) for key, each in value.items()}
        if isinstance(value, list):
            return [shortened(each, "reason" if isinstance(value[0], int) else "") for each in value]
        most = length if name != "reason" or reasons is None else reasons
        is_long = name in (*size.TEXTS, "reason") and isinstance(value, str) and len(value) > most
        return [value[:most], len(value)] if is_long else value

    return [row if row["id"] in whole else shortened(row) for row in rows(number)]


def test_rows_that_fit_are_not_changed() -> None:
    assert fit({"rows": rows(50)}, [3]) == (json_markup({"rows": rows(50)}), None)


@pytest.mark.parametrize("room", [26_298, 40_000, 60_000])
def test_texts_are_cut_at_the_greatest_length_that_fits(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    monkeypatch.setattr(size, "ROOM", room / 2)
    monkeypatch.setattr(size, "ROWS", 30)  # and there are twice as many
    monkeypatch.setattr(size, "WHOLE", 1_000)

    written, cut = fit({"rows": rows(60)}, [59, 1, 1, 7, 1000])  # the first is too long to stay whole

    assert cut is not None
    assert written == json_markup({"rows": plainly_cut(60, {1, 7}, cut.length)})
    longer = json_markup({"rows": plainly_cut(60, {1, 7}, cut.length + 1)})
    assert len(written.encode()) <= room < len(longer.encode())


def test_reasons_of_judges_are_left_out_before_other_texts_lose_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size, "ROOM", 26_295)  # a byte less than with 20 characters of every text
    monkeypatch.setattr(size, "WHOLE", 1_000)

    written, cut = fit({"rows": rows(60)}, [1, 7])

    assert written == json_markup({"rows": plainly_cut(60, {1, 7}, size.LEAST, reasons=0)})
    assert cut is not None and (cut.length, cut.gone) == (size.LEAST, 20 + 58)  # no reason of rows 1 and 7


def test_where_nothing_fits_every_text_keeps_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size, "ROOM", 100)
    monkeypatch.setattr(size, "WHOLE", 0)

    written, cut = fit({"rows": rows(60)}, [])
    assert json.loads(written) == {"rows": plainly_cut(60, set(), size.LEAST, reasons=0)}
    assert cut is not None and (cut.length, cut.gone) == (size.LEAST, 20 + 60)  # a third of the rows; a pair of each
    short = [row | {"instruction": "x", "output": "y", "answers": [], "pairs": []} for row in rows(9)]
    assert fit({"rows": short}, []) == (json_markup({"rows": short}), None)
