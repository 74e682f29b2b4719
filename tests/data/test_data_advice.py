"""Following the advice of an error about rows leads to rows that are read and split."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from heed.config import SftConfig
from heed.data.reading import read_rows
from heed.errors import UserError

ROW = {"instruction": "Say one.", "output": "one"}
LINE = json.dumps(ROW) + "\n"
CALL = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a", "tool_calls": [1]}]}
CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def source(**files: str | bytes) -> dict[str, str | bytes]:
    """A folder of files, whose names have __ for the dot."""
    return {name.replace("__", "."): content for name, content in files.items()}


@dataclass(frozen=True, kw_only=True)
class Case:
    """The files there are; what is advised; the files or the keys as they are when it has been done."""

    files: Mapping[str, str | bytes]
    advice: str
    then: Mapping[str, str | bytes] | None = None
    data: Any = "{folder}"
    keys: Mapping[str, Any] | None = None
    data_then: Any = None
    keys_then: Mapping[str, Any] | None = None


TWO = source(train__jsonl=LINE, extra__jsonl=LINE)
HELD_OUT = source(test__jsonl=LINE)
OTHER_NAMES = source(r__jsonl=lines({"Task": "Say one.", "Solution": "one"}))
CASES = {
    "lines in a .json": Case(
        files=source(r__json=LINE * 2), advice="name the file .jsonl", then=source(r__jsonl=LINE * 2)
    ),
    "UTF-16": Case(files=source(r__jsonl=LINE.encode("utf-16")), advice="save it as UTF-8", then=source(r__jsonl=LINE)),
    "Latin-1": Case(
        files=source(r__jsonl=(LINE + LINE.replace("one", "é")).encode("latin-1")),
        advice="save the file as UTF-8",
        then=source(r__jsonl=LINE.replace("one", "é")),
    ),
    "a number": Case(
        files=source(r__jsonl=lines(ROW | {"output": 1})),
        advice="write it as text",
        then=source(r__jsonl=lines(ROW | {"output": "1"})),
    ),
    "a field that is nearly input": Case(
        files=source(r__jsonl=lines(ROW | {"inputs": "a"})),
        advice="rename it",
        then=source(r__jsonl=lines(ROW | {"input": "a"})),
    ),
    "a header that names a column twice": Case(
        files=source(r__csv="instruction,output,output\na,b,c\n"),
        advice="the header names 'output' twice",
        then=source(r__csv="instruction,output,other\na,b,c\n"),
    ),
    "another kind of file": Case(
        files=source(r__txt=LINE),
        data="{folder}/r.txt",
        advice=".jsonl",
        then=source(r__jsonl=LINE),
        data_then="{folder}/r.jsonl",
    ),
    "a folder without rows": Case(files=source(r__txt=LINE), advice=".jsonl", then=source(r__jsonl=LINE)),
    "no such file": Case(
        files=source(r__jsonl=LINE), data="{folder}/s.jsonl", advice="is not a file", data_then="{folder}/r.jsonl"
    ),
    "bad rows among good ones": Case(
        files=source(r__jsonl=lines(ROW, {"instruction": "a"})),
        advice="set on_bad_row: drop",
        keys_then={"on_bad_row": "drop"},
    ),
    "calls of tools": Case(
        files=source(r__jsonl=lines(CHAT, CALL)), advice="set on_bad_row: drop", keys_then={"on_bad_row": "drop"}
    ),
    "other names": Case(
        files=OTHER_NAMES,
        advice='--columns \'{"instruction": "Task", "output": "Solution"}\'',
        keys_then={"columns": {"instruction": "Task", "output": "Solution"}},
    ),
    "names that say nothing": Case(
        files=source(r__jsonl=lines({"a": "Say one.", "b": "one"})),
        advice="columns: {instruction: your_column, output: your_other_column}",
        keys_then={"columns": {"instruction": "a", "output": "b"}},
    ),
    "a field that Heed does not know": Case(
        files=OTHER_NAMES,
        keys={"columns": {"question": "Task", "reply": "Solution"}},
        advice="map instruction, output, input, system, history, prompt, response, question, answer, messages",
        keys_then={"columns": {"question": "Task", "answer": "Solution"}},
    ),
    "two shapes at once": Case(
        files=source(r__jsonl=lines(ROW | {"question": "a", "answer": "b"})),
        advice='such as --columns \'{"instruction": "instruction", "output": "output"}\'',
        keys_then={"columns": {"instruction": "instruction", "output": "output"}},
    ),
    "a folder of which one file names a split": Case(
        files=TWO,
        advice="say which file is for what, as data: {train: FILE",
        data_then={"train": "{folder}/train.jsonl", "test": "{folder}/extra.jsonl"},
    ),
    "nothing but test rows": Case(
        files=HELD_OUT,
        advice="say which file is for what, as data: {train: FILE",
        data_then={"train": "{folder}/test.jsonl"},
    ),
    "test rows under another split": Case(
        files=HELD_OUT | source(train__jsonl=LINE),
        keys={"split": "position"},
        advice="say which file is for what, as data: {train: FILE",
        data_then={"train": "{folder}/train.jsonl", "test": "{folder}/test.jsonl"},
        keys_then={},
    ),
    "a split of files that are given for each split": Case(
        files=source(a__jsonl=LINE * 3, b__jsonl=LINE),
        data={"train": "{folder}/a.jsonl", "test": "{folder}/b.jsonl"},
        keys={"split": "hash"},
        advice="or give data as one",
        data_then="{folder}",
    ),
    "a split by another name": Case(
        files=source(a__jsonl=LINE),
        data={"dev": "{folder}/a.jsonl"},
        advice="use train, test, validation",
        data_then={"train": "{folder}/a.jsonl", "validation": "{folder}/a.jsonl"},
    ),
    "a source that names no splits": Case(
        files=source(a__jsonl=LINE * 9),
        keys={"split": "source"},
        advice="use split: position or split: hash",
        keys_then={"split": "position"},
    ),
    "a split that the source does not have": Case(
        files=source(train__jsonl=LINE, test__jsonl=LINE),
        keys={"source_splits": {"train": "train", "validation": "dev"}},
        advice="it has test, train",
        keys_then={"source_splits": {"train": "train", "validation": "test"}},
    ),
    "shares of more than all": Case(
        files=source(a__jsonl=LINE * 20),
        keys={"split_shares": [0.9, 0.2, 0.1]},
        advice="such as [0.85, 0.1, 0.05]",
        keys_then={"split_shares": [0.85, 0.1, 0.05]},
    ),
    "one row": Case(
        files=source(a__jsonl=LINE),
        keys={"split_shares": [0.85, 0.1, 0.05]},
        advice="split_shares: [1, 0, 0]",
        keys_then={"split_shares": [1, 0, 0]},
    ),
    "no split to train on": Case(
        files=source(train__jsonl=LINE, test__jsonl=LINE),
        keys={"source_splits": {"test": "test"}},
        advice="name one in source_splits, as {train: NAME}",
        keys_then={"source_splits": {"train": "train", "test": "test"}},
    ),
}


def rows_of(folder: Path, data: Any, keys: Mapping[str, Any]) -> int:
    """How many rows there are to train on."""
    said = json.loads(json.dumps(data).replace("{folder}", str(folder)))
    values: Any = {"model_name_or_path": "m", "data": said, "split_shares": [1, 0, 0]} | dict(keys)
    _, splits = read_rows(SftConfig(**values), lambda text: None, lambda messages: None)
    return len(splits["train"])


@pytest.mark.parametrize("name", CASES)
def test_advice_about_rows_leads_to_rows(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    for folder, files in ((tmp_path / "before", case.files), (tmp_path / "then", case.then or case.files)):
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
    keys, then = case.keys or {}, case.keys if case.keys_then is None else case.keys_then

    with pytest.raises(UserError) as error:
        rows_of(tmp_path / "before", case.data, keys)
    assert case.advice in str(error.value)
    assert rows_of(tmp_path / "then", case.data_then or case.data, then or {}) > 0
