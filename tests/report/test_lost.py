from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heed.answers.responses import Answer
from heed.report.alarms import alarms
from heed.report.evidence import Evidence, read_evidence
from heed.report.lost import Lost, losses_text, lost
from heed.report.measured import measured
from heed.report.outcomes import worse

VALUES: dict[str, dict[int, dict[str, float]]] = {
    "base": {
        0: {"contains": 1, "token_f1": 0.2},
        1: {"contains": 0, "reference_likelihood": 0.8},
        2: {"contains": 0},
        3: {"contains": 1},
    },
    "tuned": {
        0: {"contains": 0, "token_f1": 0.6},
        1: {"contains": 0, "reference_likelihood": 0.3},
        2: {"contains": 0},
        3: {"contains": 1},
    },
}


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    answers = {
        row: Answer(row_id=row, instruction=f"Question {row}", input="", output="x", model_response="y")
        for row in range(4)
    }
    loss: dict[str, Any] = {"row_id": 3, "metric": "token_f1", "a": 0.9, "b": 0.1}
    return replace(
        read_evidence(tmp_path),
        names=["base", "tuned"],
        responses=dict.fromkeys(VALUES, answers),
        items=VALUES,
        verdicts=[
            {"kind": "score", "control": None, "judge": "llama3", "prompt": "rubric", "name": name, "row_id": 2}
            | {"score": score, "failure": None}
            for name, score in (("base", 90), ("tuned", 20))
        ],
        comparison={"a": "base", "b": "tuned", "metrics": {}, "worse": [loss], "notes": []},
    )


def test_rows_that_the_base_had_right_come_first_in_what_got_worse_even_where_wording_rose(evidence: Evidence) -> None:
    assert lost(evidence) == [
        Lost(row_id=0, measure="Contains the reference", before=1, after=0),
        Lost(row_id=1, measure="Likelihood of the reference", before=0.8, after=0.3),
        Lost(row_id=2, measure="Score by llama3", before=90, after=20),
    ]
    assert [(each.row_id, each.lost) for each in worse(evidence)] == [(0, True), (1, True), (2, True), (3, False)]
    assert losses_text(evidence, measured(evidence)) == [
        "3 of 4 rows are right with base and wrong with tuned, by “contains the reference” or “likelihood of the "
        "reference” or “Score by llama3”."
    ]


def difference(a: float, b: float, ci95: tuple[float, float], n: int = 12) -> dict[str, Any]:
    gone = {"wins": 0, "ties": 0, "losses": 0, "better": "higher", "p": None, "p_adjusted": None}
    return {"a": a, "b": b, "difference": b - a, "ci95": ci95, "n": n} | gone


def test_a_gain_that_is_mostly_length_is_an_alarm_and_any_other_a_sentence(evidence: Evidence) -> None:
    matched = {"metric": "exact_match", "cut": difference(0.5, 0.75, (-0.1, 0.5)), "cut_answers": [9, 0]}
    length = matched | {"share": 0.25, "alike": difference(0.5, 0.5, (-0.4, 0.4), n=6)}
    comparison: dict[str, Any] = {"a": "base", "b": "tuned", "worse": [], "notes": [], "length": length}
    comparison |= {"metrics": {"exact_match": difference(0, 1, (0.7, 1))}}
    mostly = replace(evidence, comparison=comparison, items={}, verdicts=[])
    sentence = (
        "With lengths matched (9 answers of base and 0 of tuned are cut to the other's length or the reference's), "
        "exact match is 0.750 against 0.500: +0.250 (−0.100 to +0.500), no clear difference, which is 25 % of the "
        "difference. On the 6 rows whose answers are about equally long it is 0.000 (−0.400 to +0.400), equal."
    )

    assert alarms(mostly, measured(mostly)) == [("Most of the gain is length or form", sentence)]
    assert losses_text(mostly, measured(mostly)) == []
    whole = replace(mostly, comparison=comparison | {"length": length | {"share": 0.75}})
    assert (
        losses_text(whole, measured(whole)) == [sentence.replace("25 %", "75 %")]
        and alarms(whole, measured(whole)) == []
    )
