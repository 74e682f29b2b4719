"""What every model is asked with in one command, and where the results go."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from heed.prompts import Contract, Prompt

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
    say: Callable[[str], object]
