"""A run resumed from a checkpoint has exactly the numbers of one that was never interrupted."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from faults.harness import Forks, kill, logged, state, wait, wait_until, weights, write_config
from heed.runs.recorder import FlightRecorder, RowLosses, rows_of_step
from heed.tokens.batches import FlatCollator
from heed.tokens.order import RowBatches
from heed.training.trainer import HeedTrainer
from world.training import DROPOUT, collators, trainer_of

CELLS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "accumulation 2, with a last group of one": {"gradient_accumulation_steps": 2},
    "accumulation 4, with a last group of one": {"gradient_accumulation_steps": 4},
    "dropout": {"model": DROPOUT, "collator": collators("response")["flat"]},
    "padded rows": {"collator": collators("response")["padded"]},
    "two workers": {"dataloader_num_workers": 2},
    "two workers that stay": {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
    "LoRA with dropout": {"adapter": True, "collator": collators("response")["flat"]},
    "bf16": {"bf16": True},
    "grouped by length": {"train_sampling_strategy": "group_by_length"},
    "so many tokens a batch": {"tokens_per_batch": 250, "train_sampling_strategy": "group_by_length"},
    "evaluation in between": {"eval_strategy": "steps", "eval_steps": 3},
    "noisy embeddings": {"neftune_noise_alpha": 5.0, "collator": collators("response")["flat"]},
    "cosine, clipped, fused": {"lr_scheduler_type": "cosine", "max_grad_norm": 0.5, "optim": "adamw_torch_fused"},
    "stochastic optimizer state": {"optim": "adafactor"},
}


def numbers(trainer: HeedTrainer) -> list[dict[str, float]]:
    """Every line that was logged, without times."""
    timed = ("runtime", "per_second", "train_loss")
    return [{name: log[name] for name in log if not name.endswith(timed)} for log in trainer.state.log_history]


def same_weights(one: HeedTrainer, other: HeedTrainer) -> bool:
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", CELLS)
def test_losses_norms_rates_and_weights_are_those_of_an_unbroken_run(tmp_path: Path, name: str) -> None:
    """From checkpoints within an epoch, between two logs, at the end of an epoch, and within the second epoch."""
    accumulation = CELLS[name].get("gradient_accumulation_steps", 1)
    an_epoch = -(-5 // accumulation)
    steps = {1, an_epoch, an_epoch + 1} if accumulation > 1 or not CELLS[name] else {an_epoch + 1}
    whole = trainer_of(tmp_path / "whole", save_at=sorted(steps), **CELLS[name])
    whole.train()
    for step in sorted(steps):
        again = trainer_of(tmp_path / f"from {step}", save_at=[], **CELLS[name])
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert numbers(again) == numbers(whole)
        assert same_weights(again, whole)


@pytest.mark.parametrize("name", ["dropout", "LoRA with dropout", "cosine, clipped, fused"])
def test_a_rehearsal_leaves_no_trace(tmp_path: Path, name: str) -> None:
    cell = CELLS[name] | {"eval_strategy": "steps", "eval_steps": 5}
    plain = trainer_of(tmp_path / "a", save_at=[3], **cell)
    plain.train()
    rehearsed = trainer_of(tmp_path / "b", rehearse=True, save_at=[], **cell)  # only now, since it seeds
    rehearsed.train()
    assert numbers(plain) == numbers(rehearsed)
    assert same_weights(plain, rehearsed)
    resumed = trainer_of(tmp_path / "c", rehearse=True, save_at=[], **cell)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    assert numbers(plain) == numbers(resumed)
    assert same_weights(plain, resumed)


def test_a_run_killed_after_its_last_step_takes_no_further_one(tmp_path: Path) -> None:
    """In the middle of an epoch, where Trainer alone would move on to the next step."""
    whole = trainer_of(tmp_path / "a", max_steps=7)
    whole.train()
    again = trainer_of(tmp_path / "b", max_steps=7)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-7"))
    assert again.state.global_step == 7
    assert same_weights(again, whole)


def test_a_changed_learning_rate_takes_effect(tmp_path: Path) -> None:
    """Trainer alone would continue with the checkpoint's."""
    trainer_of(tmp_path / "a", lr_scheduler_type="constant", logging_steps=1).train()
    again = trainer_of(tmp_path / "b", lr_scheduler_type="constant", logging_steps=1, learning_rate=5e-4)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-4"))
    rates = [log["learning_rate"] for log in again.state.log_history if "learning_rate" in log]
    assert rates == [1e-3] * 4 + [5e-4] * 6


@pytest.mark.parametrize("strategy", ["random", "group_by_length", "sequential"])
@pytest.mark.parametrize("tokens", [None, 40])
def test_the_rows_of_a_step_do_not_depend_on_the_number_of_processes(strategy: Any, tokens: int | None) -> None:
    lengths = np.array([3 + row * 7 % 11 for row in range(45)])

    def steps(processes: int, accumulation: int, rows: int) -> list[list[int]]:
        by: dict[str, Any] = {"rows_per_batch": None if tokens else rows, "tokens_per_batch": tokens}
        found = RowBatches(
            lengths, strategy=strategy, seed=3, epochs=2, processes=processes, accumulation=accumulation, **by
        )
        assert found.steps == -(-len(found) // accumulation)
        micro_batches = [found.rows_of_step(step) for step in range(1, 2 * found.steps + 1)]
        return [sorted(row for batch in batches for row in batch) for batches in micro_batches]

    wanted = steps(1, 4, 2)
    assert [sorted(chain(*wanted[:half])) for half in (len(wanted) // 2,)] == [list(range(45))]
    assert steps(2, 2, 2) == wanted
    assert steps(4, 1, 2) == wanted
    if not tokens:
        assert steps(2, 1, 4) == steps(1, 1, 8) == wanted


def test_the_flight_recorder_knows_what_the_collator_was_given(tmp_path: Path) -> None:
    given: list[list[int]] = []

    class Noting(FlatCollator):
        def __call__(self, examples: Any) -> Any:
            given.append([example["row_id"] for example in examples])
            return super().__call__(examples)

    losses = RowLosses()
    noting = Noting(pad_token_id=0, loss_on="response", share_prefix=True, by_row=True)
    trainer = trainer_of(
        tmp_path, collator=noting, row_losses=losses, gradient_accumulation_steps=2, save_steps=50, logging_steps=1
    )
    trainer.add_callback(FlightRecorder(tmp_path / "flight.jsonl", trainer.rows_of_step, losses))
    trainer.train()
    found = [rows_of_step(tmp_path, step) for step in range(1, 7)]
    assert [each.rows for each in found] == [
        list(chain(*given[start:end])) for start, end in ((0, 2), (2, 4), (4, 5), (5, 7), (7, 9), (9, 10))
    ]
    logs = [log for log in trainer.state.log_history if "loss" in log]
    for each, log in zip(found, logs, strict=True):
        assert each.losses is not None
        total = sum(loss * tokens for loss, tokens in zip(each.losses, each.supervised, strict=True))
        assert total / sum(each.supervised) == pytest.approx(log["loss"], abs=1e-5)


# ---- real processes, really killed


@pytest.mark.parametrize("world", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_same_command_after_kill_9_ends_with_the_same_weights(tmp_path: Path, forks: Forks, world: int) -> None:
    config, log = write_config(tmp_path), tmp_path / "log"
    accumulated = ("--gradient_accumulation_steps", "2", "--per_device_train_batch_size", str(4 // world))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert wait(forks.training(config, whole, *accumulated, world=world, log=log)) == [0] * world, log.read_text()
    running = forks.training(config, broken, *accumulated, world=world, log=log)
    wait_until(lambda: (broken / "checkpoint-4").is_dir(), running)
    kill(running)
    assert state(broken)["status"] == "running"
    assert wait(forks.training(config, broken, *accumulated, world=world, log=log)) == [0] * world, log.read_text()
    assert logged(broken) == logged(whole)
    assert weights(broken) == weights(whole)
    assert state(broken)["status"] == "done"
    [start] = json.loads((broken / "run.json").read_text())["earlier"]
    assert start["status"] == "running" and "finished" not in start


@pytest.mark.slow
def test_a_run_of_two_processes_continues_with_one(tmp_path: Path, forks: Forks) -> None:
    config, log = write_config(tmp_path), tmp_path / "log"
    # The rows of a step and what is learned are the same on two processes; sums are rounded otherwise.
    two = tmp_path / "two"
    options = ("--global_batch_size", "8", "--dropout", "0")
    assert wait(forks.training(config, two, *options, "--max_steps", "5", world=2, log=log)) == [0, 0], log.read_text()
    one = tmp_path / "one"
    assert wait(forks.training(config, one, *options, "--max_steps", "5", log=log)) == [0], log.read_text()
    resumed = ("--resume", str(two / "checkpoint-4"))
    again = tmp_path / "again"
    assert wait(forks.training(config, again, *options, *resumed, "--max_steps", "5", log=log)) == [0], log.read_text()
    assert "2 processes wrote it, 1 continue" in log.read_text()
    ours, theirs = logged(one)["eval_loss"], logged(two)["eval_loss"]
    assert max(abs(ours[step] - theirs[step]) for step in ours) < 1e-5
    assert logged(again)["eval_loss"][5] == pytest.approx(ours[5], abs=1e-5)
    assert (one / "flight.jsonl").read_text() == (two / "flight.jsonl").read_text()
