"""One measured number and all that is needed to trace it: the line that every evaluation adds to rows.jsonl."""

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from heed.errors import UserError
from heed.files import run_folder
from heed.measure.intervals import Estimate


@dataclass(frozen=True, kw_only=True)
class Row:
    """A metric of one model on one set of items.

    `system` is what measured (metrics, stop, judge, MMLU, ...), `name` the model's part in the comparison (base, tuned,
    model), `model` its path or id. `value` is None when it is withheld; the notes then say why.
    """

    system: str
    task: str
    metric: str
    value: float | None
    ci95: tuple[float, float] | None
    n: int
    """Items that the value covers."""
    n_full: int
    """Items that the task has."""
    name: str
    model: str
    contract: str
    """SHA-256 of the template the model was asked with; its prompt_contract.json calls it template_sha256."""
    data: str
    data_sha256: str
    library: str
    """Name and version of what computed the value."""
    versions: dict[str, str]
    command: str
    higher_is_better: bool = True
    chance: float | None = None
    """What guessing scores."""
    commonest: float | None = None
    """What always giving the commonest of the right answers scores."""
    fewshot: int | None = None
    chat_template: bool | None = None
    limit: int | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, ...]:
        """What the row is about; a later measurement of the same takes its place."""
        how = (self.fewshot, self.chat_template, self.limit)
        return (self.system, self.task, self.metric, self.name, *map(str, how))


def measured(estimate: Estimate) -> dict[str, Any]:
    """The fields of a Row that an estimate knows."""
    return {"value": estimate.value, "ci95": estimate.ci95, "n": estimate.n}


def read_rows(folder: Path) -> list[Row]:
    """Raises UserError for a line that is not a row."""
    path = folder / run_folder.ROWS_FILE
    rows = []
    for number, line in enumerate(run_folder.read_lines(path), 1):
        try:
            ci95, notes = line.pop("ci95"), line.pop("notes")
            rows.append(Row(**line, ci95=tuple(ci95) if ci95 else None, notes=tuple(notes)))
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}:{number}: not a row of this version of Heed ({error})") from error
    return rows


def drop_rows(folder: Path, systems: Collection[str]) -> None:
    """Remove what these systems measured on something that is no longer there."""
    rows = read_rows(folder)
    if any(row.system in systems for row in rows):
        kept = [asdict(row) for row in rows if row.system not in systems]
        run_folder.write_lines(folder / run_folder.ROWS_FILE, kept)


def write_rows(folder: Path, rows: Iterable[Row]) -> None:
    """Put the rows into the folder's rows.jsonl, each in place of an earlier row with its key."""
    merged = {row.key: row for row in (*read_rows(folder), *rows)}
    run_folder.write_lines(folder / run_folder.ROWS_FILE, [asdict(row) for row in merged.values()])
