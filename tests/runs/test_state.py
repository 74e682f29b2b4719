"""run.json and run_state.json say how a run is doing and how it went, over all its starts."""

import json
from pathlib import Path
from typing import Any

import pytest

from heed.errors import Stopped, UserError
from heed.runs.checkpoints import Checkpoint
from heed.runs.state import RunRecord
from heed.training.finite import NotFinite


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    run, state = (json.loads((folder / name).read_text()) for name in ("run.json", "run_state.json"))
    return run, state


def record(folder: Path, step: int | None = None) -> RunRecord:
    found = Checkpoint(path=folder / f"checkpoint-{step}", facts={"step": step}) if step is not None else None
    return RunRecord(folder, found, {"processes": 1}, writes=True)


def test_a_resumed_run_names_the_checkpoint_that_it_continues_from_at_once(tmp_path: Path) -> None:
    with record(tmp_path, step=4):
        run, state = read(tmp_path)
        assert (state["status"], state["step"], state["checkpoint"]) == ("running", 4, "checkpoint-4")
        assert run["resumed_from"] == str(tmp_path / "checkpoint-4")
    assert [each["status"] for each in read(tmp_path)] == ["done", "done"]


def test_a_loss_that_is_not_finite_is_recorded_at_its_own_step(tmp_path: Path) -> None:
    """It is noticed at the next log, two steps later."""
    with pytest.raises(UserError), record(tmp_path) as running:
        running.step = 5
        error = NotFinite(3)
        raise UserError(f"{error}. Its rows: 1, 2") from error
    run, state = read(tmp_path)
    assert (state["status"], state["step"]) == ("failed", 3)
    assert state["reason"].startswith("step 3: the loss") and run["reason"] == state["reason"]


def test_the_time_of_a_run_is_that_of_all_its_starts(tmp_path: Path) -> None:
    with pytest.raises(Stopped), record(tmp_path):
        raise Stopped(15)
    run, state = read(tmp_path)
    assert run["status"] == "preempted" and run["reason"] == "SIGTERM"
    (tmp_path / "run.json").write_text(json.dumps(run | {"seconds": 100.0}))

    with record(tmp_path, step=2):
        run, state = read(tmp_path)
    # As a kill leaves them: no end was written, and the last sign of life came 20 seconds after the start.
    (tmp_path / "run.json").write_text(json.dumps(run | {"started": "2026-11-22T10:00:00+0000"}))
    (tmp_path / "run_state.json").write_text(json.dumps(state | {"written": "2026-11-22T10:00:20+0000"}))

    with record(tmp_path, step=4):
        pass
    run, _ = read(tmp_path)
    assert [each["seconds"] for each in run["earlier"]] == [100.0, 20.0]
    assert run["seconds_of_all_starts"] == pytest.approx(120.0, abs=5)
    assert run["seconds"] < 5
