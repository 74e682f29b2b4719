"""An interrupted run continues where it stopped, and never takes the answer to another request."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heed.answers.partial import OnResponse, Response, resumed, row_keys
from world.small_world import ROOT

REQUEST = {"model": ["runs/a", 1], "contract": "c0ffee", "max_new_tokens": 9}
PROMPTS = [[1, 2], [3], [4, 5, 6], [7], [8]]
# Answers row by row; killed after as many rows as it is told.
KILLED = """
import json, os, signal, sys
from pathlib import Path
from heed.answers.partial import Response, resumed, row_keys
path, request, prompts, deadly = Path(sys.argv[1]), *map(json.loads, sys.argv[2:5])
def answer(missing, on_response):
    for count, index in enumerate(missing):
        if count == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        text = f"answer to {prompts[index]} ä"
        on_response(index, Response(text=text, finish_reason="stop", prompt_tokens=1, response_tokens=2, seconds=0.5))
resumed(path, row_keys(request, prompts), answer, write=lambda responses: None)
"""


def response(text: str) -> Response:
    return Response(text=text, finish_reason="stop", prompt_tokens=1, response_tokens=2, seconds=0.5)


class Answers:
    """Answers row by row, and remembers which it was asked for."""

    def __init__(self, prompts: list[list[int]], deadly: int | None = None) -> None:
        self.prompts, self.deadly = prompts, deadly
        self.asked: list[int] = []

    def __call__(self, missing: list[int], on_response: OnResponse) -> None:
        for index in missing:
            if len(self.asked) == self.deadly:
                raise KeyboardInterrupt
            self.asked.append(index)
            on_response(index, response(f"answer to {self.prompts[index]} ä"))


def run(
    path: Path, answers: Answers, request: dict[str, Any] = REQUEST, **options: Any
) -> tuple[list[Response], list[str]]:
    said: list[str] = []
    write: Callable[[list[Response]], object] = options.pop("write", lambda responses: None)
    keys = row_keys(request, answers.prompts)
    return resumed(path, keys, answers, write=write, say=said.append, **options), said


def unbroken() -> list[Response]:
    return [response(f"answer to {ids} ä") for ids in PROMPTS]


def kill(path: Path, deadly: int) -> None:
    """A process that is killed without warning."""
    words = [str(path), json.dumps(REQUEST), json.dumps(PROMPTS), str(deadly)]
    process = subprocess.run([sys.executable, "-c", KILLED, *words], cwd=ROOT, check=False)
    assert process.returncode == -signal.SIGKILL


def test_a_killed_run_continues_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "responses.partial.jsonl"
    kill(path, 3)
    assert len(path.read_text().splitlines()) == 3
    answers, seen = Answers(PROMPTS), dict[int, Response]()
    responses, said = run(path, answers, on_response=seen.__setitem__)
    assert responses == unbroken() and [seen[index] for index in range(5)] == responses
    assert answers.asked == [3, 4]
    assert said == [f"3 of 5 answers are taken from an interrupted run ({path})"]


def test_a_torn_line_is_left_out_and_its_row_answered_again(tmp_path: Path) -> None:
    path = tmp_path / "responses.partial.jsonl"
    kill(path, 3)
    path.write_bytes(path.read_bytes()[:-40])
    answers = Answers(PROMPTS, deadly=1)
    with pytest.raises(KeyboardInterrupt):
        run(path, answers)
    assert answers.asked == [2]
    answers = Answers(PROMPTS)  # interrupted twice
    responses, said = run(path, answers)
    assert responses == unbroken() and answers.asked == [3, 4]
    assert said == [f"3 of 5 answers are taken from an interrupted run ({path})"]
    path.write_bytes(b'{"key": "a", "te')
    assert run(path, Answers(PROMPTS))[1] == [
        f"0 of 5 answers are taken from an interrupted run ({path}); "
        f"{path}:1: damaged and left out (Unterminated string starting at: line 1 column 14 (char 13))"
    ]


@pytest.mark.parametrize("change", [{"model": ["runs/a", 2]}, {"contract": "dec0de"}, {"max_new_tokens": 8}])
def test_a_changed_request_takes_no_stale_answer(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "responses.partial.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(path, Answers(PROMPTS, deadly=3))
    answers = Answers(PROMPTS)
    _, said = run(path, answers, REQUEST | change)
    assert answers.asked == [0, 1, 2, 3, 4]
    assert said == [f"0 of 5 answers are taken from an interrupted run ({path}); 3 of another request are left out"]


def test_rows_are_known_by_their_prompt_not_by_their_place(tmp_path: Path) -> None:
    path = tmp_path / "responses.partial.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(path, Answers(PROMPTS, deadly=3))
    answers = Answers([[9], *PROMPTS[1:3], [3]])
    responses, said = run(path, answers)
    assert [each.text for each in responses] == [f"answer to {ids} ä" for ids in ([9], [3], [4, 5, 6], [3])]
    assert answers.asked == [0]
    assert said[0].startswith("3 of 4 answers are taken") and said[0].endswith("1 of another request are left out")


def test_answers_are_kept_until_the_whole_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "responses.partial.jsonl"

    def fail(responses: list[Response]) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        run(path, Answers(PROMPTS), write=fail)
    answers, written = Answers(PROMPTS), list[Response]()
    responses, _ = run(path, answers, write=written.extend)
    assert answers.asked == [] and written == responses == unbroken()
