"""What would end a run hours later, tried before step 0: disk, engine, and a step with the longest rows."""

import os
import random
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import DistributedType
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from heed.errors import UserError, is_out_of_memory
from heed.models.loading import parameter_counts
from heed.models.memory import free_memory, free_unused, resident_memory
from heed.processes import from_first, largest
from heed.runs import checkpoints
from heed.saying import Detail, Say, count, duration
from heed.tokens.examples import row_lengths

if TYPE_CHECKING:
    from heed.training.safe import SafeTrainer
    from heed.training.trainer import HeedTrainer

ADAM_BYTES = 8  # two float32 a trained parameter
SHORT = 5.0  # seconds
SMALL_FILES = 5 * 2**20  # tokenizer, states, manifest
ENGINES = {
    "ACCELERATE_USE_FSDP": DistributedType.FSDP,
    "ACCELERATE_USE_DEEPSPEED": DistributedType.DEEPSPEED,
}
# With learning rate 0 these leave every weight as it is, bit for bit: the update is a multiple of it.
SCALED_BY_RATE = ("adamw_torch", "adamw_torch_fused", "sgd")


def check_engine(trainer: "SafeTrainer") -> None:
    """Raises UserError when the launcher's engine is not the one at work; accelerate falls back to another silently."""
    active = trainer.accelerator.distributed_type
    for variable, engine in ENGINES.items():
        if os.environ.get(variable, "false").lower() in ("1", "true") and active != engine:
            raise UserError(
                f"the launcher asks for {engine.value}, but accelerate runs {active.value} on a "
                f"{trainer.args.device.type}; leave the engine out of the launcher's config, or run where it works"
            )


def check_disk(trainer: "SafeTrainer", *, steps: int, say: Say, queued: int = 0) -> None:
    """Raises UserError when the checkpoints to come will not fit onto the disk.

    `queued` is how many models may wait for the Hub after their checkpoints are gone.
    """
    args, folder = trainer.args, Path(str(trainer.args.output_dir))

    def check() -> None:
        size = checkpoint_bytes(trainer)
        kept, there = checkpoints_kept(args, trainer.keep_checkpoints, steps), len(checkpoints.checkpoints(folder))
        # One more while it is written, since an old one goes only once the new one is whole; and the final model.
        needed = max(1, kept + 1 - there) * size + (1 + queued) * weight_bytes(trainer)
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise UserError(
                f"output_dir: the disk of {folder} has {gib(free)} free, and {kept} checkpoint(s) of {gib(size)}, one "
                f"being written and the final model need {gib(needed)} more; free some, lower save_total_limit, or set "
                "save_only_model: true"
            )
        say(Detail(f"disk      {kept} checkpoint(s) of {gib(size)} and one being written fit into {gib(free)}"))

    from_first(check)


def weight_bytes(trainer: "SafeTrainer") -> int:
    """What is saved of the model: all of it, or the adapter."""
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    saved = trained if hasattr(trainer.model, "peft_config") else list(trainer.model.parameters())
    return sum(parameter.numel() * parameter.element_size() for parameter in saved) + SMALL_FILES


def checkpoint_bytes(trainer: "SafeTrainer") -> int:
    optimizer = 0 if trainer.args.save_only_model else ADAM_BYTES * parameter_counts(trainer.model)[1]
    return weight_bytes(trainer) + optimizer


def checkpoints_kept(args: TrainingArguments, limit: int | None, steps: int) -> int:
    """How many there will be at most; the best and the newest are always kept."""
    strategy = str(getattr(args.save_strategy, "value", args.save_strategy))
    written = {"no": 1, "epoch": int(args.num_train_epochs) + 1}.get(strategy, steps)
    if strategy == "steps":
        every = args.save_steps if args.save_steps >= 1 else args.save_steps * steps
        written = int(steps // every) + 1
    return min(written, max(limit, 2)) if limit else written


def gib(size: float) -> str:
    return f"{size / 2**30:,.2f} GiB" if size >= 2**28 else f"{size / 2**20:,.1f} MiB"


class Rehearsal(TrainerCallback):
    """Takes one step with the longest rows before the first, and leaves no trace: afterwards weights, optimizer and
    random states are as they were, bit for bit.

    Forward, backward, optimizer, evaluation and an answer, as far as they are part of the run. Raises UserError when
    memory runs out.
    """

    def __init__(self, trainer: "HeedTrainer", answer: Callable[[Any], object] | None, say: Say) -> None:
        self.trainer, self.answer, self.say = trainer, answer, say

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if control.should_training_stop:
            return
        trainer = self.trainer
        if args.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(args.device)
        if (known := self.known(args.device)) is not None:
            self.tell(known, "as an earlier start did it", state)
            return
        rows = longest_batch(row_lengths(trainer.train_dataset), args.train_batch_size, trainer.tokens_per_batch)
        began, held = time.monotonic(), held_memory(args.device)
        try:
            with same_random_states(), trainer.rehearsing():
                done: list[str] = []
                seconds = 0.0
                if trainer.accelerator.distributed_type == DistributedType.DEEPSPEED:
                    self.say(
                        "rehearsal without a training step: DeepSpeed changes the weights within its backward pass, so "
                        "step 1 will show whether memory suffices"
                    )
                else:
                    seconds = self.step(rows, fresh=state.global_step == 0)
                    done += ["forward", "backward", "optimizer"]
                if trainer.eval_dataset is not None:
                    self.evaluate()
                    done.append("evaluation")
                if self.answer is not None:
                    self.answer(trainer.model)
                    done.append("an answer")
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"there is not enough memory for a step with the {len(rows)} longest rows; lower "
                "per_device_train_batch_size and raise gradient_accumulation_steps, or lower max_length"
            ) from error
        free_unused()
        if not done:
            return
        peak = peak_memory(args.device)
        found = {
            "done": ", ".join(done),
            "rows": len(rows),
            "tokens": int(row_lengths(trainer.train_dataset)[rows].sum()),
            "seconds": seconds,
            "more": max(0, peak - held),
        }
        if trainer.earlier is not None and state.global_step == 0:  # later the optimizer has its memory already
            trainer.earlier.keep("rehearsal", found, time.monotonic() - began)
        self.tell(found, f"at most {gib(peak)} held", state)

    def known(self, device: torch.device) -> dict[str, Any] | None:
        """What an earlier start found, if as much memory as it took is free for every process."""
        found = self.trainer.earlier.known("rehearsal") if self.trainer.earlier is not None else None
        if found is None or largest(int(free_memory(device) < found["more"])):
            return None
        return found

    def tell(self, found: dict[str, Any], how: str, state: TrainerState) -> None:
        free = gib(free_memory(self.trainer.args.device))
        self.say(
            Detail(
                f"rehearsal {found['done']} with the {found['rows']} longest rows ({found['tokens']:,} tokens): "
                f"{how}, {free} free"
            )
        )
        if found["seconds"]:
            left = self.seconds_left(found["seconds"] / found["tokens"], state)
            steps = count(state.max_steps - state.global_step, "step")
            self.say(f"time      about {duration(left)} for {steps}, going by a trial step")

    def step(self, rows: list[int], *, fresh: bool) -> float:
        """Returns how many seconds a micro-batch takes: a short first one, which warms up, is made twice."""
        trainer = self.trainer
        examples = [trainer.train_dataset[row] for row in rows]
        batch = trainer._prepare_inputs(trainer.data_collator(examples))
        trainer.model_wrapped.train()
        seconds = SHORT
        with (
            trainer.compute_loss_context_manager(),
            trainer.rows_as_collated(),
            torch.compiler.set_stance("force_eager"),
        ):
            for _ in range(2):
                if seconds <= SHORT:
                    began = time.monotonic()
                    float(trainer.forward_backward(batch, batch["weights"].sum().long()))  # waits for the device
                    seconds = time.monotonic() - began
        # An optimizer with state already has its memory; an unknown one could change weights.
        if fresh and str(getattr(trainer.args.optim, "value", trainer.args.optim)) in SCALED_BY_RATE:
            optimizer: Any = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
            with learning_rate_zero(optimizer):
                optimizer.step()
            optimizer.state.clear()
        trainer.model_wrapped.zero_grad()
        return seconds

    def seconds_left(self, seconds_per_token: float, state: TrainerState) -> float:
        """Of the steps alone; evaluations, checkpoints and answers come on top."""
        trainer = self.trainer
        steps_an_epoch = trainer.row_batches.steps
        tokens = int(row_lengths(trainer.train_dataset).sum()) / trainer.args.world_size / steps_an_epoch
        return (state.max_steps - state.global_step) * tokens * seconds_per_token

    def evaluate(self) -> None:
        """Evaluate the longest rows, as many as go at once; nothing is logged."""
        trainer = self.trainer
        sets = (trainer.eval_dataset, *trainer.evaluated_too.values())
        dataset = max(sets, key=lambda each: int(row_lengths(each).max()))
        lengths = row_lengths(dataset)
        longest = np.argsort(-lengths, kind="stable")[: trainer.eval_rows.rows * trainer.args.world_size]
        trainer.evaluation_loop(trainer.get_eval_dataloader(dataset.select(longest)), "rehearsal")
        trainer.model_wrapped.train()


def longest_batch(lengths: np.ndarray, rows: int, tokens: int | None) -> list[int]:
    """The places of the rows that make the largest possible micro-batch."""
    order = np.argsort(-lengths, kind="stable")
    fit = rows if tokens is None else max(1, int((np.cumsum(lengths[order]) <= tokens).sum()))
    found: list[int] = order[:fit].tolist()
    return found


@contextmanager
def learning_rate_zero(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


@contextmanager
def same_random_states() -> Iterator[None]:
    """Whatever is drawn inside does not change the numbers drawn afterwards."""
    python, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)


def held_memory(device: torch.device) -> int:
    return int(torch.cuda.memory_allocated(device)) if device.type == "cuda" else resident_memory()


def peak_memory(device: torch.device) -> int:
    """The most that this process has held so far, on its device."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
