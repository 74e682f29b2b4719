"""Files as people have them: each loads to the rows it means, or is refused with file, line, field and reason."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heed.data.formats import read_csv
from heed.data.rows import notes
from heed.data.sources import Source, file_hashes, read, stream
from heed.errors import UserError

A, B = {"instruction": "Add 1 and 2.", "output": "3"}, {"instruction": "Say é.", "output": "é"}
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (A, B))
CSV = "instruction,input,output\nAdd 1 and 2.,,3\nSay é.,,é\n"


def changed(**fields: Any) -> str:
    """A good line, then one with these fields changed; a field that is `...` is left out."""
    row = {name: value for name, value in {**A, **fields}.items() if value is not ...}
    return json.dumps(A) + "\n" + json.dumps(row) + "\n"


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


def parquet_table(names: list[str], *rows: list[str] | list[bytes]) -> bytes:
    """Columns by place; bytes are stored as text unread, as other writers do."""
    columns = [
        pa.array([text.encode() if isinstance(text, str) else text for text in texts])
        for texts in zip(*rows, strict=True)
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays([column.view(pa.string()) for column in columns], names=names), sink)
    return bytes(sink.getvalue())


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(data)
    return bytes(sink.getvalue())


def many(bad: str) -> str:
    """300,000 lines, the last but one of them bad."""
    good = '{"prompt": "a", "response": "b"}\n'
    return good * 299_998 + bad + "\n" + good


# name -> file name, content (or what makes it), and what the answers are or what the message must say
Case = tuple[str, "str | bytes | Callable[[], str | bytes]", "list[str] | str"]
FILES: dict[str, Case] = {
    # what loads
    "json": ("r.json", json.dumps([A, B]), ["3", "é"]),
    "json, indented": ("r.json", json.dumps([A, B], indent=4), ["3", "é"]),
    "jsonl": ("r.jsonl", LINES, ["3", "é"]),
    "jsonl without a last newline": ("r.jsonl", LINES.rstrip("\n"), ["3", "é"]),
    "blank lines": ("r.jsonl", "\n\n" + LINES.replace("\n", "\n\n"), ["3", "é"]),
    "windows lines": ("r.jsonl", LINES.replace("\n", "\r\n"), ["3", "é"]),
    "byte order mark": ("r.jsonl", "\ufeff" + LINES, ["3", "é"]),
    "byte order mark before an array": ("r.json", "\ufeff" + json.dumps([A]), ["3"]),
    "array in a .jsonl": ("r.jsonl", json.dumps([A, B]), ["3", "é"]),
    "line separators in a text": ("r.jsonl", changed(output="a\u2028b\u0085c"), ["3", "a\u2028b\u0085c"]),
    "escapes and emoji": ("r.jsonl", changed(output="\ud83d\ude00\t\\"), ["3", "😀\t\\"]),
    "upper-case ending": ("R.JSONL", LINES, ["3", "é"]),
    "csv": ("r.csv", CSV, ["3", "é"]),
    "csv with a byte order mark": ("r.csv", "\ufeff" + CSV, ["3", "é"]),
    "csv with windows lines": ("r.csv", CSV.replace("\n", "\r\n"), ["3", "é"]),
    "csv with NA, null, nan and numbers": (
        "r.csv",
        "question,answer\na,NA\nb,null\nc,nan\nd,007\ne,None\n",
        ["NA", "null", "nan", "007", "None"],
    ),
    "csv with lines in a cell": ("r.csv", 'question,answer\na,"b\n\nc"\n', ["b\n\nc"]),
    "csv with a cell of 200,000 letters": ("r.csv", "question,answer\na," + "b" * 200_000 + "\n", ["b" * 200_000]),
    "semicolons": ("r.csv", 'instruction;output\na;"b;c"\nd;1,5\n', ["b;c", "1,5"]),
    "tabs": ("r.csv", "instruction\toutput\na\tb, c\n", ["b, c"]),
    "tabs in a .tsv": ("r.tsv", "\ufeffinstruction\toutput\r\na\tb;c\r\n", ["b;c"]),
    "commas and semicolons in a header": ("r.csv", "question,answer,a;b\nc,d,e\n", ["d"]),
    "semicolons, and a comma in quotes": ("r.csv", 'question;answer;"a, b"\nc;d;e\n', ["d"]),
    "gz": ("r.jsonl.gz", gzip.compress(LINES.encode(), mtime=0), ["3", "é"]),
    "gz under another name": ("r.jsonl", gzip.compress(LINES.encode(), mtime=0), ["3", "é"]),
    "zst": ("r.json.zst", zstd(json.dumps([A]).encode()), ["3"]),
    "parquet": ("r.parquet", parquet([A, B]), ["3", "é"]),
    "parquet, gz under another name": ("r.parquet", gzip.compress(parquet([A])), ["3"]),
    "parquet, zst": ("r.parquet.zst", zstd(parquet([A])), ["3"]),
    "duplicate rows": ("r.jsonl", LINES + LINES, ["3", "é", "3", "é"]),
    "null and empty input": ("r.jsonl", changed(input=None) + changed(input=""), ["3"] * 4),
    # what no row can be read from
    "empty": ("r.jsonl", "", "r.jsonl: the file has no rows"),
    "nothing but space": ("r.json", " \n ", "r.json: the file has no rows"),
    "empty array": ("r.json", "[]", "r.json: the file has no rows"),
    "csv with nothing but a header": ("r.csv", "instruction,output\n", "r.csv: the file has no rows"),
    "rows under a key": ("r.json", '{"data": [{}]}', "r.json: expected a list of rows, got dict with the keys 'data'"),
    "rows by number": ("r.json", json.dumps({"0": A}), "r.json: expected a list of rows, got dict with the keys '0'"),
    "a text": ("r.json", '"rows"', "r.json: expected a list of rows, got str"),
    "lines in a .json": ("r.json", LINES, "r.json: several JSON values, one per line; name the file .jsonl"),
    "array cut off": ("r.json", "[" + json.dumps(A), "r.json:1: not JSON: expected ',' or ']' after a row"),
    "comma too many": ("r.json", "[\n" + json.dumps(A) + ",\n]", "r.json:3: not JSON: Expecting value"),
    "text behind the array": ("r.json", "[" + json.dumps(A) + "]\n[]", "r.json:2: not JSON: text after"),
    "nested too deep": ("r.json", "[" * 100_000, "r.json:1: not JSON: too many brackets within brackets"),
    "UTF-16": ("r.jsonl", LINES.encode("utf-16"), "r.jsonl: the file is UTF-16; save it as UTF-8"),
    "UTF-16 csv": ("r.csv", CSV.encode("utf-16"), "r.csv: the file is UTF-16; save it as UTF-8"),
    "gz cut off": (
        "r.jsonl.gz",
        gzip.compress(LINES.encode(), mtime=0)[:-9],
        "r.jsonl.gz: the compressed file is damaged or cut",
    ),
    "gz damaged": (
        "r.jsonl.gz",
        gzip.compress(LINES.encode(), mtime=0)[:10] + b"\xff" * 40,
        "r.jsonl.gz: the compressed file is damaged or cut off",
    ),
    "zst cut off": ("r.jsonl.zst", zstd(LINES.encode())[:-5], "r.jsonl.zst: the compressed file is damaged or cut off"),
    "csv in name only": ("r.csv", "a\x00b\n", "r.csv:"),
    "Latin-1 header": ("r.csv", "é,output\na,b\n".encode("latin-1"), "r.csv:1: the header is not UTF-8 (byte 0xe9"),
    "header names twice": ("r.csv", "output,output\na,b\n", "r.csv:1: the header names 'output' twice"),
    "quote left open": ("r.csv", 'instruction,output\na,"b\n', "r.csv:2: not CSV: unexpected end of data"),
    "parquet in name only": ("r.parquet", b"PAR1", "r.parquet: not a readable Parquet file"),
    "parquet names a column twice": ("r.parquet", parquet_table(["a", "a"], ["b", "c"]), "the schema names 'a' twice"),
    "Latin-1 in parquet": (
        "r.parquet",
        parquet_table(["instruction", "output"], ["a", "b"], [b"a", b"\xe9"]),
        "r.parquet, row 2: not UTF-8 (byte 0xe9 in a text)",
    ),
    "parquet cut off": ("r.parquet", parquet([A, B])[:-20], "r.parquet: not a readable Parquet file"),
    "another kind": ("r.xlsx", "x", "r.xlsx: unknown kind of file; Heed reads .json, .jsonl, .ndjson, .csv, .tsv, "),
    "pointer of Git LFS": (
        "r.parquet",
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "r.parquet: Git LFS has left a pointer here instead of the file; fetch it with `git lfs pull`",
    ),
    "half a character at the end": ("r.json", b'[{"a": "\xc3', "r.json:1: the file ends in the middle of a character"),
    # what is not a row
    "broken line": ("r.jsonl", LINES + "{oops}\n", "r.jsonl:3: not JSON: Expecting property name"),
    "line cut off": ("r.jsonl", LINES[:-8], "r.jsonl:2: not JSON: "),
    "two rows on a line": ("r.jsonl", json.dumps(A) * 2, "r.jsonl:1: not JSON: Extra data"),
    "single quotes": ("r.jsonl", LINES + str(A), "r.jsonl:3: not JSON: Expecting property name"),
    "a list as a row": ("r.jsonl", LINES + "[1]\n", "r.jsonl:3: expected an object with fields, got a list"),
    "null as a row": ("r.json", json.dumps([A, None]), "r.json:1 (row 2): expected an object with fields, got null"),
    "NaN": ("r.jsonl", '{"instruction": "a", "output": NaN}\n', "r.jsonl:1: not JSON: NaN is not JSON"),
    "a key twice": ("r.jsonl", '{"instruction": "a", "output": "b", "output": "c"}\n', "key 'output' is given twice"),
    "key misspelled": ("r.jsonl", changed(output=..., ouput="3"), "r.jsonl:2: field 'output': missing (the row has"),
    "optional key misspelled": ("r.jsonl", changed(inputs="x"), "r.jsonl:2: field 'inputs': unknown, nearly 'input'"),
    "null": ("r.jsonl", changed(output=None), "r.jsonl:2: field 'output': is null"),
    "a number": ("r.jsonl", changed(output=3), "r.jsonl:2: field 'output': expected text, got a number (3)"),
    "true": ("r.jsonl", changed(output=True), "r.jsonl:2: field 'output': expected text, got true or false"),
    "a list as text": ("r.jsonl", changed(output=["3"]), "r.jsonl:2: field 'output': expected text, got a list"),
    "an object as text": ("r.jsonl", changed(output={}), "r.jsonl:2: field 'output': expected text, got an object"),
    "a number as input": ("r.jsonl", changed(input=1), "r.jsonl:2: field 'input': expected text, got a number (1)"),
    "empty text": ("r.jsonl", changed(output=""), "r.jsonl:2: field 'output': is empty"),
    "nothing but space in a text": ("r.jsonl", changed(output=" \n\t"), "r.jsonl:2: field 'output': is empty"),
    "NUL": ("r.jsonl", changed(output="a\x00"), "r.jsonl:2: field 'output': contains a NUL character"),
    "half a surrogate pair": (
        "r.jsonl",
        changed(output="\ud83d"),
        "r.jsonl:2: field 'output': contains half of a surr",
    ),
    "Latin-1": ("r.jsonl", LINES.encode("latin-1"), "r.jsonl:2: not UTF-8 (byte 0xe9 at column 22)"),
    "Latin-1 csv": ("r.csv", CSV.encode("latin-1"), "r.csv:3: not UTF-8 (byte 0xe9 at column 5)"),
    "Latin-1 array": (
        "r.json",
        ("[\n" + json.dumps([B], ensure_ascii=False)[1:]).encode("latin-1"),
        "r.json:2: not UTF-8 (byte 0xe9",
    ),
    "a cell too many": ("r.csv", CSV + "a,b,c,d\n", "r.csv:4: 4 cells, but the header has 3"),
    "a cell too few": ("r.csv", CSV + "a,b\n", "r.csv:4: 2 cells, but the header has 3"),
    "numbers in parquet": (
        "r.parquet",
        parquet([A | {"output": 3}]),
        "row 1: field 'output': expected text, got a num",
    ),
    "nulls in parquet": ("r.parquet", parquet([A, A | {"output": None}]), "row 2: field 'output': is null"),
    "no known columns": ("r.jsonl", '{"text": "a"}\n', "r.jsonl:1: no known format, the row has 'text'"),
    "columns that may be meant": (
        "r.csv",
        "Task,Solution\na,b\n",
        """A guess, which is not applied: --columns '{"instruction": "Task", "output": "Solution"}'""",
    ),
    "two formats": ("r.jsonl", json.dumps(A | {"prompt": "a", "response": "b"}), "fits alpaca and prompt_response at"),
    "300,000 lines": ("r.jsonl", lambda: many('{"prompt": "a"}'), "r.jsonl:299999: field 'response': missing"),
}


@pytest.mark.parametrize("case", FILES)
def test_an_odd_file_loads_correctly_or_is_named(tmp_path: Path, case: str) -> None:
    name, content, expected = FILES[case]
    path = tmp_path / name
    made = content() if callable(content) else content
    path.write_bytes(made.encode() if isinstance(made, str) else made)

    if isinstance(expected, list):
        assert [row.output for row in read(Source(data=str(path))).rows.records] == expected
        return
    with pytest.raises(UserError) as error:
        read(Source(data=str(path)))
    assert expected in str(error.value) and name in str(error.value)


def test_a_stream_gives_the_same_rows_as_reading_including_bad_ones(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(LINES + "{oops}\n" + LINES)
    source = Source(data=str(path), on_bad_row="drop")
    reading, rows = read(source), list(stream(source).rows)

    assert [row for row in rows if row not in reading.rows.rejected] == reading.rows.records
    assert rows[2] == reading.rows.rejected[0]
    assert file_hashes(source) == reading.files


def test_a_csv_without_a_header_is_read_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("What is 2 + 2?,4\nWhat is 2 + 3?,5\n")
    rows = read(Source(data=str(path))).rows
    assert [(record.instruction, record.output) for record in rows.records] == [
        ("What is 2 + 2?", "4"),
        ("What is 2 + 3?", "5"),
    ]
    assert "read column 1 (the file has no header) as instruction, column 2 as output" in " ".join(
        notes(rows.understood, rows.ignored_fields)
    )


@pytest.mark.parametrize("second", ["", "I have ten apples."])
def test_three_columns_without_a_header_are_instruction_input_and_output(tmp_path: Path, second: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"How many are left?,{second},Ten are left.\nHow many are there?,I have two pears.,Two.\n")
    rows = read(Source(data=str(path))).rows
    assert [(record.instruction, record.input, record.output) for record in rows.records] == [
        ("How many are left?", second, "Ten are left."),
        ("How many are there?", "I have two pears.", "Two."),
    ]
    assert "column 1 (the file has no header) as instruction" in " ".join(notes(rows.understood, rows.ignored_fields))


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ("What is 2 + 2?,easy,4", "question,column_2,answer"),
        ("1,What is 2 + 2?,4", "column_1,question,answer"),
        ("17,easy,What is 2 + 2?,4", "column_1,column_2,question,answer"),
        ("What is 2 + 2?,Add them up.,sums,4", "question,column_2,column_3,answer"),
    ],
)
def test_columns_that_are_not_plain_without_a_header_are_refused_and_the_advice_works(
    tmp_path: Path, row: str, names: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"{row}\n")
    with pytest.raises(UserError, match=f"rows.csv:1: the file has no header, .* above the rows, as {names}$"):
        read(Source(data=str(path)))
    path.write_text(f"{names}\n{row}\n")
    [record] = read(Source(data=str(path))).rows.records
    assert (record.instruction, record.output) == ("What is 2 + 2?", "4")


@pytest.mark.parametrize(
    "header",
    [
        *("What is your question?,Answer", "question,answer", "Frage?,What do you say?"),
        *("What is your question?,Context,Answer", "question,What do you know?,answer"),
    ],
)
def test_names_of_columns_are_no_row(tmp_path: Path, header: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"{header}\nWhat is 2 + 2?{',' * (header.count(',') - 1)},4\n")
    assert [row.place for row in read_csv(path, "rows.csv")] == ["rows.csv:2"]
