"""How far two judges agree, or a judge and people: on scores, or on which of two answers is better."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from heed.errors import UserError
from heed.files.lines import parse
from heed.judge.pairs import WORTH, both_orders, outcome
from heed.judge.scores import spearman
from heed.judge.verdicts import PairVerdict, ScoreVerdict
from heed.measure.alpha import krippendorff_alpha
from heed.saying import Say, count

Unit = tuple[str, ...]
"""What was judged: (name, row) for a score, (a, b, row) for a pair."""
Opinion = dict[Unit, float]


def agreement(ours: Mapping[Unit, float], theirs: Mapping[Unit, float], *, a: str, b: str, on: str) -> dict[str, Any]:
    """Numbers over what both have judged; None where too little or nothing but one value was given.

    `bias` is how much higher a judges on average. Krippendorff's alpha is for interval data; it is 1 for full agreement
    and 0 for chance, and unlike a correlation it falls when one side is stricter.
    """
    units = [unit for unit in ours if unit in theirs]
    xs, ys = [ours[unit] for unit in units], [theirs[unit] for unit in units]
    differences = [x - y for x, y in zip(xs, ys, strict=True)]
    return {
        "a": a,
        "b": b,
        "on": on,
        "n": len(units),
        "spearman": spearman(xs, ys),
        "krippendorff_alpha": krippendorff_alpha(xs, ys),
        "mean_absolute_error": mean(map(abs, differences)) if units else None,
        "bias": mean(differences) if units else None,
    }


def scores_of(verdicts: Sequence[ScoreVerdict]) -> Opinion:
    return {
        (verdict.name, str(verdict.row_id)): verdict.score
        for verdict in verdicts
        if verdict.score is not None and verdict.control is None
    }


def outcomes_of(verdicts: Sequence[PairVerdict]) -> Opinion:
    found = {}
    for one, other in both_orders([verdict for verdict in verdicts if verdict.control is None]):
        if (won := outcome(one, other)) is not None:
            unit, worth = pair_unit(one.a, one.b, one.row_id, WORTH[won])
            found[unit] = worth
    return found


def pair_unit(a: str, b: str, row_id: object, worth: float) -> tuple[Unit, float]:
    """A pair with its names in alphabetical order, so that (tuned, base) is (base, tuned) the other way round: 1 where
    the later name won, 0 where the earlier did, 0.5 for a tie."""
    return ((a, b, str(row_id)), worth) if a <= b else ((b, a, str(row_id)), 1.0 - worth)


def read_people(path: Path, *, say: Say = print) -> tuple[Opinion, Opinion]:
    """Scores and outcomes that people gave: lines {row_id, name, score}, or votes {a, b, row_id, winner, voter}.

    Several voices on the same count with their mean. The arena's votes on questions that somebody typed belong to no
    row; `say` is told how many are left out. Raises UserError naming a line that is neither.
    """
    scores: dict[Unit, list[float]] = {}
    outcomes: dict[Unit, list[float]] = {}
    try:
        lines = path.read_bytes().rstrip(b"\n").split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    typed = 0
    for number, line in enumerate(lines, 1):
        try:
            value = parse(line)
            if value["row_id"] is None:
                typed += 1
            elif "score" in value:
                score = float(value["score"])
                if not 0 <= score <= 100:
                    raise ValueError(f"score {score:g} is not from 0 to 100")
                scores.setdefault((str(value["name"]), str(value["row_id"])), []).append(score)
            else:
                unit, worth = vote(value)
                outcomes.setdefault(unit, []).append(worth)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}:{number}: expected a score {{row_id, name, score}} or a vote {{a, b, row_id, winner, voter}} "
                f"({type(error).__name__}: {error})"
            ) from error
    if typed:
        say(f"{path}: {count(typed, 'vote')} on questions that people typed left out: they belong to no row")
    return means(scores), means(outcomes)


def means(given: Mapping[Unit, Sequence[float]]) -> Opinion:
    return {unit: mean(values) for unit, values in given.items()}


def vote(value: Mapping[str, Any]) -> tuple[Unit, float]:
    """`winner` is "a", "b" or "tie"; "both_bad" counts as a tie."""
    worth = {"a": 0.0, "b": 1.0, "tie": 0.5, "both_bad": 0.5}[value["winner"]]
    return pair_unit(str(value["a"]), str(value["b"]), value["row_id"], worth)
