"""What every model is asked with in one command, and where the results go."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heed.benchmarks.identity import model_sha256
from heed.prompts.template import Contract, Prompt
from heed.runs.finished import Subject
from heed.saying import Say

FOLDER = "benchmarks"


@dataclass(frozen=True, kw_only=True)
class Asking:
    """The same for base and tuned model, whatever the benchmark."""

    folder: Path
    prompt: Prompt
    contract: Contract
    dtype: str
    load_in_4bit: bool
    batch_size: int
    limit: int | None
    command: str
    say: Say

    def key(self, subject: Subject) -> dict[str, Any]:
        """What a model's answers depend on beside the question. `contract` is what eval_responses.py calls so."""
        return {
            "model": subject.model,
            "model_sha256": model_sha256(subject.model, subject.revision),
            "contract": self.contract.template_sha256,
            "stop_token_ids": self.contract.stop_token_ids,
            "dtype": self.dtype,
            "load_in_4bit": self.load_in_4bit,
        }
