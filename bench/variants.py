"""The same optimizer steps by several tools: each takes a job and its rows, trains, and says what it took.

Every tool keeps its own defaults (optimizer, clipping, schedule, loader) except where a comment says otherwise. All are
given the same initial weights and the same rows in the same order, `batch_size` of them for each optimizer step.
"""

import importlib.util
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from bench.jobs import Clock, Job, Run, joined
from bench.models import build
from bench.rows import EOS
from heed.config import SftConfig
from heed.models.adapters import Adapter, add_adapter
from heed.models.head import scoring_head
from heed.tokens.batches import PaddingCollator
from heed.tokens.examples import LossOn, row_lengths
from heed.training.batching import hot_path
from heed.training.speed import Speed
from heed.training.trainer import HeedTrainer

TOKENIZER = Path(__file__).parent.parent / "models" / "tiny-gpt2"  # two tools want one, to pad and to stop


def model_of(job: Job) -> Any:
    model = build(job.shape)
    return add_adapter(model, Adapter(rank=job.lora_rank, alpha=2 * job.lora_rank)) if job.lora_rank else model


def tokenizer() -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(TOKENIZER)
    found.pad_token = found.eos_token
    return found


def textbook(job: Job, rows: Dataset) -> Run:
    """The loop a textbook writes: padded batches, an attention mask, torch's AdamW, all logits, one step a batch."""
    model = model_of(job).to(job.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=job.learning_rate)
    collator = PaddingCollator(pad_token_id=EOS, loss_on=job.loss_on)
    clock, losses = Clock(job), []
    for step, batch in enumerate(DataLoader(rows, batch_size=job.batch_size, collate_fn=collator), start=1):
        with torch.autocast(job.device, torch.bfloat16, enabled=job.dtype == "bf16"):
            loss = batch_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        clock.tick(step)
    return clock.run(torch.stack(losses).mean().item(), rows)


def batch_loss(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    on_device = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask", "labels")}
    labels = on_device.pop("labels")
    logits = model(**on_device).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def arguments(job: Job, folder: str, **changes: Any) -> dict[str, Any]:
    """What all Trainers are told: the job, and to leave nothing behind. The rest are their defaults."""
    values = {
        "output_dir": folder,
        "max_steps": job.all_steps,
        "per_device_train_batch_size": job.batch_size,
        "learning_rate": job.learning_rate,
        "bf16": job.dtype == "bf16",
        "use_cpu": job.device == "cpu",
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "log_level": "error",
    }
    return values | changes


def train(trainer: Trainer) -> float:
    trainer.remove_callback(PrinterCallback)
    return float(trainer.train().training_loss)


def trainer(job: Job, rows: Dataset) -> Run:
    """transformers.Trainer as it comes, with the padding collator of its library."""
    clock = Clock(job)
    with tempfile.TemporaryDirectory() as folder:
        hf_trainer = Trainer(
            model=model_of(job),
            args=TrainingArguments(**arguments(job, folder)),
            train_dataset=joined(rows, job.loss_on),
            data_collator=DataCollatorForSeq2Seq(tokenizer()),
            callbacks=[clock],
        )
        return clock.run(train(hf_trainer), rows)


def heed_trainer(
    model: PreTrainedModel,
    rows: Dataset,
    args: TrainingArguments,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    validation: Mapping[str, Dataset] | None = None,
    speed: Speed = "auto",
    loss_on: LossOn = "response",
) -> HeedTrainer:
    """HeedTrainer as train_sft.py makes it; the one place here that knows how."""
    args.remove_unused_columns = False
    args.logging_nan_inf_filter = False
    adapted = hasattr(model, "get_base_model")
    asked = SftConfig(model_name_or_path="", data="", speed=speed, loss_on=loss_on, use_peft=adapted)
    collator, chosen = hot_path(asked, args, model, EOS, float(row_lengths(rows).mean()), ignore, padded="")
    return HeedTrainer(
        model=model,
        args=args,
        train_dataset=rows,
        eval_dataset=validation,
        data_collator=collator,
        callbacks=list(callbacks),
        speed=chosen,
        say=ignore,
    )


def ignore(text: str) -> None:
    """Drops what Heed says of the run; a benchmark speaks for itself."""


def heed(job: Job, rows: Dataset, speed: Speed = "auto", *, head: bool = False) -> Run:
    """`head`: with head and cross entropy as one operation, also where HeedTrainer does not do so of its own accord."""
    clock, model = Clock(job), model_of(job)
    with tempfile.TemporaryDirectory() as folder, scoring_head(model) if head else nullcontext() as scoring:
        args = TrainingArguments(**arguments(job, folder))
        made = heed_trainer(model, rows, args, callbacks=[clock], speed=speed, loss_on=job.loss_on)
        made.head = scoring
        return clock.run(train(made), rows, made.data_collator)


class Kept:
    """A collator that remembers which examples each batch was made of, for tools that reorder or pack them."""

    def __init__(self, collator: Callable[[Any], Any]) -> None:
        self.collator = collator
        self.batches: list[Sequence[Mapping[str, Any]]] = []

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Any:
        self.batches.append(examples)
        return self.collator(examples)


def sft(job: Job, rows: Dataset, **setting: Any) -> Run:
    """trl.SFTTrainer on rows that are already ids; what `setting` leaves out is SFTConfig's default."""
    from trl import SFTConfig, SFTTrainer

    clock = Clock(job)
    with tempfile.TemporaryDirectory() as folder:
        sft_trainer = SFTTrainer(
            model=model_of(job),
            args=SFTConfig(**arguments(job, folder, **setting)),
            train_dataset=joined(rows, job.loss_on),
            processing_class=tokenizer(),
            callbacks=[clock],
        )
        kept = sft_trainer.data_collator = Kept(sft_trainer.data_collator)
        loss = train(sft_trainer)
    batches = kept.batches[job.warm_up : job.all_steps]
    return clock.run_over(loss, [example for batch in batches for example in batch])


def own_dtype(job: Job, rows: Dataset, **setting: Any) -> Run:
    """SFTTrainer in the job's dtype, without the gradient checkpointing that is its default."""
    return sft(job, rows, bf16=job.dtype == "bf16", gradient_checkpointing=False, **setting)


def sft_packing(job: Job, rows: Dataset) -> Run:
    """Rows of 1,024 tokens packed from several examples, as many rows a step as hold the job's tokens."""
    tokens = int(row_lengths(rows).sum())
    packed = math.ceil(tokens / job.all_steps / 1024)
    return own_dtype(job, rows, packing=True, per_device_train_batch_size=packed)


def litgpt(job: Job, rows: Dataset) -> Run:
    """litgpt's full fine-tuning; Pythia shapes only."""
    from bench.litgpt_full import litgpt_full

    return litgpt_full(job, rows, TOKENIZER)


VARIANTS: Mapping[str, Callable[[Job, Dataset], Run]] = {
    "heed": heed,
    "heed_graph": partial(heed, speed="graph"),
    "heed_head": partial(heed, head=True),
    "textbook": textbook,
    "trainer": trainer,
    "sft_defaults": partial(sft, bf16=True),
    "sft_no_checkpointing": own_dtype,
    "sft_grouped": partial(own_dtype, train_sampling_strategy="group_by_length"),
    "sft_padding_free": partial(own_dtype, padding_free=True, max_length=None),
    "sft_packing": sft_packing,
    "litgpt": litgpt,
}


def missing(name: str) -> str | None:
    """Why a variant cannot run here."""
    package = "trl" if name.startswith("sft_") else "litgpt" if name == "litgpt" else "transformers"
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed: make bench"
    return None
