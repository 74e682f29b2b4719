"""What is trained and what it took: the job, the clock, the run."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from datasets import Dataset
from transformers import TrainerCallback

from bench.models import SHAPES
from bench.rows import EOS, make_rows
from heed.tokens.batches import IGNORE, Batch, PaddingCollator
from heed.tokens.examples import LossOn

Dtype = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained, for how long; the same for all variants that are compared."""

    shape: str
    dtype: Dtype
    rows: str = "short"
    loss_on: LossOn = "response"
    lora_rank: int | None = None
    """Of an adapter on all layers, with the rest frozen; None: all weights are trained."""
    batch_size: int = 8
    warm_up: int = 1
    steps: int = 4
    device: str = "cpu"
    learning_rate: float = 5e-5

    @property
    def name(self) -> str:
        loss = ", loss on all" if self.loss_on == "all" else ""
        adapter = f", LoRA r{self.lora_rank}" if self.lora_rank else ""
        return f"{self.shape}{adapter}, {self.dtype}, {self.rows} rows{loss}"

    @property
    def all_steps(self) -> int:
        return self.warm_up + self.steps

    def examples(self, seed: int = 0) -> Dataset:
        vocabulary = SHAPES[self.shape].vocabulary
        return make_rows(self.rows, self.all_steps * self.batch_size, vocabulary=vocabulary, seed=seed)

    @property
    def operations_per_weight(self) -> int:
        """For each token: forward, and the gradients of what came in and of the weight, which a frozen one has not."""
        return 4 if self.lora_rank else 6


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the steps after the warm-up took, and how much they trained on. The loss is the mean over all steps."""

    seconds: float
    cpu_seconds: float
    loss: float
    examples: int
    tokens: int
    supervised: int
    computed: int
    """Tokens that went through the layers, without padding: fewer than `tokens` where rows share a beginning."""
    scored: int
    """Places that were scored and had a target."""


class Clock(TrainerCallback):
    """Notes wall and process time when the warm-up ends and when the last step ends."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def tick(self, step: int) -> None:
        if step in (self.job.warm_up, self.job.all_steps):
            if self.job.device == "cuda":
                torch.cuda.synchronize()
            self.wall.append(time.perf_counter())
            self.cpu.append(time.process_time())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tick(state.global_step)

    def run(self, loss: float, rows: Dataset, collator: Callable[[list[Any]], Batch] | None = None) -> Run:
        """Sums up a run whose steps took `rows` in order, with a `collator` that lays out a step without padding."""
        size = self.job.batch_size
        timed = rows.select(range(self.job.warm_up * size, self.job.all_steps * size))
        found = self.run_over(loss, joined(timed, self.job.loss_on))
        if collator is None:
            return found
        steps = [collator(list(timed.select(range(start, start + size)))) for start in range(0, len(timed), size)]
        return replace(
            found,
            computed=sum(step["input_ids"].numel() for step in steps),
            scored=sum(len(step["targets"]) for step in steps),
        )

    def run_over(self, loss: float, examples: Dataset | Sequence[Mapping[str, Any]]) -> Run:
        (start, end), (cpu_start, cpu_end) = self.wall, self.cpu
        tokens = sum(len(example["input_ids"]) for example in examples)
        supervised = sum(label != IGNORE for example in examples for label in example["labels"])
        return Run(
            seconds=end - start,
            cpu_seconds=cpu_end - cpu_start,
            loss=loss,
            examples=sum(len(example.get("seq_lengths", [1])) for example in examples),
            tokens=tokens,
            supervised=supervised,
            computed=tokens,
            scored=supervised,
        )


def joined(rows: Dataset, loss_on: LossOn) -> Dataset:
    """The columns that tools other than Heed take: input_ids and labels, -100 for what is only read."""
    return Dataset.from_list([{"input_ids": row["input_ids"], "labels": labels(row, loss_on)} for row in rows])


def labels(row: Mapping[str, Any], loss_on: LossOn) -> list[int]:
    found: list[int] = PaddingCollator(pad_token_id=EOS, loss_on=loss_on)([row])["labels"][0].tolist()
    return found
