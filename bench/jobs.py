"""What is trained and what it took: the job, the clock, the run."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from datasets import Dataset
from transformers import TrainerCallback

from bench.models import SHAPES
from bench.rows import examples
from heed.tokens.batches import IGNORE

Dtype = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained, for how long; the same for all variants that are compared."""

    shape: str
    dtype: Dtype
    rows: str = "short"
    batch_size: int = 8
    warm_up: int = 1
    steps: int = 4
    device: str = "cpu"
    learning_rate: float = 5e-5

    @property
    def name(self) -> str:
        return f"{self.shape} {self.dtype} {self.rows}"

    @property
    def all_steps(self) -> int:
        return self.warm_up + self.steps

    def examples(self, seed: int = 0) -> Dataset:
        vocabulary = SHAPES[self.shape].vocabulary
        return examples(self.rows, self.all_steps * self.batch_size, vocabulary=vocabulary, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the steps after the warm-up took, and how much they trained on. The loss is the mean over all steps."""

    seconds: float
    cpu_seconds: float
    loss: float
    examples: int
    tokens: int
    supervised: int


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

    def run(self, loss: float, rows: Dataset) -> Run:
        """Sums up a run whose steps took `rows` in order."""
        size = self.job.batch_size
        return self.run_over(loss, joined(rows.select(range(self.job.warm_up * size, self.job.all_steps * size))))

    def run_over(self, loss: float, examples: Dataset | Sequence[Mapping[str, Any]]) -> Run:
        (start, end), (cpu_start, cpu_end) = self.wall, self.cpu
        return Run(
            seconds=end - start,
            cpu_seconds=cpu_end - cpu_start,
            loss=loss,
            examples=sum(len(example.get("seq_lengths", [1])) for example in examples),
            tokens=sum(len(example["input_ids"]) for example in examples),
            supervised=sum(label != IGNORE for example in examples for label in example["labels"]),
        )


def joined(rows: Dataset) -> Dataset:
    """The columns that tools other than Heed take: input_ids and labels, the prompt's being -100."""
    return Dataset.from_list(
        [
            {
                "input_ids": row["input_ids"],
                "labels": [*[IGNORE] * row["spans"][0][0], *row["input_ids"][row["spans"][0][0] :]],
            }
            for row in rows
        ]
    )
