"""Answers that are taken from files, in our names or in those of the tool that wrote them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from heed.answers.responses import Answer, answer_rows, raw_answers, read_responses
from heed.config import EvalConfig
from heed.errors import UserError
from heed.files import run_folder
from heed.saying import Say


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What is taken of each system, the evaluated one last."""

    models: dict[str, str]
    files: dict[str, Path]
    renamed: dict[str, list[Answer]]
    """Answers that `columns` found: no other stage could read them as they are."""
    data: str
    n: int

    def files_for(self, folder: Path) -> dict[str, Path]:
        """The files that the other stages read; answers that `columns` found are written to the folder."""
        files = {name: file.resolve() for name, file in self.files.items()}
        for name, answers in self.renamed.items():
            files[name] = folder / f"responses_{name}.json"
            run_folder.write_json(files[name], answer_rows(answers))
        return files


def plan_taking(ours: EvalConfig, word: str | None, say: Say) -> Taken:
    """Raises UserError for files without answers, and for columns that are not there."""
    assert ours.responses is not None
    file = Path(ours.responses)
    refuse_absent(file)
    names = names_in(file)
    check_columns(file, names, ours.columns)
    models = {"model": ours.model_name_or_path or ours.columns.get("model_response", ours.responses)}
    files, columns = {"model": file}, {"model": ours.columns}
    if ours.compare_with is not None:
        other = Path(ours.compare_with)
        if other.is_file() or ours.compare_with not in names:
            refuse_absent(other)
            columns["other"] = {name: each for name, each in ours.columns.items() if each in names_in(other)}
        else:
            other, columns["other"] = file, {**ours.columns, "model_response": ours.compare_with}
        models, files = {"other": ours.compare_with} | models, {"other": other} | files
    elif word == "compare":
        raise UserError("compare_with is missing: name the file of answers to compare these with")
    renamed = {name: read_responses(files[name], columns=columns[name], say=say) for name in files if columns[name]}
    n = len(renamed["model"] if "model" in renamed else read_responses(file, say=lambda text: None))
    return Taken(models=models, files=files, renamed=renamed, data=ours.responses, n=n)


def refuse_absent(file: Path) -> None:
    if not file.is_file():
        raise UserError(f"{file}: no such file of answers")


def names_in(file: Path) -> set[str]:
    """The names of all fields in a file of answers; none if it is not a list of rows."""
    rows = raw_answers(file)
    return {name for row in rows if isinstance(row, dict) for name in row} if isinstance(rows, list) else set()


def check_columns(file: Path, names: set[str], columns: Mapping[str, str]) -> None:
    """Raises UserError for columns that are not there, and if one is needed to find the answers."""
    known, has = Answer.__dataclass_fields__, f"they have {', '.join(sorted(names))}"
    for ours, theirs in columns.items():
        if ours not in known:
            raise UserError(f"columns: {ours!r} is not a field of an answer; map {', '.join(known)} to your columns")
        if theirs not in names:
            raise UserError(f"columns: no row of {file} has {theirs!r}; {has}")
    others = sorted(names - set(known) - set(columns.values()))
    if others and "model_response" not in names | set(columns):
        advice = json.dumps({**columns, "model_response": others[0]})
        raise UserError(f"{file}: no row has model_response; {has}. Say which has the answers: --columns '{advice}'")
