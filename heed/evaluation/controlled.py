"""How good the answers to controls are, by the metric of the headline: rows of the system "controls"."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from heed.evaluation.controls import reasons
from heed.evaluation.kept import Answers, Evaluation, refuse_changed
from heed.files import run_folder
from heed.measure.clusters import Clusters
from heed.measure.intervals import SHARE, mean_estimate, paired_difference
from heed.measure.measurements import Measurement
from heed.measure.metrics import Metric, composed
from heed.measure.rows import Row, drop_rows, measured, write_rows
from heed.measure.verdict import LEVEL
from heed.saying import Say

REWORDINGS = ("case", "polite", "paraphrases")
FOR_A_JUDGE = ("rougeL", "token_f1")
"""What takes the place of a judge, who is not asked about controls."""
NOTHING = {"value": None, "ci95": None, "n": 0}
SHOWN = ("row_id", "instruction", "input", "output", "model_response")


def score_controls(
    folder: Path,
    evaluation: Evaluation,
    answers: Answers,
    metrics: Mapping[str, Metric],
    *,
    clusters: Clusters | None,
    say: Say,
) -> list[Row]:
    """Each kind of control as a row of rows.jsonl; none where nothing was asked, or no metric scores single answers."""
    drop_rows(folder, ("controls",))
    if evaluation.controls_sha256 is None:
        return []
    file = folder / run_folder.CONTROLS_FILE
    refuse_changed(file, evaluation.controls_sha256, folder / run_folder.EVALUATION_FILE)
    kept = run_folder.read_json(file)
    asked, given = kept["answers"], {each.row_id: each for each in answers[evaluation.evaluated]}
    row_ids = list(dict.fromkeys(each["row_id"] for each in asked))
    foreign = [each for each in asked if each["control"] == "foreign"]
    texts = [(given[row].model_response, given[row].output) for row in row_ids]
    texts += [(each["model_response"], each["output"]) for each in asked]
    texts += [(each["instead"], each["output"]) for each in foreign]
    found = by_answer(metrics, evaluation.headline_metric, texts)
    if found is None:
        say("controls: none of the metrics scores each answer, so they say nothing")
        return []
    scores = [float(item or 0.0) for item in found.items or ()]
    own = dict(zip(row_ids, scores, strict=False))
    scored = list(zip(asked, scores[len(own) :], strict=False))
    chance = {each["row_id"]: score for each, score in zip(foreign, scores[len(own) + len(asked) :], strict=True)}
    clusters = clusters or {row: row for row in own}
    common = {
        "system": "controls",
        "metric": found.metric,
        "name": evaluation.evaluated,
        "n_full": evaluation.n_full,
        "library": found.library,
        **evaluation.provenance(evaluation.evaluated),
    }
    rows = []
    nothing: dict[str, dict[int, float]] = {kind: {} for kind in kept["left_out"]}
    for kind, by_row in (nothing | measures(own, scored, scale=found.scale)).items():
        within = SHARE if kind == "consistency" else found.within
        of_kind = [(each, score) for each, score in scored if each["control"] == kind]
        details: dict[str, Any] = {"better": "neither", "own": mean(own[row] for row in by_row) if by_row else None}
        if of_kind:
            most_telling = min if kind in REWORDINGS else max
            example, score = most_telling(of_kind, key=lambda each: each[1])
            details |= {"example": {name: example[name] for name in SHOWN} | {"score": score}, "answers": len(of_kind)}
        if kind == "foreign" and by_row:
            details["habit"] = is_habit(by_row, own, chance, found, clusters)
        values, groups = list(by_row.values()), [clusters[row] for row in by_row]
        value = measured(mean_estimate(values, within=within, clusters=groups)) if values else NOTHING
        rows.append(
            Row(
                **common,
                task=kind,
                **value,
                chance=mean(chance.values()) if kind == "foreign" and by_row else None,
                seconds=round(sum(each["seconds"] or 0.0 for each, _ in of_kind), 3),
                notes=tuple(reasons(kept["left_out"].get(kind, {}))),
                details=details,
            )
        )
    write_rows(folder, rows)
    return rows


def by_answer(
    metrics: Mapping[str, Metric], headline: str | None, texts: Sequence[tuple[str, str]]
) -> Measurement | None:
    """What the headline's metric, or else the first one that scores each answer, says of (response, reference)."""
    responses, references = ([composed(pair[side]) for pair in texts] for side in (0, 1))
    for name in sorted(metrics, key=lambda name: (name != headline, name not in FOR_A_JUDGE)):
        for found in metrics[name](responses, references) if texts else ():
            if found.better == "higher" and found.items is not None and None not in found.items:
                return found
    return None


def measures(
    own: Mapping[int, float], scored: Sequence[tuple[Mapping[str, Any], float]], *, scale: float
) -> dict[str, dict[int, float]]:
    """Kind -> row -> its score, the mean where a kind asks it several times; then all rewordings of a row together."""
    of: dict[str, dict[int, list[float]]] = {}
    for each, score in scored:
        of.setdefault(each["control"], {}).setdefault(each["row_id"], []).append(score)
    again = {row: [score for kind in REWORDINGS for score in of.get(kind, {}).get(row, ())] for row in own}
    wordings = {row: [own[row], *scores] for row, scores in again.items() if scores}
    found = {"own": dict(own)}
    found |= {kind: {row: mean(scores) for row, scores in by_row.items()} for kind, by_row in of.items()}
    if wordings:
        found["reworded"] = {row: mean(scores[1:]) for row, scores in wordings.items()}
        found["worst_wording"] = {row: min(scores) for row, scores in wordings.items()}
        found["consistency"] = {row: 1 - (max(scores) - min(scores)) / scale for row, scores in wordings.items()}
    return found


def is_habit(
    foreign: Mapping[int, float],
    own: Mapping[int, float],
    chance: Mapping[int, float],
    found: Measurement,
    clusters: Clusters,
) -> bool | None:
    """Whether more than half of what their own instruction gains over chance is left under a foreign one; None where
    the rows do not show it. Chance is the score of a right answer to the foreign instruction."""
    half = [(own[row] + chance[row]) / 2 for row in foreign]
    left = paired_difference(
        list(foreign.values()), half, within=found.within, clusters=[clusters[row] for row in foreign]
    )
    return None if left.p is None or left.p >= LEVEL else left.value > 0
