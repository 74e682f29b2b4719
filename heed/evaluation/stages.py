"""What was asked of which models, and everything that follows from their answers without loading them again.

An evaluation folder is a run folder or any other. `evaluation.json` says what lies there; the stages read each other's
files: answers, then numbers (items.jsonl, rows.jsonl, comparison.json), verdicts (judge.jsonl), exports.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from heed.answers.exports import write_alpaca_eval, write_messages
from heed.answers.responses import Answer, read_responses
from heed.audit.flags import read_flags, was_compared
from heed.errors import UserError
from heed.files import run_folder
from heed.files.hashes import file_sha256
from heed.judge.judging import (
    SUMMARY_FILE,
    VERDICTS_FILE,
    JudgeSettings,
    answers_hash,
    group,
    judge_responses,
    judged_answers,
)
from heed.judge.summary import judge_rows
from heed.judge.verdicts import Item
from heed.measure.comparison import Comparison, System, compare, comparison_rows, write_comparison
from heed.measure.measurements import ITEMS_FILE, Measurement, as_rows, make_items, mean_measurement, write_items
from heed.measure.metrics import Metric, measure
from heed.measure.rows import Row, drop_rows, write_rows
from heed.runs.finished import find_run
from heed.saying import Say

EVALUATION_FILE = "evaluation.json"
STOPS_FILE = "stops.jsonl"
STOP_METRICS = ("p_eos", "premature_eos", "cut")
"""How answers end, apart from what they say: rows of the system "stop"."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One model and where its answers lie. What a file of another tool does not say is None."""

    model: str
    revision: str | None
    responses: str
    """The file's name in the evaluation folder, or a path."""
    responses_sha256: str
    contract: str | None
    """SHA-256 of the template it was asked with."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """evaluation.json. The model that is evaluated is the last of `systems`; the one before it is compared with it."""

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

    @property
    def what(self) -> str:
        return f"{self.split} rows of {self.data}" if self.split else self.data

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
    run_folder.write_json(folder / EVALUATION_FILE, asdict(evaluation))


def read_evaluation(folder: Path) -> Evaluation:
    """Raises UserError where nothing was answered yet, or answers are not the ones it tells of."""
    path = folder / EVALUATION_FILE
    if not path.is_file():
        raise UserError(
            f"{folder} holds no answers ({EVALUATION_FILE} is missing); run eval_responses.py generate first"
        )
    value = run_folder.read_json(path)
    try:
        systems = {name: Asked(**asked) for name, asked in value.pop("systems").items()}
        evaluation = Evaluation(systems=systems, **value)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not an evaluation of this version of Heed ({error})") from error
    for asked in systems.values():
        file = folder / asked.responses
        if not file.is_file() or file_sha256(file) != asked.responses_sha256:
            state = "has changed" if file.is_file() else "is gone"
            raise UserError(f"{file} {state} since it was written down in {path}; run eval_responses.py generate again")
    return evaluation


def read_answers(folder: Path, evaluation: Evaluation, say: Say) -> dict[str, list[Answer]]:
    return {name: read_responses(folder / asked.responses, say=say) for name, asked in evaluation.systems.items()}


def discard_earlier(folder: Path, evaluation: Evaluation, answers: Mapping[str, Sequence[Answer]], say: Say) -> None:
    """Take away what was measured of earlier answers, and judged of other ones: beside the new it would mislead.

    Benchmarks stay, and the judge's replies in its cache.
    """
    for file in (ITEMS_FILE, run_folder.COMPARISON_FILE):
        (folder / file).unlink(missing_ok=True)
    drop_rows(folder, ("metrics", "stop", "comparison"))
    asked_here = evaluation.engine not in (None, "endpoint")
    keep_stops(folder, {name for name, asked in evaluation.systems.items() if asked_here and asked.contract})
    earlier = judged_answers(folder)
    if earlier is not None and earlier != answers_hash(group(judged_items(answers))):
        say("judge: what was said here was about other answers and is taken away; its replies stay in the cache")
        (folder / VERDICTS_FILE).unlink(missing_ok=True)
        (folder / SUMMARY_FILE).unlink()
        drop_rows(folder, ("judge",))


def rows_sha256(answers: Sequence[Answer]) -> str:
    rows = sorted((each.row_id, each.system_prompt, each.instruction, each.input, each.output) for each in answers)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


# ---- numbers


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Of each system, and of the one evaluated against the other, if there is one."""

    measurements: dict[str, list[Measurement]]
    clean: dict[str, list[Measurement]]
    """The same without the rows that training gave away; empty where there are none."""
    comparison: Comparison | None


def score(
    folder: Path,
    evaluation: Evaluation,
    metrics: dict[str, Metric],
    *,
    seen_rows: frozenset[int],
    say: Say,
) -> Scores:
    """Measure all answers, compare the two systems, and write items.jsonl, rows.jsonl and comparison.json.

    `seen_rows` are those that training rows gave away, as the audit found: all is measured again without them.
    """
    answers = read_answers(folder, evaluation, say)
    stops = read_stops(folder)
    found = {}
    for name, given in answers.items():
        say(f"measuring {len(given):,} answers of {name}")  # ROUGE-L of long ones takes minutes
        found[name] = [*measure(metrics, given), *stop_measurements(stops.get(name, {}), given)]
    clean: dict[str, list[Measurement]] = {}
    rows: list[Row] = []
    for name, measurements in found.items():
        rows += measurement_rows(evaluation, name, measurements, evaluation.what)
        kept = [each for each in answers[name] if each.row_id not in seen_rows]
        if 0 < len(kept) < len(answers[name]):
            clean[name] = measure(metrics, kept)
            rows += measurement_rows(
                evaluation, name, clean[name], f"{evaluation.what}, those given away in training left out"
            )
    comparison = None
    if evaluation.other is not None:
        a, b = (
            System(
                name=name,
                answers=answers[name],
                measurements=found[name],
                contract=evaluation.systems[name].contract,
            )
            for name in (evaluation.other, evaluation.evaluated)
        )
        comparison = compare(a, b)
        write_comparison(folder, comparison)
        provenance = evaluation.provenance(evaluation.evaluated)
        rows += comparison_rows(comparison, task=evaluation.what, n_full=evaluation.n_full, **provenance)
    items = [
        item
        for name, given in answers.items()
        for item in make_items(name, [each.row_id for each in given], found[name])
    ]
    write_items(folder, items)
    write_rows(folder, rows)
    return Scores(measurements=found, clean=clean, comparison=comparison)


def measurement_rows(evaluation: Evaluation, name: str, measurements: Sequence[Measurement], task: str) -> list[Row]:
    return [
        row
        for each in measurements
        for row in as_rows(
            [each],
            system="stop" if each.metric in STOP_METRICS else "metrics",
            task=task,
            name=name,
            n_full=evaluation.n_full,
            **evaluation.provenance(name),
        )
    ]


GIVEN_AWAY = {"split_overlap", "near_split_overlap", "contaminated"}


def rows_given_away(evaluation: Evaluation, say: Say) -> frozenset[int]:
    """Rows whose question, nearly at least, stood in the training rows of the run that is evaluated.

    The audit of the run knows its own splits, and the files it was told to compare with (audit_against).
    """
    run = find_run(evaluation.systems[evaluation.evaluated].model)
    if run is None:
        return frozenset()
    data = None if evaluation.split is not None else evaluation.data
    if data is not None and not Path(data).is_file():
        return frozenset()
    if not was_compared(run, data):
        if data is not None:
            say(f"nobody looked whether {data} is among the training rows of {run} (audit_against: [{data}])")
        return frozenset()
    return frozenset(row_id for row_id, flags in read_flags(run, data).items() if GIVEN_AWAY & set(flags))


Stops = dict[str, dict[int, dict[str, float | None]]]


def write_stops(folder: Path, name: str, row_ids: Sequence[int], measurements: Sequence[Measurement]) -> None:
    """Keep what only the model could tell: how likely it is to stop where each reference ends."""
    stops = read_stops(folder)
    by_metric = {each.metric: each.items or () for each in measurements}
    stops[name] = {
        row_id: {metric: items[place] for metric, items in by_metric.items()} for place, row_id in enumerate(row_ids)
    }
    save_stops(folder, stops)


def read_stops(folder: Path) -> Stops:
    path = folder / STOPS_FILE
    stops: Stops = {}
    for line in run_folder.read_lines(path) if path.is_file() else []:
        stops.setdefault(line.pop("name"), {})[line.pop("row_id")] = line
    return stops


def keep_stops(folder: Path, names: Collection[str]) -> None:
    """Take away those of systems that were not asked here."""
    stops = read_stops(folder)
    if stops.keys() - names:
        save_stops(folder, {name: stops[name] for name in stops if name in names})


def save_stops(folder: Path, stops: Stops) -> None:
    lines = [
        {"name": name, "row_id": row_id, **values} for name, rows in stops.items() for row_id, values in rows.items()
    ]
    run_folder.write_lines(folder / STOPS_FILE, lines)


def stop_measurements(stops: Mapping[int, Mapping[str, float | None]], answers: Sequence[Answer]) -> list[Measurement]:
    """Nothing for answers that were not written here, by this model to these rows."""
    if any(answer.row_id not in stops for answer in answers):
        return []
    found = {metric: [stops[answer.row_id][metric] for answer in answers] for metric in ("p_eos", "premature_eos")}
    return [
        mean_measurement("p_eos", found["p_eos"]),
        mean_measurement("premature_eos", found["premature_eos"], better="lower"),
    ]


# ---- verdicts and exports


def judge(
    folder: Path, evaluation: Evaluation, settings: JudgeSettings, *, people: Path | None, say: Say
) -> dict[str, Any]:
    """Let a judge read all answers; returns what judge_summary.json holds."""
    items = judged_items(read_answers(folder, evaluation, say))
    summary = judge_responses(items, settings, folder, people=people, say=say)
    provenance = {name: evaluation.provenance(name) for name in evaluation.systems}
    write_rows(folder, [row for entry in summary["judges"] for row in judge_rows(entry, provenance)])
    return summary


def judged_items(answers: Mapping[str, Sequence[Answer]]) -> list[Item]:
    return [
        Item(
            name=name,
            row_id=answer.row_id,
            instruction=answer.instruction,
            input=answer.input,
            output=answer.output,
            model_response=answer.model_response,
        )
        for name, given in answers.items()
        for answer in given
    ]


def export(folder: Path, evaluation: Evaluation, say: Say) -> list[Path]:
    """The evaluated model's answers for AlpacaEval, and as conversations."""
    name = evaluation.evaluated
    answers = read_answers(folder, evaluation, say)[name]
    generator = evaluation.systems[name].model
    return [
        write_alpaca_eval(folder, answers, generator=generator, dataset=evaluation.what),
        write_messages(folder, answers),
    ]


# ---- for the terminal


def scores_text(evaluation: Evaluation, scores: Scores) -> str:
    """A line for each metric: a system each, with its interval, then the paired difference."""
    names = list(evaluation.systems)
    by_name = {name: {each.metric: each for each in found} for name, found in scores.measurements.items()}
    lines = [f"\n{evaluation.n} {evaluation.what}, mean [95 % interval]"]
    width = max(len(metric) for metric in by_name[names[-1]])
    lines.append(f"  {'':<{width}}  " + "  ".join(f"{name:<24}" for name in names).rstrip())
    for metric, found in by_name[names[-1]].items():
        cells = [f"{cell(by_name[name].get(metric)):<24}" for name in names]
        lines.append(f"  {metric:<{width}}  {'  '.join(cells)}  {difference_text(scores.comparison, found)}".rstrip())
        lines += [f"  {'':<{width}}  ({note})" for note in found.notes]
    if scores.clean:
        first = next(iter(scores.measurements[names[-1]])).metric
        kept = {name: next(each for each in found if each.metric == first) for name, found in scores.clean.items()}
        shown = ", ".join(f"{name} {each.value:.3f} (n = {each.n})" for name, each in kept.items())
        lines.append(f"  {first} without the rows that training rows give away: {shown}")
    return "\n".join(lines)


def cell(found: Measurement | None) -> str:
    if found is None or found.value is None:
        return "not measured"
    form = decimals(found)
    interval = f" [{found.ci95[0]:{form}}, {found.ci95[1]:{form}}]" if found.ci95 else ""
    return f"{found.value:{form}}{interval}"


def decimals(found: Measurement) -> str:
    return ".1f" if found.scale > 1 else ".3f"


def difference_text(comparison: Comparison | None, measured: Measurement) -> str:
    if comparison is None or measured.metric not in comparison.metrics:
        return ""
    found, form = comparison.metrics[measured.metric], decimals(measured)
    text = f"{found.difference:+{form}}"
    if found.ci95 is not None:
        text += f" [{found.ci95[0]:+{form}}, {found.ci95[1]:+{form}}]"
    if found.wins is not None:
        text += f"  {found.wins} better, {found.losses} worse"
    return text
