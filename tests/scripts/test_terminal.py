"""What a person sees of a run: on a terminal, and in the file that a pipe ends in."""

import os
import re
import sys
from pathlib import Path
from threading import Thread

import pytest

from faults.harness import write_config
from heed import saying
from world.short_run import run

WORDS = (
    "--max_steps",
    "6",
    "--save_steps",
    "6",
    "--disable_tqdm",
    "false",
    "--compare_with_base",
    "--compare_max_new_tokens",
    "4",
)
ORDER = ["data  ", "splits  ", "model  ", "steps  ", "time  ", "validation loss", "saved  ", "report  "]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(saying, "REDRAWN", 0.0)
    monkeypatch.setattr(saying, "REPEATED", 0.0)
    return write_config(tmp_path)


def test_a_terminal_shows_one_line_of_progress_at_a_time(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    shown = bytearray()

    def read() -> None:
        while part := os.read(master, 4096):
            shown.extend(part)
            if b"the end" in shown:
                return

    reader = Thread(target=read)
    reader.start()
    with os.fdopen(slave, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", terminal)
        patched.setattr(sys, "stderr", terminal)
        assert run(config, *WORDS) == 0
        print("the end", file=terminal, flush=True)
        reader.join()
    os.close(master)
    text = shown.decode().replace("\r\n", "\n")
    assert "Loading weights" not in text and "it/s" not in text
    bars = [part for line in text.split("\n") for part in line.split("\r") if "[" in part and " left" in part]
    assert {bar.split(" [")[0] for bar in bars} >= {"training", "tuned answers"}
    for line in text.split("\n"):  # a line of progress is wiped before anything else is said, and is no line itself
        assert " left" not in line.rsplit("\r", 1)[-1]
    assert_in_order(text)


def test_a_pipe_gets_lines_only(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(config, *WORDS) == 0
    out, error = capfd.readouterr()
    assert "\r" not in out + error and "it/s" not in error and "Loading" not in error
    assert re.search(r"^training \[#+\.*\] \d+ of \d+ steps, .* left$", out, re.M)
    assert_in_order(out)
    assert re.search(r"\d of \d questions answered exactly right \(before: \d\)\.\nOn the test rows, .*\n", out)
    assert out.rstrip().splitlines()[-1] == f"report    {config.parent / 'run' / 'report.html'}"
    assert "rehearsal" not in out and "speed" not in out and "learning_rate" not in out


def assert_in_order(text: str) -> None:
    places = [text.index(word) for word in ORDER]
    assert places == sorted(places)
