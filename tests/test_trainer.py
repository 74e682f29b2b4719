"""Laws of the loss: parity with a textbook loop, and the same numbers however a batch is cut."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from small_world import MODELS, ROOT, tiny_tokenizer
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments
from transformers.modeling_outputs import CausalLMOutput

from heed.batches import IGNORE, LossOn, PaddingCollator
from heed.encoding import Policy, encode_split
from heed.prompts import load_prompt
from heed.records import RawRow, check_rows
from heed.trainer import HeedTrainer, target_nll

STEPS = 30


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
    folder: Path, model: PreTrainedModel, data: Dataset, collator: PaddingCollator, **changes: Any
) -> HeedTrainer:
    trainer = HeedTrainer(
        model=model, args=arguments(folder, **changes), train_dataset=data, eval_dataset=data, data_collator=collator
    )
    trainer.train()
    return trainer


def losses(trainer: HeedTrainer) -> list[float]:
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


def textbook_loop(model: PreTrainedModel, batches: Sequence[Mapping[str, torch.Tensor]]) -> list[float]:
    """What a textbook writes: AdamW, cross entropy on shifted targets, one step a batch.

    Biases and norms are not decayed, as in the GPT-2 and GPT-3 papers' code and in Trainer.
    """
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
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


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("loss_on", ["all", "response"])
def test_thirty_steps_agree_with_a_textbook_loop(tmp_path: Path, name: str, loss_on: LossOn) -> None:
    collator = Recorder(loss_on)
    ours = losses(train(tmp_path, MODELS[name](), examples(64), collator))
    theirs = textbook_loop(MODELS[name](), collator.__dict__["batches"][:STEPS])
    assert len(ours) == len(theirs) == STEPS
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 1e-5
    assert ours[-1] < ours[0] - 0.5  # and something was learned


def gradients(folder: Path, data: Dataset, **changes: Any) -> torch.Tensor:
    """The gradient of one optimizer step over 8 rows, in float64."""
    model = MODELS["gpt2"]().double()
    found: list[torch.Tensor] = []

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone())

    trainer = HeedTrainer(
        model=model,
        args=arguments(folder, max_steps=1, **changes),
        train_dataset=data,
        data_collator=PaddingCollator(pad_token_id=0, loss_on="response"),
        callbacks=[Keep()],
    )
    trainer.train()
    return found[0]


def test_accumulation_does_not_change_the_gradient(tmp_path: Path) -> None:
    data = examples(8)
    whole = gradients(tmp_path, data, per_device_train_batch_size=8)
    for size in (1, 2, 4):
        parts = gradients(tmp_path, data, per_device_train_batch_size=size, gradient_accumulation_steps=8 // size)
        assert (parts - whole).norm() / whole.norm() < 1e-12


def test_eval_loss_is_the_same_number_at_any_batch_size(tmp_path: Path) -> None:
    data, model = examples(17), MODELS["gpt2"]().double()
    collator = PaddingCollator(pad_token_id=0, loss_on="response")
    total, tokens = 0.0, 0
    for example in data:
        batch = collator([example])
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"]).logits
        nll = torch.nn.functional.cross_entropy(logits[0, :-1], batch["labels"][0, 1:], reduction="sum")
        total += nll.item()
        tokens += int((batch["labels"][:, 1:] != IGNORE).sum())
    for size in (1, 2, 3, 8, 32):
        trainer = HeedTrainer(
            model=model,
            args=arguments(tmp_path, per_device_eval_batch_size=size),
            eval_dataset=data,
            data_collator=collator,
        )
        metrics = trainer.evaluate()
        assert metrics["eval_loss"] == pytest.approx(total / tokens, abs=1e-12)
        assert (metrics["eval_rows"], metrics["eval_tokens"]) == (17, tokens)


def test_half_precision_logits_are_scored_in_float32() -> None:
    logits, targets = torch.randn(1, 5, 2000).bfloat16(), torch.tensor([1, 2, 3, IGNORE, 5])

    class Fixed(torch.nn.Module):
        def forward(self, **inputs: Any) -> CausalLMOutput:
            return CausalLMOutput(logits=logits)

    nll = target_nll(Fixed(), {"targets": targets})
    assert nll.dtype == torch.float32
    assert torch.equal(nll, target_nll_of(logits.float(), targets))
    assert nll[3] == 0.0  # nothing is supervised there


def target_nll_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits[0], targets, reduction="none", ignore_index=IGNORE)


def test_only_a_saved_model_can_be_the_best(tmp_path: Path) -> None:
    """A high learning rate makes late evaluations worse; the best checkpoint must be one that exists."""
    data = examples(32)
    trainer = HeedTrainer(
        model=MODELS["gpt2"](),
        args=arguments(
            tmp_path,
            max_steps=12,
            eval_strategy="steps",
            eval_steps=1,
            save_strategy="steps",
            save_steps=4,
            learning_rate=0.02,
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
            greater_is_better=False,
            save_total_limit=1,
        ),
        train_dataset=data,
        eval_dataset=data,
        data_collator=PaddingCollator(pad_token_id=0, loss_on="response"),
    )
    trainer.train()
    by_step = {log["step"]: log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log}
    saved = {step: by_step[step] for step in (4, 8, 12)}
    assert trainer.state.best_metric == min(saved.values())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(saved.values()), abs=1e-6)
