"""What the models answer to rows that a benchmark brings or a run set aside: written once, read by every judge."""

import hashlib
from collections.abc import Sequence
from typing import Any

from tqdm.auto import tqdm

from heed import run_folder
from heed.benchmarks.asking import FOLDER, Asking
from heed.benchmarks.identity import contract_sha256, model_sha256
from heed.generation import generate
from heed.records import Record
from heed.subjects import Subject, load_subject

Answers = list[dict[str, Any]]
"""As in responses.json: instruction, input, output, model_response, and how the answer came about."""


def rows_sha256(records: Sequence[Record]) -> str:
    return hashlib.sha256("".join(record.content_hash for record in records).encode()).hexdigest()


def answers_key(asking: Asking, subject: Subject, records: Sequence[Record], max_new_tokens: int) -> dict[str, Any]:
    """All that the answers depend on."""
    return {
        "model": subject.model,
        "model_sha256": model_sha256(subject.model, subject.revision),
        "contract": contract_sha256(asking.contract),
        "dtype": asking.dtype,
        "max_new_tokens": max_new_tokens,
        "data_sha256": rows_sha256(records),
    }


def answer(
    asking: Asking, subject: Subject, records: Sequence[Record], *, name: str, max_new_tokens: int
) -> tuple[Answers, dict[str, Any]]:
    """The model's answers to the rows called `name`, and all they depend on. What was answered before is not again."""
    folder = asking.folder / FOLDER / subject.name
    path, key_path = folder / f"answers-{name}.json", folder / f"answers-{name}.key.json"
    key = answers_key(asking, subject, records, max_new_tokens)
    if key_path.is_file() and path.is_file() and run_folder.read_json(key_path) == key:
        return run_folder.read_json(path), key
    model = load_subject(subject, dtype=asking.dtype, load_in_4bit=asking.load_in_4bit)
    with tqdm(total=len(records), desc=f"{subject.name} answers {name}", unit="row") as bar:
        responses = generate(
            model,
            asking.prompt,
            [asking.prompt.encode_prompt(record.messages[:-1]) for record in records],
            stop_token_ids=asking.contract.stop_token_ids,
            batch_size=asking.batch_size,
            max_new_tokens=max_new_tokens,
            on_response=lambda index, response: bar.update(),
            say=lambda text: bar.write(text),
        )
    answers = [
        {
            "instruction": record.instruction,
            "input": record.input,
            "output": record.output,
            "model_response": response.text,
            "row_id": record.row_id,
            "finish_reason": response.finish_reason,
        }
        for record, response in zip(records, responses, strict=True)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    run_folder.write_json(path, answers)
    run_folder.write_json(key_path, key)
    return answers, key


def asked(row: dict[str, Any]) -> str:
    """Instruction and input as one text, for libraries that know no second field."""
    return f"{row['instruction']}\n\n{row['input']}" if row["input"] else str(row["instruction"])
