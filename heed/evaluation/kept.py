"""evaluation.json: what was asked of which models, and where their answers are.

An evaluation folder is a run folder or any other. What follows from the answers reads them here, and loads no model.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from heed.answers.responses import Answer, read_responses
from heed.errors import UserError
from heed.files import run_folder
from heed.files.hashes import file_sha256, json_sha256
from heed.saying import Say, count

Answers = dict[str, list[Answer]]
"""System -> its answers, the evaluated one's last."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One model and where its answers are. What a file of another tool does not say is None."""

    model: str
    revision: str | None
    responses: str
    """The file's name in the evaluation folder, or a path."""
    responses_sha256: str
    contract: str | None
    """SHA-256 of the template it was asked with."""
    own_template: bool = False
    """Asked with the chat template it came with, not with the evaluated model's."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """evaluation.json. The model that is evaluated is the last of `systems`; the first of the others is compared with
    it, and scoring puts the best of them there."""

    heed: str
    systems: dict[str, Asked]
    data: str
    split: str | None
    data_sha256: str
    """Of the rows answered: instructions, inputs and references."""
    n: int
    n_full: int
    limit: int | None
    prompt: str | None
    contract: str | None
    engine: str | None
    max_new_tokens: int | None
    versions: dict[str, str]
    command: str
    time: str
    seconds: float | None
    device: str | None
    headline_metric: str | None = None
    """What the verdict is about, named before anything was measured."""
    clusters: str | None = None
    """Which rows count as one draw; None where each is its own."""
    controls_sha256: str | None = None
    """Of the answers to controls; None where nothing of the kind was asked."""
    keys: Mapping[str, Any] | None = None
    """What asks the same again: those keys of eval_responses.py that were set and say who answers what."""

    @property
    def what(self) -> str:
        return f"{self.split} rows of {self.data}" if self.split else self.data

    @property
    def rows(self) -> str:
        """How many of what."""
        return f"{count(self.n, f'{self.split} row' if self.split else 'row')} of {self.data}"

    @property
    def evaluated(self) -> str:
        return list(self.systems)[-1]

    @property
    def other(self) -> str | None:
        return next(iter(self.systems)) if len(self.systems) > 1 else None

    def provenance(self, name: str) -> dict[str, Any]:
        """The fields of a Row that say what was measured."""
        asked = self.systems[name]
        return {
            "model": asked.model,
            "contract": asked.contract or "unknown",
            "data": self.data,
            "data_sha256": self.data_sha256,
            "versions": self.versions,
            "command": self.command,
            "limit": self.limit,
        }


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    run_folder.write_json(folder / run_folder.EVALUATION_FILE, asdict(evaluation))


def read_evaluation(folder: Path) -> Evaluation:
    """Raises UserError where nothing was answered yet, or answers are not the ones it names."""
    path = folder / run_folder.EVALUATION_FILE
    if not path.is_file():
        raise UserError(
            f"{folder} has no answers ({run_folder.EVALUATION_FILE} is missing); run eval_responses.py generate first"
        )
    value = run_folder.read_json(path)
    try:
        systems = {name: Asked(**asked) for name, asked in value.pop("systems").items()}
        evaluation = Evaluation(systems=systems, **value)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not an evaluation of this version of Heed ({error})") from error
    for asked in systems.values():
        refuse_changed(folder / asked.responses, asked.responses_sha256, path)
    return evaluation


def refuse_changed(file: Path, sha256: str, told: Path) -> None:
    if not file.is_file() or file_sha256(file) != sha256:
        state = "has changed" if file.is_file() else "is gone"
        raise UserError(f"{file} {state} since it was written down in {told}; run eval_responses.py generate again")


def read_answers(folder: Path, evaluation: Evaluation, say: Say) -> Answers:
    return {name: read_responses(folder / asked.responses, say=say) for name, asked in evaluation.systems.items()}


def keep_systems(file: Path, names: Collection[str]) -> None:
    """Remove the lines of systems that were not asked here."""
    lines = run_folder.read_lines(file)
    if any(line["name"] not in names for line in lines):
        run_folder.write_lines(file, [line for line in lines if line["name"] in names])


def answers_sha256(answers: Sequence[Answer]) -> str:
    rows = sorted((each.row_id, each.system_prompt, each.instruction, each.input, each.output) for each in answers)
    return json_sha256(rows)
