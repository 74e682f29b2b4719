"""The mixin makes the checkpoints of any Trainer whole or absent, not only those of ours."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

from heed.runs import checkpoints
from heed.training.checkpointing import WholeCheckpoints
from world.small_world import gpt2
from world.training import arguments


class Theirs(Trainer):
    """Somebody else's trainer, with its own loss."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = model(**inputs).loss
        return loss + 0.1 * loss**2


class Whole(WholeCheckpoints, Theirs):
    model: Any


ROWS = [{"input_ids": [(7 * row + 3 * place) % 200 for place in range(12)]} for row in range(16)]
ROWS = [row | {"labels": row["input_ids"]} for row in ROWS]


def trainer(folder: Path) -> Whole:
    torch.manual_seed(5)
    model = gpt2(resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1)
    args = arguments(folder, max_steps=6, save_strategy="steps", save_steps=2, logging_steps=1)
    return Whole(model=model, args=args, train_dataset=ROWS)


class Killed(BaseException):
    pass


def test_another_trainer_killed_in_a_save_resumes_to_the_very_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = trainer(tmp_path / "unbroken")
    unbroken.train()
    run = tmp_path / "broken"

    def killed(staged: Path, final: Path) -> None:
        if final.name == "checkpoint-4":
            raise Killed
        publish(staged, final)

    publish = checkpoints.publish
    monkeypatch.setattr(checkpoints, "publish", killed)
    with pytest.raises(Killed):
        trainer(run).train()
    monkeypatch.setattr(checkpoints, "publish", publish)
    assert [path.name for path in checkpoints.checkpoints(run)] == ["checkpoint-2"]
    newest = checkpoints.newest_whole(run, print)
    assert newest is not None and newest.step == 2
    resumed = trainer(run)
    resumed.train(resume_from_checkpoint=str(newest.path))
    for ours, theirs in zip(resumed.model.parameters(), unbroken.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    losses = [[log["loss"] for log in each.state.log_history if "loss" in log] for each in (resumed, unbroken)]
    assert losses[0] == losses[1] and len(losses[0]) == 6
    assert [path.name for path in checkpoints.checkpoints(run)] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
