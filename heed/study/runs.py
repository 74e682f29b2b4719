"""The runs of a comparison, read from their folders."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from heed.answers.responses import Answer
from heed.errors import UserError
from heed.files import run_folder
from heed.files.hashes import json_sha256
from heed.measure.verdict import JUDGE_SCORE
from heed.report.evidence import Evidence, read_evidence
from heed.report.judges import judge_key, scores
from heed.report.measured import Measured, measured

Question = tuple[str, int]
"""What a row asks and expects, by hash, and how many equal rows stood before it."""
# Where a run is and how it is looked at; these do not change what it learns.
PLACES = (
    "output_dir",
    "run_name",
    "resume",
    "overwrite_output_dir",
    "report_to",
    "logging_steps",
    "logging_strategy",
    "disable_tqdm",
    "preflight",
    "save_total_limit",
    "seeds",
    "learning_curve",
)
SEEDS = ("seed", "data_seed")


@dataclass(frozen=True)
class Run:
    """`name` is its path below the folder that all runs are in."""

    folder: Path
    name: str
    evidence: Evidence
    found: Measured

    @cached_property
    def config(self) -> dict[str, Any]:
        """What the run was told, without where it is."""
        hidden = (*PLACES, *(name for name in self.evidence.config if name.startswith(("hub_", "push_to_hub"))))
        return {name: each["value"] for name, each in self.evidence.config.items() if name not in hidden}

    @property
    def facts(self) -> dict[str, Any]:
        """run.json."""
        return self.evidence.run or {}

    @cached_property
    def questions(self) -> dict[Question, int]:
        """Question -> row_id, of the rows that the run's model answered."""
        return dict(numbered(self.answers))

    @property
    def contract(self) -> str | None:
        return (self.evidence.evaluation or {}).get("contract")

    @property
    def metric(self) -> str | None:
        """What its own headline is about."""
        primary = self.found.primary
        return None if primary is None else JUDGE_SCORE if primary.system == "judge" else primary.metric

    @property
    def answers(self) -> dict[int, Answer]:
        """Row id -> what the run's model answered."""
        return self.evidence.responses.get(self.evidence.ours or "", {})

    def values(self, metric: str, name: str | None) -> dict[Question, float]:
        """Question -> value, of a system that the run has asked."""
        if name is None:
            return {}
        if metric == JUDGE_SCORE:
            trusted = self.found.primary.judge if self.found.primary is not None else None
            judge = trusted or next((judge_key(each) for each in self.evidence.judges), None)
            given = {
                each["row_id"]: each["score"]
                for each in scores(self.evidence)
                if judge_key(each) == judge and each["name"] == name
            }
        else:
            given = {row: values.get(metric) for row, values in self.evidence.items.get(name, {}).items()}
        known = {question: given.get(row) for question, row in self.questions.items()}
        return {question: value for question, value in known.items() if value is not None}

    @property
    def last_eval(self) -> dict[str, Any]:
        """The evaluation of the weights that were kept: the one with the lowest loss, where the best was kept."""
        evaluated = [log for log in self.evidence.losses if "eval_loss" in log]
        kept = [log for log in evaluated if f"step {log['step']}" == self.facts.get("kept")]
        return (kept or evaluated or [{}])[-1]


def numbered(answers: dict[int, Answer]) -> Iterator[tuple[Question, int]]:
    seen: Counter[str] = Counter()
    for row_id in sorted(answers):
        each = answers[row_id]
        digest = json_sha256([each.instruction, each.input, each.output, each.system_prompt, each.history])
        yield (digest, seen[digest]), row_id
        seen[digest] += 1


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs at the paths, or below those that are not runs. Raises UserError for fewer than two."""
    folders = list(dict.fromkeys(folder.absolute() for path in paths for folder in run_folders(path)))
    if len(folders) < 2:
        found = f"only {folders[0]}" if folders else "none"
        raise UserError(
            f"runs: a comparison needs two or more, and here is {found}; give run folders, or a folder of runs"
        )
    top = common_folder(folders)
    evidence = [(folder, read_evidence(folder)) for folder in folders]
    return [Run(folder, str(folder.relative_to(top)), each, measured(each)) for folder, each in evidence]


def run_folders(path: Path) -> list[Path]:
    if (path / run_folder.RUN_FILE).is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"runs: {path}: no such folder")
    found = sorted(each.parent for each in path.rglob(run_folder.RUN_FILE))
    if not found:
        raise UserError(f"runs: {path} has no run: no {run_folder.RUN_FILE} in it or below it")
    return found


def common_folder(folders: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([folder.absolute().parent for folder in folders]))
