"""What a machine does to a long run: its clock jumps, what it began from is gone."""

import json
import time
from itertools import count
from pathlib import Path

import pytest

from world.short_run import copied, run


def test_a_clock_that_runs_backwards_leaves_no_negative_time(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = copied(stopped, tmp_path)
    hours, clock = count(), time.time
    monkeypatch.setattr(time, "time", lambda: clock() - 3600 * next(hours))
    assert run(config, "--max_steps", "5") == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    times = {name: value for line in lines for name, value in line.items() if "second" in name or "runtime" in name}
    assert all(value >= 0 for value in times.values()), times
    assert lines[-1]["step"] == 5 and "total_flos" in lines[-1]


def test_a_base_that_is_gone_before_a_run_is_continued_is_named(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, checkpoint = copied(stopped, tmp_path)
    gone = tmp_path / "gone"
    config.write_text(stopped.read_text().replace(str(stopped.parent / "base"), str(gone)))
    assert run(config, "--max_steps", "5") == 2
    assert str(gone) in capsys.readouterr().err
    assert checkpoint.is_dir()
