from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heed.answers.copies import COPIED
from heed.answers.responses import Answer
from heed.measure.comparison import Difference
from heed.report.alarms import alarms
from heed.report.evidence import Evidence, read_evidence
from heed.report.measured import Measured, measured
from heed.report.notices import notices_text
from heed.report.results import Result, Value

REFERENCES = [f"the answer to question {number} is known" for number in range(10)]


def answers(texts: Sequence[str], references: Sequence[str] = REFERENCES, **rest: Any) -> dict[int, Answer]:
    pairs = enumerate(zip(texts, references, strict=True))
    return {
        row: Answer(row_id=row, instruction="?", input="", output=wanted, model_response=said, **rest)
        for row, (said, wanted) in pairs
    }


@pytest.fixture
def quiet(tmp_path: Path) -> Evidence:
    """Ten rows on which base is wrong and tuned is right."""
    responses = {"base": answers([f"who knows {number}" for number in range(10)]), "tuned": answers(REFERENCES)}
    return replace(read_evidence(tmp_path), names=["base", "tuned"], responses=responses)


def said(evidence: Evidence) -> list[str]:
    return notices_text(evidence, measured(evidence))


def with_tuned(evidence: Evidence, tuned: dict[int, Answer]) -> Evidence:
    return replace(evidence, responses=evidence.responses | {"tuned": tuned})


def test_answers_that_are_as_they_should_be_raise_no_alarm(quiet: Evidence) -> None:
    assert said(quiet) == []


def test_answers_equal_to_the_bases_are_an_alarm(quiet: Evidence) -> None:
    same = [each.model_response + " " for each in list(quiet.responses["base"].values())[:6]]

    assert said(with_tuned(quiet, answers([*same, *REFERENCES[6:]]))) == [
        "! Most answers are those of base: tuned and base say the very same on 6 of 10 rows."
    ]


def test_one_answer_to_many_questions_is_an_alarm_unless_the_references_repeat_like_that(quiet: Evidence) -> None:
    assert said(with_tuned(quiet, answers([*["the answer to everything"] * 5, *REFERENCES[5:]]))) == [
        "! One answer to many questions: tuned says “the answer to everything” on 5 of 10 rows; no reference is on "
        "more than 1."
    ]
    yes_and_no = ["yes"] * 5 + ["no"] * 5
    assert said(with_tuned(quiet, answers(["yes"] * 6 + ["no"] * 4, yes_and_no))) == []
    assert len(said(with_tuned(quiet, answers(["yes"] * 10, yes_and_no)))) == 1


def test_copied_cut_and_collapsed_answers_are_an_alarm(quiet: Evidence) -> None:
    tuned = quiet.responses["tuned"]
    flagged = {row: replace(each, flags=(COPIED,) if row < 2 else ()) for row, each in tuned.items()}
    assert said(with_tuned(quiet, flagged)) == [
        "! Answers are copied from training rows: 2 of 10 answers of tuned are word for word the response of a "
        "training row, and not the reference."
    ]
    cut = {row: replace(each, finish_reason="length" if row < 2 else "stop") for row, each in tuned.items()}
    assert said(with_tuned(quiet, cut)) == [
        "! Answers end at the length limit: 2 of 10 answers of tuned were cut by max_new_tokens."
    ]
    assert said(with_tuned(quiet, answers([f"no {number}" for number in range(10)]))) == [
        "! Answers have collapsed: Half of the 10 answers of tuned have at most 4 characters, half of the references "
        "at least 33."
    ]


def test_a_validation_loss_that_only_rose_is_an_alarm(quiet: Evidence) -> None:
    losses = [{"step": step, "eval_loss": loss, "eval_rows": 75} for step, loss in ((0, 2.0), (10, 2.5), (20, 2.25))]

    assert said(replace(quiet, losses=losses)) == [
        "! Validation loss was lowest before step 1: It was 2.000 then and 2.250 at its best later, after step 20 "
        "(75 rows)."
    ]
    assert said(replace(quiet, losses=[*losses, {"step": 30, "eval_loss": 1.9, "eval_rows": 75}])) == []


def result(metric: str, difference: float, ci95: tuple[float, float], **rest: Any) -> Result:
    compared = Difference(
        a=0, b=difference, difference=difference, ci95=ci95, n=10, wins=0, ties=0, losses=0, better="higher"
    )
    value = Value(name="tuned", value=0.55, ci95=(0.5, 0.6), n=200)
    return Result(
        system="metrics",
        task="boolq",
        metric=metric,
        values=[value],
        difference=compared,
        higher_is_better=True,
        **rest,
    )


NOTHING = Measured(metrics=[], stops=[], plain=[], parts=[], judged=[], benchmarks=[], primary=None)


def test_a_judge_and_exact_match_that_disagree_are_an_alarm(quiet: Evidence) -> None:
    exact, judge = result("exact_match", 0.3, (0.1, 0.5)), result("Score by llama3", -4, (-9, 1))
    found = replace(NOTHING, metrics=[exact], judged=[judge])

    assert alarms(quiet, found) == [
        (
            "The judge and exact match disagree",
            "Score by llama3 changes by −4.000 (no clear difference, n = 10), exact match changes by +0.300 (better, "
            "n = 10).",
        )
    ]
    agreeing = replace(found, judged=[result("Score by llama3", 4, (-1, 9))])
    assert alarms(quiet, agreeing) == []


def test_a_benchmark_below_a_constant_answer_is_an_alarm(quiet: Evidence) -> None:
    below = result("acc", 0, (0, 0), commonest=0.62)

    assert alarms(quiet, replace(NOTHING, benchmarks=[below])) == [
        (
            "boolq is below a constant answer",
            "tuned has acc 0.550 (0.500 to 0.600) on 200 items; always answering the commonest class has 0.620.",
        )
    ]
    assert alarms(quiet, replace(NOTHING, benchmarks=[replace(below, commonest=0.5)])) == []
