"""Laws of the loss: parity with a textbook loop, and the same numbers however a batch is cut."""

import itertools
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback
from transformers.modeling_outputs import CausalLMOutput

from heed.errors import UserError
from heed.tokens.batches import IGNORE, FlatCollator, LossOn, PaddingCollator
from heed.tokens.examples import row_lengths
from heed.training import evaluating
from heed.training.trainer import HeedTrainer, target_nll
from world.small_world import MODELS
from world.training import (
    FAMILIES,
    STEPS,
    Recorder,
    arguments,
    collators,
    examples,
    gradients,
    losses,
    textbook_loop,
    train,
)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("loss_on", ["all", "response"])
def test_thirty_steps_agree_with_a_textbook_loop_however_batches_are_made(
    tmp_path: Path, name: str, loss_on: LossOn
) -> None:
    data, recorder = examples(64), Recorder(loss_on)
    kinds = collators(loss_on) | {"padded": recorder}
    found = {kind: losses(train(tmp_path, MODELS[name](), data, collator)) for kind, collator in kinds.items()}
    theirs = textbook_loop(MODELS[name](), recorder.__dict__["batches"][:STEPS])
    for ours in found.values():
        assert len(ours) == len(theirs) == STEPS
        assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 1e-5
    assert theirs[-1] < theirs[0] - 0.5  # and something was learned


def test_accumulation_does_not_change_the_gradient(tmp_path: Path) -> None:
    data = examples(8)
    whole = gradients(tmp_path, data, per_device_train_batch_size=8)
    for size in (1, 2, 4):
        parts = gradients(tmp_path, data, per_device_train_batch_size=size, gradient_accumulation_steps=8 // size)
        assert (parts - whole).norm() / whole.norm() < 1e-12


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("loss_on", ["all", "response"])
@pytest.mark.parametrize("adapter", [False, True])
def test_gradients_agree_however_batches_are_made(tmp_path: Path, name: str, loss_on: LossOn, adapter: bool) -> None:
    data = examples(8)
    kinds = collators(loss_on)
    whole = gradients(tmp_path, data, kinds["padded"], name=name, adapter=adapter, per_device_train_batch_size=8)
    for size in (8, 2):
        for kind in kinds.values():
            parts = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size}
            found = gradients(tmp_path, data, kind, name=name, adapter=adapter, **parts)
            assert (found - whole).norm() / whole.norm() < 1e-12


def test_gradient_checkpointing_recomputes_flat_rows(tmp_path: Path) -> None:
    data, kind = examples(8), collators("response")["shared prefix"]
    plain = gradients(tmp_path, data, kind, per_device_train_batch_size=8)
    again = gradients(tmp_path, data, kind, per_device_train_batch_size=8, gradient_checkpointing=True)
    assert (again - plain).norm() / plain.norm() < 1e-12


def test_tokens_per_batch_sets_the_micro_batches(tmp_path: Path) -> None:
    """Twelve rows as by length in tokens; the same rows, the same number of batches in each epoch."""
    data = examples(12)
    lengths = dict(zip(data["row_id"], row_lengths(data), strict=True))
    seen: list[list[int]] = []

    class Noting(FlatCollator):
        def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            seen.append([example["row_id"] for example in examples])
            return super().__call__(examples)

    trainer = HeedTrainer(
        model=MODELS["gpt2"](),
        args=arguments(tmp_path, max_steps=-1, num_train_epochs=3, train_sampling_strategy="group_by_length"),
        train_dataset=data,
        data_collator=Noting(pad_token_id=0, loss_on="response", share_prefix=True),
        tokens_per_batch=200,
    )
    trainer.train()
    steps = trainer.state.global_step // 3
    assert steps > 3 and len(seen) == 3 * steps
    assert all(sum(lengths[row] for row in batch) <= 200 for batch in seen)
    for epoch in range(3):
        rows = [row for batch in seen[epoch * steps : (epoch + 1) * steps] for row in batch]
        assert sorted(rows) == list(range(12))
    assert trainer.state.num_input_tokens_seen == 3 * sum(lengths.values())
    assert trainer.state.log_history[-2]["num_input_tokens_seen"] == 3 * sum(lengths.values())


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_a_resumed_run_sees_the_rows_and_losses_of_an_uninterrupted_one(tmp_path: Path, strategy: str) -> None:
    data = examples(20)

    def run(folder: str, **changes: Any) -> HeedTrainer:
        options = {"max_steps": -1, "num_train_epochs": 2, "save_strategy": "steps", "save_steps": 3}
        resume = changes.pop("resume", None)
        trainer = HeedTrainer(
            model=MODELS["gpt2"](),
            args=arguments(tmp_path / folder, **options, train_sampling_strategy=strategy, **changes),
            train_dataset=data,
            data_collator=collators("response")["shared prefix"],
            tokens_per_batch=250,
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = run("whole")
    for step in (3, 6):
        resumed = run("again", resume=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert losses(resumed) == losses(whole)
        for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
            assert torch.equal(a, b)
        assert resumed.state.num_input_tokens_seen == whole.state.num_input_tokens_seen


WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "_unique2")


class WaitingOps(TorchDispatchMode):
    """Counts what would make the host wait for a device: reading a number out of a tensor, or a shape that depends
    on one. The collator's are left out: its tensors are the host's own."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indexed = name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])
        if name in WAITING or indexed:
            frames = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_stack()[:-1]]
            if not any("heed/batches.py" in frame for frame in frames):
                self.found.append(f"{name} in {frames[-3:]}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["flat", "shared prefix"])
def test_no_step_between_logs_waits_for_the_device(tmp_path: Path, family: str, kind: str) -> None:
    counting = WaitingOps()
    per_step: list[list[str]] = []

    class Cut(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            per_step.append(counting.found[:])
            counting.found.clear()

    trainer = HeedTrainer(
        model=FAMILIES[family](),
        # weights and norms as a GPU run has them: fused AdamW, clipping, the guard
        args=arguments(tmp_path, max_steps=6, logging_steps=100, optim="adamw_torch_fused", max_grad_norm=1.0),
        train_dataset=examples(48),
        data_collator=collators("response")[kind],
        callbacks=[Cut()],
    )
    with counting:
        trainer.train()
    assert len(per_step) == 6
    assert per_step[1:] == [[]] * 5, per_step  # before the first step the optimizer and the scheduler are set up


def test_eval_loss_is_the_same_number_at_any_batch_size(tmp_path: Path) -> None:
    data, model = examples(17), MODELS["gpt2"]().double()
    collator = PaddingCollator(pad_token_id=0, loss_on="response")
    total, tokens = 0.0, 0
    flat = FlatCollator(pad_token_id=0, loss_on="response", share_prefix=False)
    for example in data:
        batch = collator([example])
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"]).logits
        nll = torch.nn.functional.cross_entropy(logits[0, :-1], batch["labels"][0, 1:], reduction="sum")
        total += nll.item()
        tokens += int((batch["labels"][:, 1:] != IGNORE).sum())
    for size, kind in itertools.product((1, 2, 3, 8, 32), (collator, flat)):
        trainer = HeedTrainer(
            model=model,
            args=arguments(tmp_path, per_device_eval_batch_size=size),
            eval_dataset=data,
            data_collator=kind,
        )
        metrics = trainer.evaluate()
        assert metrics["eval_loss"] == pytest.approx(total / tokens, abs=1e-12)
        assert (metrics["eval_rows"], metrics["eval_tokens"]) == (17, tokens)


def test_evaluation_halves_its_batches_when_memory_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, said = examples(17), list[str]()

    def trainer() -> HeedTrainer:
        args = arguments(tmp_path, per_device_eval_batch_size=16)
        kind = collators("response")["shared prefix"]
        return HeedTrainer(model=MODELS["gpt2"](), args=args, eval_dataset=data, data_collator=kind, say=said.append)

    wanted = trainer().evaluate()
    narrow = trainer()
    collate = narrow.eval_collator

    def starved(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if len(examples) > 5:
            raise torch.OutOfMemoryError("no more")
        return collate(examples)

    monkeypatch.setattr(starved, "loss_on", "response", raising=False)
    monkeypatch.setattr(narrow, "eval_collator", starved)
    found = narrow.evaluate()
    assert found["eval_loss"] == pytest.approx(wanted["eval_loss"], abs=1e-6)
    assert (found["eval_rows"], found["eval_tokens"]) == (wanted["eval_rows"], wanted["eval_tokens"])
    assert [text.split(";")[0] for text in said] == [
        "not enough memory for 16 rows at once",
        "not enough memory for 8 rows at once",
    ]


def test_evaluation_is_sized_to_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target's 2,000 scores are there four times, a token is 24 x 32 numbers; half of 16 MiB fits three rows."""
    monkeypatch.setattr(evaluating, "free_memory", lambda device: 16 * 2**20)
    said: list[str] = []
    args = arguments(tmp_path, per_device_eval_batch_size=16)
    kind = collators("response")["shared prefix"]
    trainer = HeedTrainer(
        model=MODELS["gpt2"](), args=args, eval_dataset=examples(17), data_collator=kind, say=said.append
    )
    trainer.evaluate()
    trainer.evaluate()
    assert said == ["evaluation takes 3 rows at once, not 16: one takes up to 2.3 MiB, and 16 MiB are free"]


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch"])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_never_reaches_the_weights(tmp_path: Path, optim: str, where: str) -> None:
    """Step 3 breaks. The weights stay those of step 2, even when the break is noticed only at the next log."""
    after: list[list[torch.Tensor]] = []

    class Keep(TrainerCallback):
        def on_step_end(self, *args: Any, model: Any = None, **kwargs: Any) -> None:
            after.append([parameter.detach().clone() for parameter in model.parameters()])

    class Breaking(HeedTrainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            if self.state.global_step != 2:
                return loss
            return loss * float("nan") if where == "loss" else loss + Poison.apply(loss)

    trainer = Breaking(
        model=MODELS["gpt2"](),
        args=arguments(tmp_path, max_steps=8, logging_steps=5, optim=optim),
        train_dataset=examples(64),
        data_collator=collators("response")["shared prefix"],
        callbacks=[Keep()],
    )
    with pytest.raises(UserError, match=r"^step 3: the loss or its gradient is not finite .* Lower learning_rate"):
        trainer.train()
    for weights in after[2:]:
        assert all(torch.equal(a, b) for a, b in zip(weights, after[1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(trainer.model.parameters(), after[1], strict=True))


class Poison(torch.autograd.Function):
    """Zero, with an infinite derivative."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return torch.full_like(gradients[0], float("inf"))


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
