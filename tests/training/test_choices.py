"""Every name of an optimizer, schedule or reporter works, or is refused in a sentence before anything is loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

from heed.errors import UserError
from heed.training.choices import try_choices
from heed.training.trainer import HeedTrainer
from world.small_world import gpt2
from world.training import DATA, SHARED, SaveAt, arguments

NEEDS: dict[str, dict[str, Any]] = {
    "cosine_with_min_lr": {"min_lr": 1e-4},
    "cosine_warmup_with_min_lr": {"min_lr": 1e-4},
    "warmup_stable_decay": {"num_decay_steps": 2},
    "reduce_lr_on_plateau": {"patience": 0, "threshold": 1e9},
    "greedy": {"patience": 0},
}


def trained(folder: Path, resume: Path | None = None, **names: Any) -> HeedTrainer:
    args = arguments(
        folder, max_steps=4, eval_strategy="steps", eval_steps=1, metric_for_best_model="eval_loss", **names
    )
    try_choices(args)
    trainer = HeedTrainer(
        model=gpt2(),
        args=args,
        train_dataset=DATA,
        eval_dataset=DATA.select(range(2)),
        data_collator=SHARED,
        callbacks=[SaveAt([2])],
        say=lambda text: None,
    )
    trainer.train(str(resume) if resume else None)
    return trainer


def goes_on_exactly(folder: Path, **names: Any) -> None:
    whole = trained(folder / "whole", **names)
    assert all(torch.isfinite(weight).all() for weight in whole.model.parameters())
    resumed = trained(folder / "resumed", folder / "whole" / "checkpoint-2", **names)
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", [each.value for each in OptimizerNames])
def test_every_optimizer_trains_and_resumes_or_is_refused(tmp_path: Path, name: str) -> None:
    try:
        try_choices(arguments(tmp_path, optim=name))
    except UserError as error:
        assert str(error).startswith(f"optim: {name} ") and "\n" not in str(error)
        assert name not in ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop")
        return
    goes_on_exactly(tmp_path, optim=name)


@pytest.mark.parametrize("name", [each.value for each in SchedulerType])
def test_every_schedule_trains_and_resumes(tmp_path: Path, name: str) -> None:
    goes_on_exactly(tmp_path, lr_scheduler_type=name, lr_scheduler_kwargs=NEEDS.get(name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"lr_scheduler_type": "cosine_with_min_lr"},
            "lr_scheduler_kwargs: One of min_lr or min_lr_rate should be set",
        ),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "lr_scheduler_kwargs: get_wsd_schedule() missing 1 required"),
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"cycles": 2}},
            "got an unexpected keyword argument 'cycles'",
        ),
        ({"lr_scheduler_kwargs": {"cycles": 2}}, "lr_scheduler_kwargs has no effect with lr_scheduler_type: constant"),
        ({"warmup_steps": 5}, "warmup_steps has no effect with lr_scheduler_type: constant; leave it out, or choose"),
        ({"optim": "lomo"}, "optim: lomo changes weights within the backward pass"),
        ({"optim": "galore_adamw_layerwise"}, "optim: galore_adamw_layerwise changes weights within the backward pass"),
        ({"optim": "adafactor", "optim_args": "beta"}, "optim: adafactor does not work here: "),
        (
            {"optim": "adamw_torch", "optim_args": "amsgrad=1"},
            "optim_args has no effect with optim: adamw_torch; leave it out",
        ),
    ],
)
def test_options_that_a_choice_cannot_take_are_refused(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        try_choices(arguments(tmp_path, **changes))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", INTEGRATION_TO_CALLBACK)
def test_every_reporter_is_there_or_refused_with_what_it_needs(tmp_path: Path, name: str) -> None:
    try:
        try_choices(arguments(tmp_path, report_to=name))
    except UserError as error:
        assert str(error).startswith(f"report_to: {name} needs ") and "\n" not in str(error)
        return
    INTEGRATION_TO_CALLBACK[name]()  # transformers raises here where its package is absent
