import os
from pathlib import Path

import pytest

from heed.errors import UserError
from heed.files.run_folder import LEFT_FOR_GOOD, read_json, whole_file, write_json


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with whole_file(path) as first, whole_file(path) as second:
        first.write("first")
        second.write("second")
    assert path.read_text() == "first"  # who ends last
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed_and_what_another_is_writing_is_not(tmp_path: Path) -> None:
    left, written = tmp_path / "run.json.7-c0ffee00.part", tmp_path / "run.json.8-c0ffee00.part"
    for part in (left, written):
        part.write_text("half")
    os.utime(left, (1, os.stat(left).st_mtime - LEFT_FOR_GOOD - 1))
    write_json(tmp_path / "run.json", {})
    assert not left.exists() and written.exists()


def test_a_folder_that_is_not_there_is_named_by_the_file_that_was_wanted(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        write_json(tmp_path / "nowhere" / "run.json", {})
    assert caught.value.filename == str(tmp_path / "nowhere" / "run.json")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 10_000, "too many brackets within brackets"),
        (b"\0" * 9, "Expecting value"),
        ('{"a": 1}'.encode("utf-16"), "codec can't decode"),
        ('"ä"'.encode("latin-1"), "codec can't decode"),
        (b"9" * 5000, "Exceeds the limit"),
    ],
)
def test_damaged_json_is_one_sentence(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"run\.json: damaged \(.*{reason}"):
        read_json(tmp_path / "run.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path)
