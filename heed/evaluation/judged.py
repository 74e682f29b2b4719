"""Verdicts: what a language model as judge says of all answers (judge.jsonl, judge_summary.json)."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from heed.config import EvalConfig
from heed.errors import UserError
from heed.evaluation.kept import Answers, Evaluation
from heed.judge.judging import judge_responses
from heed.judge.settings import JudgeSettings
from heed.judge.summary import judge_rows
from heed.judge.verdicts import JudgedAnswer
from heed.measure.rows import write_rows
from heed.saying import Say


def judge_settings(ours: EvalConfig) -> JudgeSettings | None:
    if ours.judge_backend is None:
        return None
    if ours.judge_model is None:
        raise UserError(f"judge_model is missing: which model of {ours.judge_backend} is to judge?")
    if ours.judge_prices is not None and len(ours.judge_prices) != 2:
        raise UserError(f"judge_prices: {ours.judge_prices} is not [prompt, completion]")
    if ours.judge_max_cost is not None and ours.judge_prices is None:
        raise UserError("judge_max_cost: without judge_prices nobody knows what a request costs")
    return JudgeSettings(**{item.name: getattr(ours, f"judge_{item.name}") for item in fields(JudgeSettings)})


def judge(
    folder: Path,
    evaluation: Evaluation,
    answers: Answers,
    settings: JudgeSettings,
    *,
    people: Path | None,
    say: Say,
) -> dict[str, Any]:
    """Let a judge read all answers; returns the contents of judge_summary.json."""
    summary = judge_responses(judged_items(answers), settings, folder, people=people, say=say)
    provenance = {name: evaluation.provenance(name) for name in evaluation.systems}
    write_rows(folder, [row for entry in summary["judges"] for row in judge_rows(entry, provenance)])
    return summary


def judged_items(answers: Answers) -> list[JudgedAnswer]:
    return [
        JudgedAnswer(
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
