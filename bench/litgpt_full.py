"""litgpt's own `finetune_full`: its setup(), main() and fit(), on the weights and rows of a job."""

import contextlib
import io
import logging
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning
import torch
from datasets import Dataset
from litgpt.args import EvalArgs, TrainArgs
from litgpt.config import Config
from litgpt.data import DataModule, get_sft_collate_fn
from litgpt.finetune import full
from litgpt.scripts.convert_hf_checkpoint import copy_weights_gpt_neox
from litgpt.utils import save_config
from torch.utils.data import DataLoader

from bench.jobs import Clock, Job, Run, joined
from bench.models import SHAPES, build
from bench.rows import EOS

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


class Ids(DataModule):
    """The rows as litgpt's SFTDataset returns them, tokenized beforehand (litgpt does so again for each batch)."""

    prompt_style = "default"

    def __init__(self, rows: Dataset) -> None:
        super().__init__()
        self.examples: Any = [
            {
                "input_ids": torch.tensor(row["input_ids"]),
                "labels": torch.tensor(row["labels"]),
                "token_counts": {"raw": len(row["input_ids"]), "raw_plus_prompt_template": len(row["input_ids"])},
            }
            for row in joined(rows, "response")
        ]

    def connect(self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int | None = None) -> None:
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.examples, batch_size=self.batch_size, collate_fn=get_sft_collate_fn(pad_id=EOS))

    val_dataloader = train_dataloader


class Log:
    """A logger in place of litgpt's CSV file: ticks the clock and keeps the losses."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.losses: list[float] = []

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.losses.append(metrics["loss"])
        self.clock.tick(step)


def save_checkpoint(folder: Path, job: Job, tokenizer_folder: Path) -> None:
    """The job's initial weights, as `litgpt download` would leave them."""
    shape = SHAPES[job.shape]
    config = Config.from_name(
        "pythia-70m",
        n_layer=shape.layers,
        n_embd=shape.width,
        n_head=shape.heads,
        intermediate_size=4 * shape.width,
        padded_vocab_size=shape.vocabulary,
    )
    weights: dict[str, torch.Tensor] = {}
    # litgpt knows the name that files on the Hub give to the head.
    ours = {name.replace("lm_head.", "embed_out."): tensor for name, tensor in build(job.shape).state_dict().items()}
    copy_weights_gpt_neox(config, weights, ours)
    torch.save(weights, folder / "lit_model.pth")
    save_config(config, folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tokenizer_folder / name).read_bytes())


def ignore(*args: Any) -> None:
    """Stands in for what is not measured."""


def litgpt_full(job: Job, rows: Dataset, tokenizer_folder: Path) -> Run:
    """Left out, in its favour: validation, saving, tokenizing. Its micro batch is the whole batch; its default is 1."""
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    clock = Clock(job)
    log = Log(clock)
    stubs: dict[str, Any] = dict.fromkeys(("copy_config_files", "save_hyperparameters", "save_prompt_style"), ignore)
    stubs |= {"validate": lambda *_, **__: torch.zeros(()), "choose_logger": lambda *_, **__: log}
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.multiple(full, **stubs),
        patch.object(lightning.Fabric, "save", ignore),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        save_checkpoint(Path(folder), job, tokenizer_folder)
        full.setup(
            checkpoint_dir=Path(folder),
            out_dir=Path(folder) / "out",
            precision=PRECISIONS[job.dtype],
            data=Ids(rows),
            train=TrainArgs(
                global_batch_size=job.batch_size,
                micro_batch_size=job.batch_size,
                lr_warmup_steps=1,
                epochs=2,
                max_steps=job.all_steps,
            ),
            eval=EvalArgs(interval=job.all_steps + 1, max_new_tokens=1, final_validation=False),
            optimizer={"class_path": "torch.optim.AdamW", "init_args": {"lr": job.learning_rate}},
        )
    return clock.run(sum(log.losses) / len(log.losses), rows)
