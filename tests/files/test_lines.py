"""Every file of kept lines against every kind of damage."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from heed.answers.partial import Response, resumed
from heed.arena.votes import VoteFile
from heed.errors import UserError
from heed.files.lines import append_line, kept_values, rewind_lines
from heed.files.run_folder import read_lines
from heed.judge.cache import Cache, Reply
from heed.runs.plots import plot_losses
from heed.runs.recorder import rows_of_step
from world.votes import VOTE

REPLY = Reply(text="ä", prompt_tokens=1, completion_tokens=1)
RESPONSE = Response(text="ä", finish_reason="stop", prompt_tokens=1, response_tokens=2, seconds=0.5)
DAMAGE = {
    "torn": b'{"step": 3, "te',
    "NUL bytes": b"\0" * 512,
    "half a character": '{"step": 3, "text": "ä'.encode()[:-1],
    "UTF-16": '{"step": 3}'.encode("utf-16"),
    "brackets": b"[" * 10_000,
    "objects in objects": b'{"step":' * 10_000,
    "no object": b"3",
    "another's line": b'{"colour": "red"}',
    "a number without end": b'{"step": ' + b"9" * 5000 + b"}",
}
Read = Callable[[Path], tuple[int, str]]


def steps(path: Path) -> tuple[int, str]:
    """As a run is resumed from step 2."""
    said: list[str] = []
    rewind_lines(path, 2, said.append)
    return len(kept_values(path)), "".join(said)


def cache(path: Path) -> tuple[int, str]:
    said: list[str] = []
    return len(Cache(path, say=said.append).replies), "".join(said)


def votes(path: Path) -> tuple[int, str]:
    file = VoteFile(path)
    file.read()
    return len(file.read()), file.damage or ""


def partial(path: Path) -> tuple[int, str]:
    said: list[str] = []
    asked: list[int] = []

    def answer(missing: list[int], on_response: Callable[[int, Response], object]) -> None:
        asked.extend(missing)
        for index in missing:
            on_response(index, RESPONSE)

    resumed(path, ["1", "2", "new"], answer, write=lambda responses: None, say=said.append)
    return 3 - len(asked), "".join(said)


def of_a_step(step: int) -> dict[str, Any]:
    return {"step": step, "rows": [0], "supervised": [1], "losses": None}


# Each with how it is opened again, and two lines of it.
FILES: dict[str, tuple[Read, list[dict[str, Any]]]] = {
    "metrics.jsonl": (steps, [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}]),
    "samples.jsonl": (steps, [{"step": 1, "model_response": "a\u2028b"}, {"step": 2, "model_response": "ä"}]),
    "flight.jsonl": (steps, [of_a_step(1), of_a_step(2)]),
    "judge_cache.jsonl": (cache, [{"key": "1"} | asdict(REPLY), {"key": "2"} | asdict(REPLY)]),
    "responses.partial.jsonl": (partial, [{"key": "1"} | asdict(RESPONSE), {"key": "2"} | asdict(RESPONSE)]),
    "votes.jsonl": (votes, [asdict(VOTE), asdict(VOTE) | {"voter": "Bob"}]),
}


@pytest.mark.parametrize("newline", [b"", b"\n", b"\n\0\0\n"])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_damaged_lines_at_the_end_are_cut_off_and_reported_once(
    tmp_path: Path, name: str, damage: str, newline: bytes
) -> None:
    path = tmp_path / name
    read, lines = FILES[name]
    for line in lines:
        append_line(path, line)
    with path.open("ab") as file:
        file.write(DAMAGE[damage] + newline)

    count, said = read(path)

    assert count == 2
    assert f"{path}:3" in said and "damaged and left out (" in said
    if name != "votes.jsonl":  # which only grows, whoever else may be writing to it
        assert all(json.loads(line) for line in path.read_bytes().split(b"\n")[:-1])
        assert "left out (" not in read(path)[1]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / name
    read, (first, second) = FILES[name]
    append_line(path, first)
    with path.open("ab") as file:
        file.write(DAMAGE[damage] + b"\n")
    append_line(path, second)

    if read is steps:  # a run's own record: nothing of it is given up unasked
        with pytest.raises(UserError, match=f"{path}:2: damaged .*; correct this line or remove it"):
            read(path)
    else:
        count, said = read(path)
        assert count == 2 and f"{path}:2: damaged and left out (" in said


def test_a_run_is_resumed_over_damage_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "flight.jsonl"
    said: list[str] = []
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + b"\0" * 99 + b'\n{"step": 4}\n')
    rewind_lines(path, 2, said.append)
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
    assert said == [f"{path}:3: damaged and left out (NUL bytes)"]
    rewind_lines(path, -1, said.append)
    assert path.read_bytes() == b""
    rewind_lines(tmp_path / "absent.jsonl", 1, said.append)
    assert len(said) == 1


def test_a_last_line_without_its_newline_is_whole_and_the_next_one_is_not_glued_to_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}')
    rewind_lines(path, 1, print)
    append_line(path, {"step": 2})
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'


def test_half_a_surrogate_pair_is_kept_as_its_escape(tmp_path: Path) -> None:
    append_line(tmp_path / "samples.jsonl", {"step": 1, "model_response": "\ud83d"})
    assert kept_values(tmp_path / "samples.jsonl") == [{"step": 1, "model_response": "\ud83d"}]


@pytest.mark.parametrize("damage", [each for each in DAMAGE if each != "another's line"])
def test_readers_of_a_run_do_without_a_damaged_end_and_name_a_damaged_middle(tmp_path: Path, damage: str) -> None:
    metrics = b'{"step": 1, "epoch": 1.0, "loss": 2.0}\n'
    (tmp_path / "metrics.jsonl").write_bytes(metrics + DAMAGE[damage])
    (tmp_path / "flight.jsonl").write_bytes(json.dumps(of_a_step(1)).encode() + b"\n" + DAMAGE[damage])
    assert plot_losses(tmp_path).is_file()
    assert rows_of_step(tmp_path, 1).rows == [0]
    with pytest.raises(UserError, match="it knows steps 1 to 1"):
        rows_of_step(tmp_path, 3)
    (tmp_path / "metrics.jsonl").write_bytes(DAMAGE[damage] + b"\n" + metrics)
    with pytest.raises(UserError, match=r"metrics\.jsonl:1: damaged \("):
        plot_losses(tmp_path)
    with pytest.raises(UserError, match=r"metrics\.jsonl:1: damaged \("):  # one that is written whole
        read_lines(tmp_path / "metrics.jsonl")
