"""Files that are far larger, or far deeper, than what they seem: read in flat memory, or refused in a sentence."""

import json
import time
import tracemalloc
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pyarrow
import pytest

from heed.data import formats, texts
from heed.data.sources import Source, read, stream
from heed.errors import UserError

MB = 1_000_000
ROW = json.dumps({"instruction": "Add 1 and 2.", "output": "3 " * 1000}) + "\n"


def pack(path: Path, blocks: Iterator[bytes]) -> Path:
    with pyarrow.CompressedOutputStream(str(path), "gzip" if path.suffix == ".gz" else "zstd") as file:
        for block in blocks:
            file.write(block)
    return path


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        for _ in stream(Source(data=str(path), on_bad_row="drop")).rows:
            pass
    return str(error.value).replace(str(path), path.name)


@pytest.mark.parametrize("packing", ["gz", "zst"])
@pytest.mark.parametrize(
    ("name", "start", "fill", "message"),
    [
        ("r.jsonl", b'{"instruction": "', b"a", ":1: longer than 32 MB, which no row is"),
        ("r.jsonl", b"", b"\x00", ":1: longer than 32 MB, which no row is"),
        (
            "r.json",
            b'[{"instruction": "',
            b"a",
            ":1: longer than 32 MB, which no row is (is a quotation mark missing?)",
        ),
        ("r.json", b'{"rows": "', b"\n", ":1: not JSON: Invalid control character at (column 11)"),
        ("r.csv", b"instruction,output\n", b"a", ":2: longer than 32 MB, which no row is"),
        (
            "r.csv",
            b'instruction,output\na,"',
            b"b" * 999 + b"\n",
            "longer than 32 MB, which no row is (is a quotation mark missing?)",
        ),
    ],
)
def test_a_packed_file_without_an_end_is_refused_at_a_stated_size(
    tmp_path: Path, packing: str, name: str, start: bytes, fill: bytes, message: str
) -> None:
    block = fill * (MB // len(fill))
    path = pack(tmp_path / f"{name}.{packing}", chain([start], (block for _ in range(40))))
    assert path.stat().st_size < MB / 2
    began = time.process_time()
    assert message in refused(path)
    assert time.process_time() - began < 3


def test_a_packed_parquet_file_without_an_end_is_refused_at_a_stated_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "UNPACKED", 2 * MB)
    path = pack(tmp_path / "r.parquet.gz", (b"\x00" * MB for _ in range(3)))
    assert "r.parquet.gz: unpacks to more than 2 MB; give it unpacked" in refused(path)


@pytest.mark.parametrize(
    ("name", "start", "between", "end"),
    [
        ("r.json", "[", ",", "]"),
        ("r.json", "[\n", ",\n", "\n]\n"),
        ("r.jsonl", "[", ", ", "]"),
        ("r.jsonl", "", "\n", ""),
        ("r.jsonl", "", "\n" * 3, ""),
    ],
)
def test_rows_on_one_line_and_on_many_take_the_same_little_memory(
    tmp_path: Path, name: str, start: str, between: str, end: str
) -> None:
    path = tmp_path / name
    path.write_text(start + between.join([ROW.strip()] * 8_000) + end)
    tracemalloc.start()
    try:
        assert sum(1 for _ in stream(Source(data=str(path))).rows) == 8_000
        assert tracemalloc.get_traced_memory()[1] < 8 * MB
    finally:
        tracemalloc.stop()


def test_the_time_for_a_long_row_depends_only_on_its_length(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps([{"instruction": "a", "output": "é" * (10 * MB)}], ensure_ascii=False))
    began = time.process_time()
    assert len(read(Source(data=str(path))).rows.records[0].output) == 10 * MB
    assert time.process_time() - began < 3


def test_what_a_window_cuts_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever falls on the edge of a block: escapes, numbers, characters of several bytes, brackets."""
    rows = [{"instruction": f"é🙂\\n{number}", "output": "\u2028\t", "n": -1.5e-7, "t": True} for number in range(40)]
    path = tmp_path / "r.json"
    for text in (json.dumps(rows), json.dumps(rows, ensure_ascii=False, indent=1), json.dumps([*range(2000)])):
        path.write_text(text)
        lines = [row.place for row in formats.read_json(path, "r.json")]
        for size in (1, 2, 3, 7, 50):
            monkeypatch.setattr(texts, "BLOCK", size)
            found = list(formats.read_json(path, "r.json"))
            assert [row.value for row in found] == json.loads(text)
            assert [row.place for row in found] == lines
        monkeypatch.undo()


DEEP = [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")]


@pytest.mark.parametrize(("opening", "closing"), DEEP)
@pytest.mark.parametrize("depth", [101, 400, 10_000, 20_000, 100_000])
def test_brackets_within_brackets_are_a_bad_row_or_end_the_file(
    tmp_path: Path, opening: str, closing: str, depth: int
) -> None:
    deep = opening * depth + "1" + closing * depth
    row = f'{{"instruction": "a", "output": "b", "more": {deep}}}'
    lines, array = tmp_path / "r.jsonl", tmp_path / "r.json"
    lines.write_text(ROW + row + "\n" + ROW)
    array.write_text(f"[{ROW},{row}]")
    began = time.process_time()

    reading = read(Source(data=str(lines), on_bad_row="drop"))
    assert [bad.reasons for bad in reading.rows.rejected] == [["not JSON: too many brackets within brackets"]]
    with pytest.raises(UserError, match=r"r\.json:2.*: not JSON: too many brackets within brackets"):
        read(Source(data=str(array)))
    assert time.process_time() - began < 2
