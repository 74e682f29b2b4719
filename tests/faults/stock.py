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


def trainer_of(folder: Path, output_dir: Path, epochs: int, **more: Any) -> tuple[Trainer, list[dict[str, Any]]]:
    """A Trainer, and its rows."""
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
        **more,
    )
    return Trainer(
        model=model,
        args=args,
        train_dataset=data,
        eval_dataset=data,
        data_collator=collate,
        processing_class=tokenizer,
    ), data


def train(folder: Path, output_dir: Path, epochs: int, **hub: Any) -> None:
    """`hub`: arguments that make it push, which it then also does at the end."""
    trainer, _ = trainer_of(folder, output_dir, epochs, **hub)
    last = get_last_checkpoint(str(output_dir)) if output_dir.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(str(output_dir))
    if hub:
        trainer.push_to_hub()
    (output_dir / "log.json").write_text(json.dumps(trainer.state.log_history))


def evaluate(folder: Path, output_dir: Path, epochs: int) -> None:
    """What transformers' example scripts do after a training: metrics, predictions and both in files."""
    trainer, data = trainer_of(folder, output_dir, epochs)
    output_dir.mkdir(exist_ok=True)
    trainer.save_metrics("eval", trainer.evaluate())
    found = trainer.predict(data)  # type: ignore[arg-type]
    trainer.save_metrics("predict", found.metrics)
    texts = trainer.processing_class.batch_decode(found.predictions.argmax(-1))  # type: ignore[union-attr]
    with (output_dir / "generated_predictions.txt").open("w") as writer:
        writer.write("\n".join(texts))


def forked(
    folder: Path,
    output_dir: Path,
    epochs: int,
    log: Path,
    prepare: Callable[[], Any] | None = None,
    *,
    work: Callable[[Path, Path, int], None] = train,
) -> None:
    """In a process of `harness.Forks`."""
    with log.open("a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    if prepare is not None:
        prepare()
    work(folder, output_dir, epochs)


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
