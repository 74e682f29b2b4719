"""A full disk, for which a limit on the size of files stands: a writer names its file and keeps what was there."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from heed.answers.partial import PartialFile, Response
from heed.arena.votes import VoteFile, export_csv
from heed.errors import UserError
from heed.files.lines import append_line, kept_values
from heed.files.run_folder import write_json, write_lines
from heed.files.whole_folder import whole_folder
from heed.tokens import shards
from world.votes import VOTE

LIMIT = 100  # bytes


@contextmanager
def room_for(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_arrow(path: Path) -> None:
    with shards.whole_file(path):
        pass  # its schema alone is larger


WRITERS: dict[str, Callable[[Path], object]] = {
    "a line": lambda path: append_line(path, {"step": 2, "text": "x" * LIMIT}),
    "JSON": lambda path: write_json(path, ["x" * LIMIT]),
    "lines": lambda path: write_lines(path, [{"text": "x" * LIMIT}]),
    "votes as CSV": lambda path: export_csv(path, [VOTE] * LIMIT),
    "Arrow": write_arrow,
}


@pytest.mark.parametrize("what", WRITERS)
def test_a_full_disk_is_named_by_its_file_and_what_was_there_stays(tmp_path: Path, what: str) -> None:
    path = tmp_path / "there"
    path.write_text('{"step": 1}\n')
    with room_for(LIMIT), pytest.raises(OSError) as caught:
        WRITERS[what](path)
    assert caught.value.filename == str(path)
    assert path.read_text() == '{"step": 1}\n'
    assert list(tmp_path.iterdir()) == [path]
    WRITERS[what](path)  # once there is room


def test_a_response_that_found_no_room_leaves_those_before_it(tmp_path: Path) -> None:
    path = tmp_path / "responses.partial.jsonl"
    response = Response(text="x", finish_reason="stop", prompt_tokens=1, response_tokens=2, seconds=0.5)
    with PartialFile(path, {"1": response}) as file:
        before = path.read_text()
        with room_for(len(before) + 10), pytest.raises(OSError) as caught:
            file.append("2", response)
        assert (caught.value.filename, path.read_text()) == (str(path), before)
        file.append("2", response)
    assert [value["key"] for value in kept_values(path)] == ["1", "2"]


def test_a_vote_that_found_no_room_is_reported_and_harms_no_later_one(tmp_path: Path) -> None:
    file = VoteFile(tmp_path / "votes.jsonl")
    assert file.add(VOTE)
    with (
        room_for(file.path.stat().st_size + 10),
        pytest.raises(UserError, match=r"votes\.jsonl cannot be written \(File"),
    ):
        file.add(replace(VOTE, voter="Bob"))
    assert file.add(replace(VOTE, voter="Cleo"))
    assert [vote.voter for vote in VoteFile(file.path).read()] == [VOTE.voter, "Cleo"]


def test_a_folder_that_found_no_room_is_absent(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, room_for(LIMIT), whole_folder(tmp_path / "set", key="prepared") as staged:
        (staged / "rows.jsonl").write_text("x" * 2 * LIMIT)
    assert caught.value.filename == str(tmp_path / "set")
    assert list(tmp_path.iterdir()) == []
