"""Folders as people have them: each file is read with the split that it says it is, or refused in one sentence."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, NamedSplit

from heed.config import SftConfig
from heed.data.reading import read_rows
from heed.data.sources import Source, file_hashes, named_splits, read, source_names
from heed.data.splits import SPLITS
from heed.errors import UserError

ROW = {"instruction": "Add 1 and 2.", "output": "3"}
CARD = "---\nlicense: mit\nconfigs:\n{}---\n# Rows\n"
DEFAULT = """- config_name: default
  data_files:
  - split: train
    path: part-*.jsonl
  - split: test
    path: [held/*.jsonl]
"""
MORE = "- config_name: more\n  data_files: more.jsonl\n"


def make(folder: Path, *names: str) -> Path:
    """A row in each file, which is as many times in it as its place among the names."""
    for number, name in enumerate(names, start=1):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist([ROW] * number), folder / name)
        else:
            (folder / name).write_text((json.dumps(ROW) + "\n") * number)
    return folder


def splits_of(data: Any, **keys: Any) -> dict[str, int]:
    """How many rows a run would train on, test and validate with."""
    said: list[str] = []
    _, splits = read_rows(SftConfig(model_name_or_path="m", data=data, **keys), said.append, lambda record: None)
    return {name: len(splits[name]) for name in SPLITS}


FOLDERS: dict[str, tuple[tuple[str, ...], tuple[int, int, int] | str]] = {
    "as the Hub writes them": (
        ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"),
        (3, 3, 0),
    ),
    "in data": (("data/train-0.parquet", "data/validation-0.parquet"), (1, 0, 2)),
    "a folder for each": (("train/a.jsonl", "test/a.jsonl", "dev/a.jsonl"), (1, 2, 3)),
    "deeper": (("en/train/x/a.jsonl", "de/train/a.jsonl", "en/testset/a.jsonl"), (3, 3, 0)),
    "folder and file agree": (("train/train_1.jsonl", "test/test_1.jsonl"), (1, 2, 0)),
    "middle words": (("rows_train_v2.jsonl", "rows_test_v2.jsonl"), (1, 2, 0)),
    "hidden ones aside": (("train.jsonl", ".cache/test.jsonl", "__pycache__/b.jsonl", ".old.jsonl"), (1, 0, 0)),
    "what tools put there aside": (("a.jsonl", "dataset_infos.json", "config.json"), (1, 0, 0)),
    "runs aside": (("a.jsonl", "runs/1/run.json", "runs/1/metrics.jsonl"), (1, 0, 0)),
    "no names": (("a/1.jsonl", "b/2.jsonl"), (3, 0, 0)),
    "only train": (("train/1.jsonl", "train/2.jsonl"), (3, 0, 0)),
    "some names": (("a.jsonl", "b/test.jsonl"), "has b/test.jsonl, which names a split, and a.jsonl, which names none"),
    "some folders": (("train/a.jsonl", "more/a.jsonl"), "has train/a.jsonl, which names a split, and more/a.jsonl"),
    "only tests": (("test/a.jsonl", "val/b.jsonl"), "has test and validation rows and none to train on; say which"),
    "a test that is for training": (("train/test.jsonl",), "data: train/test.jsonl names more than one split"),
    "two in a name": (("train.jsonl", "train_test.jsonl"), "data: train_test.jsonl names more than one split; rename"),
    "nothing": (("notes.txt",), "has no .json, .jsonl, .ndjson, .csv, .tsv, .parquet file (also .gz or .zst)"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_is_read_by_its_names_or_refused(tmp_path: Path, case: str) -> None:
    names, expected = FOLDERS[case]
    folder = make(tmp_path / "rows", *names)
    keys = {"split_shares": [1.0, 0.0, 0.0]}
    if isinstance(expected, tuple):
        assert splits_of(str(folder), **keys) == dict(zip(SPLITS, expected, strict=True))
    else:
        with pytest.raises(UserError) as error:
            splits_of(str(folder), **keys)
        assert expected in str(error.value)


@pytest.mark.parametrize("location", ["test", "test/a.jsonl", "corpus_dev/", "corpus_dev/a.jsonl", "my_test.jsonl"])
def test_a_test_set_given_alone_is_not_trained_on(tmp_path: Path, location: str) -> None:
    make(tmp_path / "rows", "train/a.jsonl", "test/a.jsonl", "corpus_dev/a.jsonl", "my_test.jsonl")
    with pytest.raises(
        UserError, match=r"rows and none to train on; say which file is for what, as data: .train: FILE"
    ):
        splits_of(str(tmp_path / "rows" / location), split_shares=[1.0, 0.0, 0.0])
    advice = {"train": str(tmp_path / "rows" / location)}
    assert splits_of(advice)["train"] > 0


def test_a_folder_called_test_says_nothing_where_no_folder_for_training_is_beside_it(tmp_path: Path) -> None:
    folder = make(tmp_path / "test", "a.jsonl")
    assert splits_of(str(folder), split_shares=[1.0, 0.0, 0.0]) == {"train": 1, "test": 0, "validation": 0}
    assert splits_of(str(folder / "a.jsonl"), split_shares=[1.0, 0.0, 0.0])["train"] == 1


def test_a_folder_of_several_splits_is_not_taken_for_one(tmp_path: Path) -> None:
    folder = make(tmp_path / "rows", "train.jsonl", "test.jsonl")
    with pytest.raises(
        UserError, match=r"data: train: .*rows has several splits \(test, train\); name a file or folder"
    ):
        read(Source(data={"train": str(folder)}))
    assert splits_of(str(folder)) == {"train": 1, "test": 2, "validation": 0}


def test_a_cloned_repository_is_read_as_its_card_says(tmp_path: Path) -> None:
    folder = make(tmp_path / "clone", "part-1.jsonl", "held/a.jsonl", "more.jsonl")
    (folder / "README.md").write_text(CARD.format(DEFAULT))
    assert splits_of(str(folder)) == {"train": 1, "test": 2, "validation": 0}
    assert read(Source(data=str(folder))).rows.notes == ["read files and splits as README.md lists them"]

    (folder / "README.md").write_text(CARD.format(DEFAULT + MORE))
    assert splits_of(str(folder), data_config="more", split_shares=[1.0, 0, 0]) == {
        "train": 3,
        "test": 0,
        "validation": 0,
    }
    with pytest.raises(UserError, match=r"README.md: its configs cannot be followed \(.*'more'"):
        splits_of(str(folder), data_config="none")


@pytest.mark.parametrize("path", ["../secret.jsonl", "no-such-*.jsonl", "{}/secret.jsonl"])
def test_a_card_that_names_files_elsewhere_is_refused(tmp_path: Path, path: str) -> None:
    make(tmp_path, "secret.jsonl", "clone/a.jsonl")
    named = f"- config_name: default\n  data_files: {path.format(tmp_path)}\n"
    (tmp_path / "clone" / "README.md").write_text(CARD.format(named))
    with pytest.raises(
        UserError, match=r"README.md: (its configs cannot be followed|.*secret.jsonl is not in the folder)"
    ):
        read(Source(data=str(tmp_path / "clone")))


@pytest.mark.parametrize("head", ["a: &a [*a]", "x: " + "[" * 20_000, "a: &a [1]\n" + "b: &b [*a, *a]\n" * 2])
def test_a_card_that_is_no_card_is_refused_or_passed_over(tmp_path: Path, head: str) -> None:
    folder = make(tmp_path / "clone", "a.jsonl")
    (folder / "README.md").write_text(f"---\n{head}\nconfigs: 1\n---\n")
    with pytest.raises(UserError, match=r"README.md: "):
        read(Source(data=str(folder)))
    (folder / "README.md").write_text("---\n# Rows\n")
    assert len(read(Source(data=str(folder))).rows.records) == 1


def saved(folder: Path, split: str | None = None, rows: int = 1) -> Dataset:
    return Dataset.from_list([ROW] * rows, split=NamedSplit(split) if split else None)


def test_what_save_to_disk_wrote_is_read_with_its_splits(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    saved(whole, rows=3).save_to_disk(str(whole))
    DatasetDict({"train": saved(parts, rows=3), "test": saved(parts)}).save_to_disk(str(parts))
    assert splits_of(str(whole), split_shares=[1.0, 0, 0]) == {"train": 3, "test": 0, "validation": 0}
    assert splits_of(str(parts)) == {"train": 3, "test": 1, "validation": 0}

    reading = read(Source(data=str(parts)))
    assert Counter(row.source_split for row in reading.rows.records) == {"train": 3, "test": 1}
    assert reading.rows.records[1].place == f"{parts}/train, row 2"
    assert reading.rows.notes == ["read what save_to_disk wrote"]
    assert {Path(name).name for name in reading.files} == {"data-00000-of-00001.arrow"}
    source = Source(data=str(parts))
    assert file_hashes(source) == reading.files and named_splits(source) == {"train", "test"}
    assert source_names(source) == [f"{parts}/train", f"{parts}/test"]


@pytest.mark.parametrize("split", ["test", "validation", "test[:50%]"])
def test_a_saved_test_set_is_not_trained_on(tmp_path: Path, split: str) -> None:
    saved(tmp_path / "rows", split).save_to_disk(str(tmp_path / "rows"))
    with pytest.raises(UserError, match="and none to train on"):
        splits_of(str(tmp_path / "rows"))


def test_the_test_folder_of_a_saved_dictionary_is_not_trained_on(tmp_path: Path) -> None:
    DatasetDict({"train": saved(tmp_path), "test": saved(tmp_path)}).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(UserError, match="has test rows and none to train on"):
        splits_of(str(tmp_path / "set" / "test"))
    assert splits_of(str(tmp_path / "set" / "train"), split_shares=[1.0, 0, 0])["train"] == 1


def test_a_damaged_saved_set_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "rows").save_to_disk(str(tmp_path / "rows"))
    (tmp_path / "rows" / "data-00000-of-00001.arrow").write_bytes(b"ARROW1 not really")
    with pytest.raises(UserError, match=r"rows is not a readable set of save_to_disk"):
        read(Source(data=str(tmp_path / "rows")))


def test_how_odd_files_are_read_is_said_once(tmp_path: Path) -> None:
    folder = make(tmp_path / "rows", "a.jsonl")
    for name in ("b.csv", "c.csv"):
        (folder / name).write_text("instruction;output\na;b\n")
    notes = read(Source(data=str(folder))).rows.notes
    assert notes == ["read columns separated by semicolons (in 2 of 3 files)"]


def test_links_are_followed_and_do_not_go_round(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", "train.jsonl")
    folder = make(tmp_path / "rows", "test.jsonl")
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "more" / "round").symlink_to(folder)
    (folder / "itself").symlink_to(folder)
    assert len(read(Source(data=str(folder))).rows.records) == 2
    (folder / "train-2.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(UserError, match=r"train-2.jsonl: cannot be read \(No such file or directory\)"):
        read(Source(data=str(folder)))


@pytest.mark.parametrize("name", [b"a\nb", b"<script>", b"caf\xe9", b'it\'s "q" $(x) *[a]?#', b" ", b"%s{}"])
def test_a_name_may_have_any_sign(tmp_path: Path, name: bytes) -> None:
    file = tmp_path / "rows" / os.fsdecode(name + b".jsonl")
    make(tmp_path / "rows", file.name)
    for location in (file.parent, file):
        reading = read(Source(data=str(location)))
        assert [row.place for row in reading.rows.records] == [f"{file}:1"]
        assert list(reading.files) == [str(file)]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "rows", "a.jsonl", "closed/b.jsonl")

    def scandir(path: Any, ours: Any = os.scandir) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return ours(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"data: .*closed cannot be read \(Permission denied\)"):
        read(Source(data=str(folder)))
