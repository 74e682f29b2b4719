"""Rows that were kept are the rows that were read."""

import json
from dataclasses import fields
from pathlib import Path

import datasets
import pytest

from heed.data import kept, sources
from heed.data.records import Record
from heed.data.sources import Reading, Source, read

ROWS = [
    {"instruction": "Say ü.", "input": "", "output": "ü 😀", "id": 7},
    {"instruction": "Add.", "input": "1 and 2", "output": "3"},
    {"instruction": "Add.", "input": "1 and 2", "output": "three", "system": "Be brief."},
]
CHAT = [
    {
        "messages": [
            {"role": "user", "content": "Time?", "tools": [{"type": "function", "function": {"name": "now"}}]},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "now", "arguments": {"x": 1.5}}}],
            },
            {"role": "tool", "content": "12", "name": "now"},
            {"role": "assistant", "content": "Noon.", "weight": 1, "reasoning_content": "12 is noon"},
        ]
    }
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kept, "MANY", 1)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "heed"


def all_of(reading: Reading) -> list[object]:
    rows = reading.rows
    records = [
        [getattr(record, each.name) for each in fields(Record)] + [record.content_hash, record.question_hash]
        for record in rows.records
    ]
    return [records, rows.row_format, list(rows.understood), rows.ignored_fields, reading.files, reading.sha256]


@pytest.mark.parametrize("values", [ROWS, CHAT], ids=["alpaca", "chat"])
def test_a_source_is_read_once_and_is_the_same_from_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, values: list[dict[str, object]]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(value) + "\n" for value in values))
    source = Source(data=str(file))
    first = read(source)
    with monkeypatch.context() as patch:
        patch.setattr(sources, "check_rows", None)
        second = read(source)
    assert second.rows.records == first.rows.records and all_of(second) == all_of(first)

    [there] = cache.iterdir()
    there.write_text('{"records": [[]]')
    assert all_of(read(source)) == all_of(first)


def test_other_bytes_and_other_columns_are_read_again(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(ROWS))
    assert read(Source(data=str(file))).rows.records[0].output == "ü 😀"
    turned = {"instruction": "output", "output": "instruction"}
    assert read(Source(data=str(file), columns=turned)).rows.records[0].output == "Say ü."
    file.write_text(json.dumps(ROWS).replace("three", "drei"))
    assert read(Source(data=str(file))).rows.records[2].output == "drei"
    assert len(list(cache.iterdir())) == 3


def test_a_source_that_may_have_bad_rows_is_not_kept(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([*ROWS, {"instruction": 1}]))
    assert len(read(Source(data=str(file), on_bad_row="drop")).rows.rejected) == 1
    assert not cache.exists()
