"""Where a run begins, and who may write."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from faults.harness import Forks, logged, state, wait, wait_until, write_config
from faults.injection import impatient
from heed.errors import UserError
from heed.files import run_folder
from heed.files.lock import locked
from heed.runs import checkpoints
from heed.runs.sameness import check_same
from world.locks import held_by_another
from world.short_run import copied, run


def test_the_same_command_continues_and_then_says_that_it_is_done(
    stopped: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, checkpoint = copied(stopped, tmp_path)
    (tmp_path / "run" / "metrics.jsonl").open("a").write('{"step": 5, "loss": 1.')  # torn by a kill
    assert run(config, "--max_steps", "5") == 0
    assert f"resume    from {checkpoint} (step 4), whose files are as they were written" in capsys.readouterr().out
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "flight.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["resumed_from"] == str(checkpoint) and record["status"] == "done"
    before = (tmp_path / "run" / "run.json").read_bytes()
    assert run(config, "--max_steps", "5") == 0
    assert "is finished; overwrite_output_dir: true starts over" in capsys.readouterr().out
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_a_run_that_differs_is_refused_with_a_list_unless_allowed(
    stopped: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, _ = copied(stopped, tmp_path)
    changes = ("--max_steps", "5", "--learning_rate", "0.02", "--seed", "7")
    assert run(config, *changes) == 2
    error = capsys.readouterr().err
    assert "\n  seed: 42 then, 7 now" in error and "\n  learning_rate: 0.01 then, 0.02 now" in error
    assert run(config, *changes, "--allow_changed", "learning_rate,seed") == 0
    assert "changed since, as allowed: seed, learning_rate" in capsys.readouterr().out


def test_what_shapes_the_tensors_cannot_be_allowed_to_change() -> None:
    with pytest.raises(UserError, match=r"model.n_layer cannot be changed in a run"):
        check_same({"model.n_layer": 2}, {"model.n_layer": 3}, allowed=["model.n_layer"], place="x")


def test_going_back_to_an_earlier_checkpoint_puts_later_ones_aside(
    stopped: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, checkpoint = copied(stopped, tmp_path)
    shutil.copytree(checkpoint, tmp_path / "run" / "checkpoint-5")
    assert run(config, "--max_steps", "5", "--resume", str(checkpoint)) == 0
    assert "checkpoint-5 comes after it, renamed to later-checkpoint-5-" in capsys.readouterr().out
    assert run(config, "--resume", str(checkpoint), "--overwrite_output_dir") == 2
    assert "would delete" in capsys.readouterr().err


def test_a_run_without_a_usable_checkpoint_starts_over_and_says_so(
    stopped: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, checkpoint = copied(stopped, tmp_path)
    (checkpoint / "optimizer.pt").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoint-2")
    assert run(config, "--max_steps", "5") == 0
    out = capsys.readouterr().out
    assert "optimizer.pt is missing" in out
    assert "there is no checkpoint to continue from: starting at step 0" in out
    folder = tmp_path / "run"
    assert sorted(logged(folder)["eval_loss"]) == [0, 2, 4, 5]
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines))


def test_weights_alone_are_not_resumed_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    assert run(config, "--max_steps", "5", "--save_only_model") == 0
    record = tmp_path / "run" / "run.json"
    run_folder.write_json(record, json.loads(record.read_text()) | {"status": "running"})
    assert run(config, "--max_steps", "5", "--save_only_model") == 2
    assert "has weights only (save_only_model: true)" in capsys.readouterr().err


def test_a_second_writer_is_refused_and_told_who_the_first_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heed.files.lock.PATIENCE", 0.2)
    with (
        held_by_another(tmp_path) as process,
        pytest.raises(UserError, match=rf"is in use by process {process} on "),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):  # the dead hold nothing
        pass


# ---- real processes, real signals


def test_a_signal_to_one_of_two_processes_ends_both_with_a_checkpoint(tmp_path: Path, forks: Forks) -> None:

    config, log, folder = write_config(tmp_path), tmp_path / "log", tmp_path / "run"
    options = ("--num_train_epochs", "200", "--per_device_train_batch_size", "2")
    running = forks.training(config, folder, *options, world=2, log=log)
    wait_until(lambda: (folder / "checkpoint-2").is_dir(), running)
    # Meanwhile nobody else may write there.
    assert wait(forks.training(config, folder, *options, log=log, prepare=impatient)) == [2]
    assert f"is in use by process {running[0].pid} on" in log.read_text()
    pid = running[1].pid
    assert pid is not None
    os.kill(pid, signal.SIGUSR1)
    assert wait(running) == [128 + signal.SIGUSR1] * 2, log.read_text()[-3000:]
    found = state(folder)
    assert (found["status"], found["reason"]) == ("preempted", "SIGUSR1")
    assert checkpoints.verify(folder / found["checkpoint"]).step == found["step"]
