from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from accelerate.utils import DistributedType
from transformers import TrainerControl, TrainerState

from faults.harness import write_config
from heed.config import Setting, derive_accumulation
from heed.errors import UserError
from heed.training import preflight
from heed.training.preflight import Rehearsal, check_disk, check_engine, checkpoints_kept, longest_batch
from world.short_run import run
from world.training import trainer_of


def test_checkpoints_that_will_not_fit_are_refused_before_step_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: SimpleNamespace(free=20 * 2**20))
    assert run(write_config(tmp_path)) == 2
    error = capsys.readouterr().err
    assert "has 20.0 MiB free, and 3 checkpoint(s) of 6.1 MiB, one being written and the final model need" in error
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_a_quick_preflight_rehearses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    assert run(config, "--max_steps", "1", "--preflight", "quick") == 0
    assert "rehearsal" not in capsys.readouterr().out
    assert run(config, "--max_steps", "1", "--overwrite_output_dir", "--verbose") == 0
    assert "rehearsal forward, backward, optimizer, evaluation, an answer with the 4" in capsys.readouterr().out


def test_under_deepspeed_the_run_says_that_no_step_is_rehearsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(tmp_path)
    said: list[str] = []
    monkeypatch.setattr(type(trainer.accelerator), "distributed_type", DistributedType.DEEPSPEED)
    monkeypatch.setattr(Rehearsal, "step", None)
    Rehearsal(trainer, None, said.append).on_train_begin(trainer.args, TrainerState(), TrainerControl())
    assert said[0].startswith("rehearsal without a training step: DeepSpeed changes the weights within")


def test_only_as_much_is_asked_for_as_is_still_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(tmp_path, save_total_limit=3)
    size = preflight.checkpoint_bytes(trainer)
    needed = 4 * size + preflight.weight_bytes(trainer)
    said: list[str] = []
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    with pytest.raises(UserError, match=r"3 checkpoint\(s\)"):
        check_disk(trainer, steps=10, queued=0, say=said.append)
    (tmp_path / "checkpoint-2").mkdir()  # a resumed run has some of them
    check_disk(trainer, steps=10, queued=0, say=said.append)
    assert said[0].startswith("disk      3 checkpoint(s) of 6.")
    assert checkpoints_kept(trainer.args, None, 10) == 11 and checkpoints_kept(trainer.args, 1, 10) == 2


def test_an_engine_that_is_asked_for_and_not_at_work_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(tmp_path)
    check_engine(trainer)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # accelerate runs something else on CPUs, without a word
    with pytest.raises(UserError, match=r"the launcher asks for FSDP, but accelerate runs NO on a cpu"):
        check_engine(trainer)


def test_the_rehearsed_rows_are_the_longest_that_can_meet() -> None:
    lengths = np.array([5, 9, 3, 9, 7])
    assert longest_batch(lengths, 2, None) == [1, 3]
    assert longest_batch(lengths, 2, 25) == [1, 3, 4]
    assert longest_batch(lengths, 2, 8) == [1]


@pytest.mark.parametrize(
    ("rows", "most", "processes", "size", "accumulation"),
    [(16, 8, 1, 8, 2), (16, 8, 2, 8, 1), (16, 8, 4, 4, 1), (12, 8, 1, 6, 2), (6, 8, 3, 2, 1)],
)
def test_accumulation_follows_from_the_global_batch(
    rows: int, most: int, processes: int, size: int, accumulation: int
) -> None:
    training = {"per_device_train_batch_size": Setting(value=most, source="x")}
    derive_accumulation(rows, {}, training, processes)
    assert training["per_device_train_batch_size"].value == size
    assert training["gradient_accumulation_steps"].value == accumulation


def test_a_global_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(UserError, match="16 rows cannot be shared evenly by 3 processes"):
        derive_accumulation(16, {}, {}, 3)
