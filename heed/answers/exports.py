"""Answers in the formats of other tools."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heed.answers.responses import Answer
from heed.files import run_folder

ALPACA_EVAL_FILE = "alpaca_eval_outputs.json"
MESSAGES_FILE = "messages.jsonl"


def alpaca_eval_outputs(answers: Sequence[Answer], *, generator: str, dataset: str) -> list[dict[str, str]]:
    """AlpacaEval's `model_outputs`. It has no input field: its own rows have the input after the instruction.

    `output` is the model's answer there, not the reference.
    """
    return [
        {
            "instruction": answer.user_content,
            "output": answer.model_response,
            "generator": generator,
            "dataset": dataset,
        }
        for answer in answers
    ]


def messages(answer: Answer) -> dict[str, Any]:
    """The conversation as the model had it, with its own answer at the end."""
    turns: list[dict[str, str]] = []
    if answer.system_prompt is not None:
        turns.append({"role": "system", "content": answer.system_prompt})
    for turn in answer.history:
        content = f"{turn['content']}\n\n{turn['input']}" if turn.get("input") else turn["content"]
        turns.append({"role": turn["role"], "content": content})
    turns.append({"role": "user", "content": answer.user_content})
    turns.append({"role": "assistant", "content": answer.model_response})
    return {"messages": turns}


def write_alpaca_eval(folder: Path, answers: Sequence[Answer], *, generator: str, dataset: str) -> Path:
    path = folder / ALPACA_EVAL_FILE
    run_folder.write_json(path, alpaca_eval_outputs(answers, generator=generator, dataset=dataset))
    return path


def write_messages(folder: Path, answers: Sequence[Answer]) -> Path:
    path = folder / MESSAGES_FILE
    run_folder.write_lines(path, [messages(answer) for answer in answers])
    return path
