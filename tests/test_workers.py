"""Work shared out to processes: in order, with its errors, and ended by a sentence or by Ctrl-C."""

import os
import signal
import subprocess
import sys

import pytest

from heed.errors import UserError
from heed.workers import how_many, in_order
from world.small_world import ROOT


def square(number: int) -> int:
    if number == 13:
        raise UserError("13 is no number for this")
    if number == 17:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


@pytest.mark.parametrize("count", [1, 2, 5])
def test_what_comes_back_is_in_order(count: int) -> None:
    assert list(in_order(square, range(8), count, task="squares")) == [0, 1, 4, 9, 16, 25, 36, 49]
    assert list(in_order(square, [], count, task="squares")) == []


def test_an_error_of_a_worker_is_raised_here_with_its_place() -> None:
    made = in_order(square, range(12, 16), 2, task="squares")
    assert next(made) == 144
    with pytest.raises(UserError, match="13 is no number") as error:
        next(made)
    assert "in square" in error.value.__notes__[0]


def test_a_worker_that_is_killed_ends_the_work_with_a_sentence() -> None:
    with pytest.raises(UserError, match=r"^a process that squares was killed, as the system does when memory runs out"):
        list(in_order(square, range(16, 20), 2, task="squares"))


def test_workers_end_with_a_parent_that_is_killed() -> None:
    """None of them waits for ever at a pipe that only its fellows keep open."""
    command = [sys.executable, "-c", ORPHANS]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        assert process.stdout.read() == b""  # which ends when the last of them has closed it


ORPHANS = """
import time
from heed.workers import in_order
made = in_order(abs, range(100), 3, task="works")
for _ in range(5):
    next(made)
print("ready", flush=True)
time.sleep(60)
"""


def test_few_rows_need_no_further_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert [how_many(rows, None) for rows in (1, 3999, 4000, 10_000, 52_000)] == [1, 1, 2, 5, 8]
    assert [how_many(52_000, asked) for asked in (1, 3, 12)] == [1, 3, 12]
    assert how_many(2, 12) == 2
    with pytest.raises(UserError, match=r"^num_proc: 0, but at least one process must tokenize$"):
        how_many(52_000, 0)
