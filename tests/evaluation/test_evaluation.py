import json
from dataclasses import replace
from pathlib import Path

import pytest

from heed.config import EvalConfig
from heed.errors import UserError
from heed.evaluation.kept import Asked, Evaluation, read_answers, read_evaluation, write_evaluation
from heed.evaluation.run import headline_metric
from heed.evaluation.scores import Scores, best_first, rows_given_away, score
from heed.evaluation.terminal import scores_text
from heed.files.hashes import file_sha256
from heed.judge.settings import JudgeSettings
from heed.measure.metrics import load_metrics
from heed.measure.rows import read_rows


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    """Of a run whose first two of four answers are right."""
    rows = [
        {"instruction": f"Say {word}.", "input": "", "output": word, "model_response": said, "row_id": number}
        for number, (word, said) in enumerate([("one", "one"), ("two", "two"), ("three", "no"), ("four", "no")])
    ]
    file = tmp_path / "responses.json"
    file.write_text(json.dumps(rows))
    asked = Asked(
        model=str(tmp_path), revision=None, responses=file.name, responses_sha256=file_sha256(file), contract="c0ffee"
    )
    (tmp_path / "run.json").write_text('{"status": "done"}')
    return Evaluation(
        heed="0.1.0",
        systems={"tuned": asked},
        data="rows.json",
        split="test",
        data_sha256="ab12",
        n=4,
        n_full=4,
        limit=None,
        prompt="alpaca",
        contract="c0ffee",
        engine="batch",
        max_new_tokens=5,
        versions={},
        command="python eval_responses.py",
        time="2026-11-22T00:00:00+0000",
        seconds=1.0,
        device="cpu",
    )


def test_an_evaluation_comes_back_as_it_was_written(tmp_path: Path, evaluation: Evaluation) -> None:
    write_evaluation(tmp_path, evaluation)

    assert read_evaluation(tmp_path) == evaluation


def scored(folder: Path, evaluation: Evaluation, seen_rows: frozenset[int]) -> Scores:
    answers = read_answers(folder, evaluation, print)
    return score(folder, evaluation, answers, load_metrics(["exact_match"]), seen_rows=seen_rows, say=print)[1]


def test_rows_that_training_gave_away_are_left_out_of_a_second_measurement(
    tmp_path: Path, evaluation: Evaluation
) -> None:
    flags = {"0": ["split_overlap"], "1": ["near_split_overlap"], "2": ["odd_length"], "9": ["contaminated"]}
    (tmp_path / "row_flags.json").write_text(json.dumps({"rows": flags, "against": {}}))

    seen = rows_given_away(evaluation, print)
    scores = scored(tmp_path, evaluation, seen)

    assert seen == {0, 1, 9}
    assert scores_text(evaluation, scores).startswith("\n4 test rows of rows.json, mean [95 % interval]\n")
    assert replace(evaluation, n=1, split=None).rows == "1 row of rows.json"
    assert [(row.task, row.value, row.n) for row in read_rows(tmp_path) if row.metric == "exact_match"] == [
        ("test rows of rows.json", 0.5, 4),
        ("test rows of rows.json, those given away in training left out", 0.0, 2),
    ]
    assert (
        "exact_match without the rows that training rows give away: tuned 0.000 [0.000, 0.842] (n = 2)"
        in scores_text(evaluation, scores)
    )


def test_a_run_that_was_not_audited_has_one_measurement(tmp_path: Path, evaluation: Evaluation) -> None:
    assert rows_given_away(evaluation, print) == frozenset()
    assert not scored(tmp_path, evaluation, frozenset()).clean


def test_answers_that_are_gone_are_named(tmp_path: Path, evaluation: Evaluation) -> None:
    write_evaluation(tmp_path, evaluation)
    (tmp_path / "responses.json").unlink()

    with pytest.raises(UserError, match=r"responses\.json is gone since it was written down in .*evaluation\.json"):
        read_evaluation(tmp_path)


def test_of_two_ways_to_ask_the_base_the_better_one_is_compared(evaluation: Evaluation) -> None:
    [asked] = evaluation.systems.values()
    systems = {"base": asked, "base (own template)": replace(asked, own_template=True), "tuned": asked}
    asked_fairly = replace(evaluation, systems=systems)

    better = best_first(asked_fairly, {"base": 0.2, "base (own template)": 0.4, "tuned": 0.9})
    assert (better.other, better.evaluated) == ("base (own template)", "tuned")
    assert best_first(better, {"base": 0.4, "base (own template)": 0.4}).other == "base"
    assert best_first(better, {"base": 0.1}).other == "base"


def test_the_headline_is_named_before_anything_is_measured_and_must_be_measured() -> None:
    metrics = load_metrics(["token_f1", "exact_match"])
    judging = JudgeSettings(backend="ollama", model="llama3")
    assert headline_metric(EvalConfig(), metrics, None) == "exact_match"
    assert headline_metric(EvalConfig(), load_metrics(["token_f1"]), None) == "token_f1"
    assert headline_metric(EvalConfig(), metrics, judging) == "judge_score"
    assert headline_metric(EvalConfig(headline_metric="token_f1"), metrics, judging) == "token_f1"
    with pytest.raises(
        UserError, match="headline_metric: judge_score is not measured here; take one of token_f1, exact_match"
    ):
        headline_metric(EvalConfig(headline_metric="judge_score"), metrics, None)
