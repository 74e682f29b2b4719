"""A textbook's whole recipe by two loops: 935 rows, two epochs, and both losses every 5 steps on 5 batches each."""

import tempfile
import time
from collections.abc import Sequence

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PrinterCallback, TrainingArguments

from bench.jobs import Job
from bench.models import SHAPES, build
from bench.rows import EOS, examples
from bench.variants import arguments, batch_loss, heed_trainer
from heed.tokens.batches import PaddingCollator

TRAINED_ON, EPOCHS = 935, 2
EVERY, BATCHES = 5, 5


def recipe_rows(job: Job) -> tuple[Dataset, Dataset]:
    """The rows to train on, and the validation rows that are used."""
    rows = examples("short", TRAINED_ON + BATCHES * job.batch_size, vocabulary=SHAPES[job.shape].vocabulary)
    return rows.select(range(TRAINED_ON)), rows.select(range(TRAINED_ON, len(rows)))


def textbook_recipe(job: Job) -> float:
    """Seconds of training and evaluating, without start-up. The samples it prints after an epoch are left out."""
    rows, validation = recipe_rows(job)
    model = build(job.shape, device=job.device).train()
    started = time.perf_counter()
    optimizer = torch.optim.AdamW(model.parameters(), lr=job.learning_rate)
    collator = PaddingCollator(pad_token_id=EOS, loss_on="response")
    loader = DataLoader(rows, batch_size=job.batch_size, collate_fn=collator)
    step = 0
    for _ in range(EPOCHS):
        for batch in loader:
            optimizer.zero_grad()
            batch_loss(model, batch).backward()
            optimizer.step()
            step += 1
            if step % EVERY == 0:
                for part in (rows, validation):
                    average_loss(model, part.select(range(BATCHES * job.batch_size)), job, collator)
    if job.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


@torch.no_grad()
def average_loss(model: PreTrainedModel, rows: Dataset, job: Job, collator: PaddingCollator) -> float:
    model.eval()
    losses: Sequence[float] = [
        batch_loss(model, batch).item() for batch in DataLoader(rows, batch_size=job.batch_size, collate_fn=collator)
    ]
    model.train()
    return sum(losses) / len(losses)


def heed_recipe(job: Job) -> float:
    """The same steps and the same evaluations through HeedTrainer."""
    rows, validation = recipe_rows(job)
    model = build(job.shape)
    looked_at = {"train": rows.select(range(len(validation))), "validation": validation}
    with tempfile.TemporaryDirectory() as folder:
        changes = {"max_steps": -1, "num_train_epochs": EPOCHS, "eval_strategy": "steps", "eval_steps": EVERY}
        args = TrainingArguments(**arguments(job, folder, per_device_eval_batch_size=job.batch_size, **changes))
        trainer = heed_trainer(model, rows, args, validation=looked_at)
        trainer.remove_callback(PrinterCallback)
        started = time.perf_counter()
        trainer.train()
        if job.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started
