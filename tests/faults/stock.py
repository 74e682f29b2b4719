"""The same training by transformers' Trainer alone, resumed as its documentation says: what faults do to it.

python tests/faults/stock.py FOLDER OUTPUT_DIR        FOLDER has base/ and rows.json (harness.write_config)
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint


def train(folder: Path, output_dir: Path, epochs: int, **hub: Any) -> None:
    """`hub`: arguments that make it push, which it then also does at the end."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(folder / "base")
    rows = json.loads((folder / "rows.json").read_text())
    texts = [f"{row['instruction']}\n{row['output']}{tokenizer.eos_token}" for row in rows]
    data = [{"input_ids": tokenizer(text)["input_ids"]} for text in texts]

    def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch: Any = tokenizer.pad(list(examples), return_tensors="pt")  # type: ignore[arg-type]
        return batch | {"labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}

    args = TrainingArguments(
        output_dir=str(output_dir),
        num_train_epochs=epochs,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        save_steps=2,
        save_total_limit=3,
        logging_steps=3,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        **hub,
    )
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=data,
        data_collator=collate,
        processing_class=tokenizer,
    )
    last = get_last_checkpoint(str(output_dir)) if output_dir.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(str(output_dir))
    if hub:
        trainer.push_to_hub()
    (output_dir / "log.json").write_text(json.dumps(trainer.state.log_history))


def forked(folder: Path, output_dir: Path, epochs: int, log: Path, prepare: Callable[[], Any] | None = None) -> None:
    """In a process of `harness.Forks`."""
    with log.open("a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    if prepare is not None:
        prepare()
    train(folder, output_dir, epochs)


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
