"""Small models, rows and arguments to train with, and what their steps gave."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from heed.data.records import RawRow
from heed.data.rows import check_rows
from heed.models import adapters
from heed.prompts.template import load_prompt
from heed.runs.recorder import RowLosses
from heed.tokens.batches import FlatCollator, LossOn, PaddingCollator
from heed.tokens.encoding import Policy, encode_split
from heed.training.callbacks import GoOn
from heed.training.preflight import Rehearsal
from heed.training.trainer import HeedTrainer
from world.small_world import MODELS, ROOT, gpt2, llama, qwen2, qwen3, tiny_tokenizer

STEPS = 30


FAMILIES = MODELS | {"llama": llama, "qwen2": qwen2, "qwen3": qwen3}


def examples(count: int) -> Dataset:
    """Rows of very unequal lengths, so that a mean of means is far from the mean over tokens."""
    prompt = load_prompt("alpaca_short", tiny_tokenizer())
    values = json.loads((ROOT / "data" / "instructions.json").read_text())[:count]
    for number, value in enumerate(values):
        value["output"] += " Yes." * (number % 7 * 3)
    rows = [RawRow(place=str(number), value=value) for number, value in enumerate(values)]
    records = check_rows(rows, source="test", columns={}, on_bad_row="stop").records
    return encode_split(records, prompt, Policy(max_length=256, on_long_row="error", loss_on="response")).dataset


class Recorder(PaddingCollator):
    """A collator that remembers what it handed out, so that another loop can be given the very same batches."""

    def __init__(self, loss_on: LossOn) -> None:
        super().__init__(pad_token_id=0, loss_on=loss_on)
        self.__dict__["batches"] = []

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch = super().__call__(examples)
        self.__dict__["batches"].append(
            {name: batch[name].clone() for name in ("input_ids", "attention_mask", "labels")}
        )
        return batch


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    values: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "report_to": "none",
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "max_steps": STEPS,
        "seed": 123,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.1,
        "max_grad_norm": 0.0,
        "optim": "adamw_torch",
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(**(values | changes))


def train(
    folder: Path, model: PreTrainedModel, data: Dataset, collator: PaddingCollator | FlatCollator, **changes: Any
) -> HeedTrainer:
    trainer = HeedTrainer(
        model=model, args=arguments(folder, **changes), train_dataset=data, eval_dataset=data, data_collator=collator
    )
    trainer.train()
    return trainer


def textbook_loop(
    model: PreTrainedModel, batches: Sequence[Mapping[str, torch.Tensor]], learning_rate: float = 1e-3
) -> list[float]:
    """What a textbook writes: AdamW, cross entropy on shifted targets, one step a batch.

    Biases and norms are not decayed, as in the GPT-2 and GPT-3 papers' code and in Trainer.
    """
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate)
    model.train()
    found = []
    for batch in batches:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def losses(trainer: HeedTrainer) -> list[float]:
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


def collators(loss_on: LossOn) -> dict[str, PaddingCollator | FlatCollator]:
    return {
        "padded": PaddingCollator(pad_token_id=0, loss_on=loss_on),
        "flat": FlatCollator(pad_token_id=0, loss_on=loss_on, share_prefix=False),
        "shared prefix": FlatCollator(pad_token_id=0, loss_on=loss_on, share_prefix=True),
    }


def gradients(
    folder: Path, data: Dataset, collator: Any = None, *, adapter: bool = False, name: str = "gpt2", **changes: Any
) -> torch.Tensor:
    """The gradient of one optimizer step over 8 rows, in float64."""
    model: Any = MODELS[name]()
    if adapter:
        chosen = adapters.Adapter(rank=4, alpha=8, dropout=0.0, target_modules=None)
        model = adapters.add_adapter(model, chosen)
        torch.manual_seed(1)
        for parameter in model.parameters():  # a fresh adapter's second half is zero, and so its first's gradient
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
    model = model.double()
    found: list[torch.Tensor] = []

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone())

    trainer = HeedTrainer(
        model=model,
        args=arguments(folder, max_steps=1, **changes),
        train_dataset=data,
        data_collator=collator or PaddingCollator(pad_token_id=0, loss_on="response"),
        callbacks=[Keep()],
    )
    trainer.train()
    return found[0]


DATA = examples(20)


SHARED = collators("response")["shared prefix"]


DROPOUT = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}


class SaveAt(TrainerCallback):
    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save = state.global_step in self.steps


def trainer_of(
    folder: Path,
    *,
    rehearse: bool = False,
    row_losses: RowLosses | None = None,
    save_at: Sequence[int] | None = None,
    **cell: Any,
) -> HeedTrainer:
    """A trainer of a random model on twenty rows; it saves at every step, or at those of `save_at`."""
    model: PreTrainedModel = gpt2(**cell.pop("model", {}))
    if cell.pop("adapter", False):
        torch.manual_seed(1)
        model = adapters.add_adapter(model, adapters.Adapter(rank=4, alpha=8, dropout=0.1, target_modules=None))
    collator: FlatCollator | PaddingCollator = cell.pop("collator", SHARED)
    options = {"max_steps": -1, "num_train_epochs": 2, "save_strategy": "steps", "logging_steps": 3}
    options |= {
        "save_steps": 1 if save_at is None else 1000,
        "per_device_train_batch_size": 4,
        "lr_scheduler_type": "linear",
    }
    data = DATA
    trainer = HeedTrainer(
        model=model,
        tokens_per_batch=cell.pop("tokens_per_batch", None),
        args=arguments(folder, **(options | cell)),
        train_dataset=data,
        eval_dataset=data.select(range(5)),
        data_collator=collator,
        row_losses=row_losses,
        callbacks=[GoOn(folder, print), *([SaveAt(save_at)] if save_at is not None else [])],
        say=lambda text: None,
    )
    if rehearse:
        trainer.add_callback(Rehearsal(trainer, None, lambda text: None))
    return trainer
