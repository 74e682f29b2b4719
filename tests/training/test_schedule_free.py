"""An optimizer whose trained weights are not the learned ones: what is evaluated and saved is what was learned."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from heed.training.trainer import HeedTrainer
from world.small_world import gpt2
from world.training import DATA, SHARED, SaveAt, arguments

BETA, RATE = 0.9, 0.05


class ScheduleFree(torch.optim.Optimizer):
    """Schedule-free SGD (Defazio et al. 2024): steps are taken at y, between the steps z and their average x."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model.parameters(), {"lr": RATE, "training": False, "steps": 0})

    def move(self, training: bool, share: float) -> None:
        for group in self.param_groups:
            if group["training"] != training and group["steps"]:
                for weight in group["params"]:
                    weight.data.lerp_(self.state[weight]["z"], share)
            group["training"] = training

    def train(self) -> None:
        self.move(True, 1 - BETA)

    def eval(self) -> None:
        self.move(False, 1 - 1 / BETA)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            assert group["training"], "a step at the weights that are only for looking at"
            group["steps"] += 1
            for weight in group["params"]:
                z = self.state[weight].setdefault("z", weight.clone())
                x = weight.lerp(z, 1 - 1 / BETA)
                z.sub_(weight.grad, alpha=group["lr"])
                weight.copy_(x.lerp(z, 1 / group["steps"]).lerp(z, 1 - BETA))


def trained(folder: Path, *, resume: Path | None = None, save_at: list[int], **changes: Any) -> HeedTrainer:
    model = gpt2()
    trainer = HeedTrainer(
        model=model,
        args=arguments(folder, max_steps=6, per_device_train_batch_size=4, **changes),
        train_dataset=DATA,
        eval_dataset=DATA.select(range(5)),
        data_collator=SHARED,
        optimizers=(ScheduleFree(model), None),
        callbacks=[SaveAt(save_at)],
        say=lambda text: None,
    )
    trainer.train(str(resume) if resume else None)
    return trainer


def test_the_learned_weights_are_evaluated_saved_and_resumed_from(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", save_at=[3, 6], eval_strategy="steps", eval_steps=1)
    losses = {log["step"]: log["eval_loss"] for log in whole.state.log_history if "eval_loss" in log}
    for step in (3, 6):
        looked_at = gpt2()
        looked_at.load_state_dict(load_file(tmp_path / f"whole/checkpoint-{step}/model.safetensors"), strict=False)
        looked_at.tie_weights()
        whole.model.load_state_dict(looked_at.state_dict())
        assert whole.evaluate()["eval_loss"] == pytest.approx(losses[step], abs=1e-6)

    whole = trained(tmp_path / "again", save_at=[3, 6])
    resumed = trained(tmp_path / "resumed", resume=tmp_path / "again/checkpoint-3", save_at=[6])
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_run_without_evaluations_saves_the_same_weights(tmp_path: Path) -> None:
    """Trainer alone would save the weights of the next training step."""
    trained(tmp_path / "plain", save_at=[6])
    saved = load_file(tmp_path / "plain/checkpoint-6/model.safetensors")
    looked_at = trained(tmp_path / "looked at", save_at=[], eval_strategy="steps", eval_steps=6)
    for name, weight in looked_at.model.named_parameters():
        if name in saved:
            assert torch.equal(saved[name], weight)
