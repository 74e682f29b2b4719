"""What an evaluation folder and its run folder contain, read once; nothing is computed here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heed.answers.responses import Answer, read_responses
from heed.files import run_folder
from heed.files.hashes import file_sha256
from heed.files.lines import kept_values
from heed.measure.rows import Row, read_rows

Verdict = dict[str, Any]
LEVELS_ABOVE = 3  # of a run, where its comparison is looked for


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The files by what they say. What is absent is None or empty."""

    folder: Path
    run_folder: Path | None
    run: dict[str, Any] | None
    config: dict[str, dict[str, Any]]
    """Key -> {value, source}, as the run resolved it."""
    weights: Path
    """Where the model is: the run, or the newest checkpoint in it while there is none."""
    losses: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    contract: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    names: list[str]
    """The systems that were asked, the evaluated one last."""
    models: dict[str, str]
    responses: dict[str, dict[int, Answer]]
    """name -> row_id -> answer."""
    files: list[str]
    """Where all texts of rows are."""
    changed: list[str]
    """Files of answers that are no longer those that were measured."""
    items: dict[str, dict[int, dict[str, float]]]
    """name -> row_id -> metric -> value."""
    verdicts: list[Verdict]
    judging: dict[str, Any] | None
    comparison: dict[str, Any] | None
    rows: list[Row]
    arena: dict[str, Any] | None
    compared: "Compared | None"

    @property
    def judges(self) -> list[dict[str, Any]]:
        judges: list[dict[str, Any]] = (self.judging or {}).get("judges", [])
        return judges

    @property
    def ours(self) -> str | None:
        return self.names[-1] if self.names else None

    @property
    def theirs(self) -> str | None:
        return self.names[0] if len(self.names) > 1 else None


def read_evidence(folder: Path) -> Evidence:
    """Raises UserError for a file that is damaged: a page made of the rest would hide that."""
    evaluation = read_if_there(folder / run_folder.EVALUATION_FILE)
    run = find_run(folder, evaluation)
    files = response_files(folder, evaluation)
    systems = (evaluation or {}).get("systems", {})
    weights = find_weights(run or folder)
    return Evidence(
        folder=folder,
        run_folder=run,
        run=run_folder.read_json(run / run_folder.RUN_FILE) if run else None,
        config=(read_if_there(run / run_folder.CONFIG_FILE) if run else None) or {},
        weights=weights,
        losses=kept_values(run / run_folder.METRICS_FILE) if run else [],
        samples=kept_values(run / run_folder.SAMPLES_FILE) if run else [],
        rejected=run_folder.read_lines(run / run_folder.REJECTED_FILE) if run else [],
        contract=read_if_there(weights / run_folder.CONTRACT_FILE),
        evaluation=evaluation,
        names=list(systems) or list(files),
        models={name: system["model"] for name, system in systems.items()},
        responses={
            name: {answer.row_id: answer for answer in read_responses(path, say=lambda text: None)}
            for name, path in files.items()
        },
        files=[shown(path, folder) for path in (*files.values(), folder / run_folder.JUDGE_FILE) if path.is_file()],
        changed=[
            path.name
            for name, path in files.items()
            if systems.get(name, {}).get("responses_sha256") not in (None, file_sha256(path))
        ],
        items=read_items(run_folder.read_lines(folder / run_folder.ITEMS_FILE)),
        verdicts=latest(run_folder.read_lines(folder / run_folder.JUDGE_FILE)),
        judging=read_if_there(folder / run_folder.JUDGE_SUMMARY_FILE),
        comparison=read_if_there(folder / run_folder.COMPARISON_FILE),
        rows=read_rows(folder),
        arena=read_if_there(folder / run_folder.ARENA_FILE),
        compared=find_comparison(folder),
    )


def shown(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def find_run(folder: Path, evaluation: dict[str, Any] | None) -> Path | None:
    """The run folder: the evaluation folder itself, or where the evaluated model is (perhaps in a checkpoint)."""
    places = [folder]
    if evaluation is not None and evaluation["systems"]:
        model = Path(list(evaluation["systems"].values())[-1]["model"])
        places += [model, model.parent]
    return next((place for place in places if (place / run_folder.RUN_FILE).is_file()), None)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The comparison that names this run: its page, as it is reached from the run, and what it measured."""

    page: str
    metric: str
    rows: int
    recipe: dict[str, Any]
    """As compared.json has it: `runs`, and the means over `rows` and `seeds`."""


def find_comparison(folder: Path) -> Compared | None:
    """The nearest one above."""
    for up, above in enumerate(folder.absolute().parents[:LEVELS_ABOVE], 1):
        found = read_if_there(above / run_folder.STUDY_FILE) or {"recipes": []}
        ours = folder.absolute().relative_to(above).as_posix()
        for recipe in found["recipes"]:
            if ours in recipe["runs"]:
                page = "../" * up + run_folder.STUDY_PAGE
                return Compared(page=page, metric=found["metric"], rows=found["rows"], recipe=recipe)
    return None


def find_weights(run: Path) -> Path:
    def age(folder: Path) -> tuple[bool, float]:
        return folder == run and run_folder.has_model(run), folder.stat().st_mtime

    return max((run, *run.glob("checkpoint-*")), key=age)


def response_files(folder: Path, evaluation: dict[str, Any] | None) -> dict[str, Path]:
    """name -> the file of its answers, where that exists."""
    named = {"base": run_folder.BASE_RESPONSES_FILE, "tuned": run_folder.RESPONSES_FILE}
    if evaluation is not None:
        named = {name: system["responses"] for name, system in evaluation["systems"].items()}
    return {name: folder / file for name, file in named.items() if (folder / file).is_file()}


def read_items(lines: list[dict[str, Any]]) -> dict[str, dict[int, dict[str, float]]]:
    items: dict[str, dict[int, dict[str, float]]] = {}
    for line in lines:
        items.setdefault(line["name"], {}).setdefault(line["row_id"], {}).update(line["metrics"])
    return items


def latest(verdicts: list[Verdict]) -> list[Verdict]:
    """One verdict for each question: a failed one that was asked again is replaced by what came of that."""
    by_question = {tuple(verdict.get(field) for field in QUESTION): verdict for verdict in verdicts}
    return list(by_question.values())


QUESTION = ("kind", "judge", "prompt", "name", "a", "b", "row_id", "first", "control")


def read_if_there(path: Path) -> Any:
    return run_folder.read_json(path) if path.is_file() else None
