"""Each answer alone: a score from 0 to 100 against the reference, and what the scores of a system add up to."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from heed.judge.asking import Asker
from heed.judge.controls import Control
from heed.judge.prompts import JudgePrompt
from heed.judge.verdicts import JudgedAnswer, ScoreVerdict, how_it_came
from heed.measure.correction import corrected_mean
from heed.measure.intervals import PERCENT, mean_estimate

MOST_FAILURES = 0.05
"""Share of failures above which a mean is withheld: the rows that could not be judged may be unlike the others."""


def judge_scores(
    items: Sequence[JudgedAnswer],
    controls: Sequence[Control],
    prompt: JudgePrompt,
    asker: Asker,
    *,
    on_done: Callable[[], object] = lambda: None,
) -> list[ScoreVerdict]:
    """A verdict for every control and then for every item, in their order: whatever stops a judge, it was checked."""
    judged: list[tuple[JudgedAnswer, str | None]] = [(control.item, control.kind) for control in controls]
    judged += [(item, None) for item in items]
    questions = [prompt.ask({**item.asked, "response": item.model_response}) for item, _ in judged]
    return [
        ScoreVerdict(
            judge=asker.judge,
            prompt=prompt.name,
            name=item.name,
            row_id=item.row_id,
            control=control,
            score=asked.verdict.value if isinstance(asked.verdict.value, int | float) else None,
            **how_it_came(asked),
        )
        for (item, control), asked in zip(judged, asker.ask_all(questions, on_done=on_done), strict=True)
    ]


def score_summary(
    verdicts: Sequence[ScoreVerdict], people: Mapping[tuple[str, ...], float] | None = None
) -> dict[str, Any]:
    """Mean and interval of one system's scores, over the rows that have one; withheld when too many have none.

    `people` has their scores by (system, row): where there are enough, the mean is given corrected by them, too.
    """
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    failures = Counter(verdict.failure for verdict in verdicts if verdict.score is None)
    rate = sum(failures.values()) / len(verdicts)
    withheld = rate > MOST_FAILURES
    estimate = mean_estimate(scores, within=PERCENT) if scores and not withheld else None
    both = [
        (verdict.score, people[unit])
        for verdict in verdicts
        if people and verdict.score is not None and (unit := (verdict.name, str(verdict.row_id))) in people
    ]
    corrected = corrected_mean(scores, both) if estimate else None
    return {
        "mean": estimate.value if estimate else None,
        "ci95": estimate.ci95 if estimate else None,
        "n": len(scores),
        "n_full": len(verdicts),
        "failures": dict(failures),
        "failure_rate": rate,
        "withheld": withheld,
        "corrected": {"mean": corrected.value, "ci95": corrected.ci95, "n": corrected.n} if corrected else None,
    }


def length_correlation(items: Sequence[JudgedAnswer], verdicts: Sequence[ScoreVerdict]) -> float | None:
    """Spearman's correlation of score and length in characters; None for fewer than three scores, or all alike.

    A judge should reward what is right. Where long answers are not better, a high value says that it rewards length.
    """
    pairs = [
        (verdict.score, len(item.model_response))
        for item, verdict in zip(items, verdicts, strict=True)
        if verdict.score is not None
    ]
    return spearman([score for score, _ in pairs], [length for _, length in pairs])


def spearman(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Rank correlation; None where it is undefined: fewer than three values, or all of a side alike."""
    if len(xs) < 3 or np.ptp(xs) == 0 or np.ptp(ys) == 0:
        return None
    return float(np.corrcoef(ranks(xs), ranks(ys))[0, 1])


def ranks(values: Sequence[float]) -> np.ndarray:
    """Equal values share the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]
