import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heed.data import pieces
from heed.data.sources import Reading, Source, read, stream, validation_sets
from heed.errors import UserError
from world.loopback_hub import environment, file_url, serve

ROWS = [
    {"instruction": "Add 1 and 2.", "input": "", "output": "3"},
    {"instruction": "Say é.", "input": "a\u2028b", "output": 'é "quoted",\nsecond line'},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CSV = 'instruction,input,output\nAdd 1 and 2.,,3\nSay é.,a\u2028b,"é ""quoted"",\nsecond line"\n'


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read_path(path: Path, **options: Any) -> Reading:
    return read(Source(data=str(path), **options))


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.json", json.dumps(ROWS)),
        ("rows.json", json.dumps(ROWS, indent=2)),
        ("rows.jsonl", LINES),
        ("rows.ndjson", "\n" + LINES + "\n"),
        ("rows.jsonl", json.dumps(ROWS)),
        ("rows.jsonl", "\ufeff" + LINES),
        ("rows.jsonl", LINES.replace("\n", "\r\n")),
        ("rows.csv", CSV),
        ("rows.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
        ("rows.jsonl.zst", zstd(LINES.encode())),
        ("rows.csv.gz", gzip.compress(CSV.encode(), mtime=0)),
    ],
)
def test_each_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str, content: str | bytes) -> None:
    rows = read_path(write(tmp_path / name, content)).rows.records
    assert [(row.instruction, row.input, row.output) for row in rows] == [
        ("Add 1 and 2.", "", "3"),
        ("Say é.", "a\u2028b", 'é "quoted",\nsecond line'),
    ]


def test_parquet_gives_the_same_rows_plain_and_compressed(tmp_path: Path) -> None:
    plain = parquet(tmp_path / "rows.parquet", ROWS)
    packed = write(tmp_path / "packed.parquet.zst", zstd(plain.read_bytes()))
    for path in (plain, packed):
        reading = read_path(path)
        assert [row.output for row in reading.rows.records] == ["3", 'é "quoted",\nsecond line']
        assert reading.rows.records[1].place == f"{path}, row 2"


def test_rows_know_the_line_they_start_on(tmp_path: Path) -> None:
    indented = read_path(write(tmp_path / "rows.json", json.dumps(ROWS, indent=2)))
    assert [row.place.rsplit(":", 1)[1] for row in indented.rows.records] == ["2 (row 1)", "7 (row 2)"]
    csv = read_path(write(tmp_path / "rows.csv", CSV + "Third,,row\n"))
    assert [row.place.rsplit(":", 1)[1] for row in csv.rows.records] == ["2", "3", "5"]


def test_cells_of_a_csv_are_text_and_never_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", "question,answer\nIs it NA?,NA\nHow many?,007\nWhat?,null\n")
    assert [row.output for row in read_path(path).rows.records] == ["NA", "007", "null"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.json", '[\n{"instruction": "a", "output": "b"},\n{"instruction": }]', ":3: not JSON: Expecting value"),
        ("rows.json", '[{"instruction": "a", "output": "b"}', ": not JSON: expected ',' or ']'"),
        ("rows.json", '{"data": []}', "expected a list of rows, got dict with the keys 'data'"),
        ("rows.json", LINES, "several JSON values, one per line; name the file .jsonl"),
        ("rows.json", "", "the file has no rows"),
        ("rows.json", "[]", "the file has no rows"),
        ("rows.jsonl", "", "the file has no rows"),
        ("rows.jsonl", LINES + "{oops}\n", "rows.jsonl:3: not JSON: Expecting property name"),
        ("rows.jsonl", '{"instruction": "a", "instruction": "b", "output": "c"}\n', "key 'instruction' is given twice"),
        ("rows.jsonl", '{"instruction": "a", "output": NaN}\n', "rows.jsonl:1: not JSON: NaN is not JSON"),
        ("rows.jsonl", LINES.encode() + "{é}".encode("latin-1"), "rows.jsonl:3: not UTF-8 (byte 0xe9 at column 2)"),
        ("rows.jsonl", LINES.encode("utf-16"), "the file is UTF-16; save it as UTF-8"),
        ("rows.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-20], "damaged or cut off"),
        ("rows.jsonl.zst", zstd(LINES.encode())[:-9], "damaged or cut off"),
        ("rows.csv", "instruction,output\na,b,c\n", "rows.csv:2: 3 cells, but the header has 2"),
        ("rows.csv", "output,output\na,b\n", "the header names 'output' twice"),
        ("rows.csv", 'instruction,output\na,"b\n', "not CSV: unexpected end of data"),
        ("rows.csv", b"instruction,output\na,b\nc,\xff\n", "rows.csv:3: not UTF-8 (byte 0xff at column 3)"),
        ("rows.parquet", "PAR1 not really", "not a readable Parquet file"),
        ("rows.xlsx", "x", "unknown kind of file; Heed reads .json, .jsonl, .ndjson, .csv, .tsv, .parquet"),
    ],
)
def test_a_bad_file_is_named_with_line_and_reason(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(UserError) as error:
        read_path(write(tmp_path / name, content))
    assert message in str(error.value)


def test_numbers_in_a_parquet_column_are_not_turned_into_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"row 1: field 'output': expected text, got a number \(3\)"):
        read_path(parquet(tmp_path / "rows.parquet", [{"instruction": "a", "output": 3}]))


def test_broken_lines_can_be_dropped_and_are_kept_with_their_reason(tmp_path: Path) -> None:
    reading = read_path(write(tmp_path / "rows.jsonl", LINES + "{oops}\n" + LINES), on_bad_row="drop")
    assert [row.row_id for row in reading.rows.records] == [0, 1, 3, 4]
    assert [(bad.place.rsplit(":", 1)[1], bad.value) for bad in reading.rows.rejected] == [("3", "{oops}")]


def test_a_line_far_down_is_counted_from_the_top(tmp_path: Path) -> None:
    good = '{"prompt": "a", "response": "' + "b" * 60 + '"}\n'
    path = write(tmp_path / "rows.jsonl", good * 25_000 + '{"prompt": "a"}\n')  # over two blocks of a megabyte
    with pytest.raises(UserError, match=r"rows\.jsonl:25001: field 'response': missing"):
        read_path(path)


def test_a_folder_gives_its_files_and_their_splits(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", LINES)
    write(tmp_path / "test.jsonl", LINES[: LINES.index("\n") + 1])
    write(tmp_path / "notes.txt", "not data")
    reading = read_path(tmp_path)
    assert [row.source_split for row in reading.rows.records] == ["test", "train", "train"]
    assert len(reading.files) == 2


def test_a_folder_where_only_some_names_say_a_split_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "test-00000-of-00001.jsonl", LINES)
    assert {row.source_split for row in read_path(tmp_path).rows.records} == {"test"}
    write(tmp_path / "rows.jsonl", LINES)
    with pytest.raises(UserError, match=r"has test-00000-of-00001.jsonl, which names a split, and rows.jsonl, which"):
        read_path(tmp_path)


def test_a_file_for_each_split(tmp_path: Path) -> None:
    path = str(write(tmp_path / "rows.jsonl", LINES))
    reading = read(Source(data={"train": path, "validation": path}))
    assert [row.source_split for row in reading.rows.records] == ["train", "train", "validation", "validation"]
    with pytest.raises(UserError, match="data: 'dev' is not a split"):
        read(Source(data={"dev": path}))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"train": {"a": "a.csv", "b": "b.csv"}}, "data: train: only validation may be several sets with names"),
        ({"validation": {"a": "a.csv", "b": "a.csv"}}, "data: validation: a.csv is in a and in b; leave it in one"),
        ({"validation": {"a": "a.csv", "cut": "b.csv"}}, "data: validation: 'cut' is no name for a set"),
        (
            {"validation": {"a b": "a.csv"}},
            "data: validation: 'a b' is no name for a set; use letters, digits, - and _",
        ),
        ({"validation": {"a": "a.csv", "b": "bad.csv"}}, "data: validation: b (bad.csv) has no row; leave it out"),
    ],
)
def test_validation_sets_that_cannot_be_told_apart_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: dict[str, dict[str, str]], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv"):
        Path(name).write_text("question,answer\nWhat?,That.\n")
    Path("bad.csv").write_text("question,answer\nWhat?\n")
    source = Source(data=data, on_bad_row="drop")
    with pytest.raises(UserError, match=re.escape(expected)):
        validation_sets(source, read(source).rows.records)


def test_the_files_of_a_folder_are_one_validation_set(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    for name in ("near", "far/one", "far/two"):
        (tmp_path / f"{name}.csv").write_text("question,answer\nWhat?,That.\n")
    source = Source(data={"validation": {"near": str(tmp_path / "near.csv"), "far": str(tmp_path / "far")}})
    assert validation_sets(source, read(source).rows.records) == {"near": [0], "far": [1, 2]}


def test_an_unknown_name_is_answered_with_what_would_be_understood() -> None:
    with pytest.raises(UserError, match=r"'rows\.jsn' is not a file, a folder, a URL, or a Hub id"):
        read(Source(data="rows.jsn"))


def test_a_url_is_fetched_once_and_a_stream_hashes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, done = write(tmp_path / "rows.csv", CSV), list[str]()

    def note(what: str, result: Any) -> Any:
        done.append(what)
        return result

    monkeypatch.setattr(pieces, "download", lambda url: note(url, path))
    monkeypatch.setattr(pieces, "file_sha256", lambda file: note(f"hash of {file}", "0"))
    url = "https://example.org/rows.csv"
    assert [row.output for row in read(Source(data=url)).rows.records] == [row["output"] for row in ROWS]
    assert done == [url, f"hash of {path}"]
    done.clear()
    assert len(list(stream(Source(data=url)).rows)) == 2
    assert done == [url]


READ_FROM_HUB = """
import json, sys
from heed.errors import UserError
from heed.data.sources import Source, read
from heed.data.splits import row_ids, split_records
lamini = read(Source(data="lamini/lamini_docs"))
splits = split_records(lamini.rows.records, how="source", shares=(), source_splits={})
url = read(Source(data=sys.argv[1]))
try:
    read(Source(data="nobody/nothing"))
except UserError as error:
    missing = str(error)
try:
    read(Source(data=sys.argv[1] + ".gone.json"))
except UserError as error:
    gone = str(error)
print(json.dumps({
    "ids": row_ids(splits), "places": [row.place for row in lamini.rows.records], "missing": missing, "gone": gone,
    "answers": [row.output for row in lamini.rows.records], "url": [row.output for row in url.rows.records],
    "format": lamini.rows.row_format, "ignored": lamini.rows.ignored_fields,
}))
"""


def test_hub_ids_and_urls_are_read_by_the_real_clients(tmp_path: Path) -> None:
    data = tmp_path / "hub" / "datasets" / "lamini" / "lamini_docs" / "data"
    data.mkdir(parents=True)
    row = {"question": "What is it?", "answer": "A test.", "input_ids": [1, 2]}
    parquet(data / "train-00000-of-00001.parquet", [row, row | {"answer": "Still a test."}])
    parquet(data / "test-00000-of-00001.parquet", [row])
    files = tmp_path / "hub" / "files"
    files.mkdir()
    write(files / "rows.json", json.dumps(ROWS))
    with serve(tmp_path / "hub") as endpoint:
        variables = environment(endpoint, tmp_path / "home") | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
        command = [sys.executable, "-c", READ_FROM_HUB, file_url(endpoint, "rows.json")]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ids"] == {"train": [0, 1], "test": [2], "validation": []}
    assert found["places"][2] == "lamini/lamini_docs, test row 1"
    assert found["answers"] == ["A test.", "Still a test.", "A test."]
    assert (found["format"], found["ignored"]) == ("question_answer", ["input_ids of 3 rows"])
    assert found["url"] == ["3", 'é "quoted",\nsecond line']
    assert "'nobody/nothing' is not a file here and not a data set on the Hub" in found["missing"]
    assert "could not be downloaded" in found["gone"]
