"""What every model is asked with, and what it scored in a benchmark, kept in a file."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from heed.answers.subjects import stored
from heed.config.training import Bits
from heed.files import run_folder
from heed.models.identity import model_sha256
from heed.prompts.template import Contract, Prompt
from heed.runs.finished import Subject
from heed.saying import Say

FOLDER = "benchmarks"
RESULTS_FILE = "results.json"


@dataclass(frozen=True, kw_only=True)
class Asking:
    """The same for base and tuned model, whatever the benchmark."""

    folder: Path
    prompt: Prompt
    contract: Contract
    dtype: str
    bits: Bits
    batch_size: int
    limit: int | None
    command: str
    say: Say

    def key(self, subject: Subject) -> dict[str, Any]:
        """What a model's answers depend on besides the question; `contract` as in eval_responses.py."""
        return {
            "model": subject.model,
            "model_sha256": model_sha256(subject.model, subject.revision),
            "contract": self.contract.template_sha256,
            "stop_token_ids": self.contract.stop_token_ids,
            "dtype": self.dtype,
            **stored(self.bits),
        }


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric of one task, or of a group of tasks, as its library computed it.

    `values` holds for each task the items that the value is aggregated from, in the order of the documents.
    """

    task: str
    metric: str
    value: float
    values: dict[str, list[Any]]
    n: int
    n_full: int
    fewshot: int
    version: str
    higher_is_better: bool
    chance: float | None
    part_of: str | None
    """The group the task belongs to; None for what was asked for by name."""
    note: str | None = None
    """What was put right in the task."""
    commonest: float | None = None
    """What always giving the commonest of the right answers scores."""

    @property
    def pooled(self) -> list[Any]:
        return [value for values in self.values.values() for value in values]


def mean_of(levels: Sequence[tuple[float | None, int]]) -> float | None:
    """Of (level, weight); None where one is unknown."""
    known = [(level, weight) for level, weight in levels if level is not None]
    if not known or len(known) < len(levels):
        return None
    return sum(level * weight for level, weight in known) / sum(weight for _, weight in known)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one model scored in one benchmark."""

    key: dict[str, Any]
    """What the numbers depend on: they are measured again when any of it changes."""
    scores: list[Score]
    notes: list[str]
    seconds: float


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """What read_outcome finds; the last file to be written, so that it is there only when all is."""
    folder.mkdir(parents=True, exist_ok=True)
    run_folder.write_json(folder / RESULTS_FILE, asdict(outcome))


def read_outcome(folder: Path, key: dict[str, Any]) -> Outcome | None:
    """The outcome measured earlier, if everything it depends on is the same."""
    path = folder / RESULTS_FILE
    if not path.is_file():
        return None
    kept = run_folder.read_json(path)
    if kept["key"] != key:
        return None
    return Outcome(**(kept | {"scores": [Score(**score) for score in kept["scores"]]}))
