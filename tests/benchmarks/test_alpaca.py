"""AlpacaEval with a judge that prefers a word: the rates are then known by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("alpaca_eval", reason="make benchmarks-setup installs alpaca_eval")

from faults.harness import free_port
from heed.answers.responses import Answer
from heed.benchmarks import alpaca, scores
from heed.benchmarks.asking import Outcome
from heed.benchmarks.scores import estimate
from heed.errors import UserError
from world.stub_annotator import stub_judge

# Of four answers the model has the better one three times.
ROWS = [
    Answer(row_id=n, instruction=f"Say something, {n}.", input="", output=reference, model_response=response)
    for n, (response, reference) in enumerate(
        [("splendid", "dull"), ("splendid", "grey"), ("dull", "splendid"), ("splendid", "flat")]
    )
]


def win_rates(tmp_path: Path, url: str, *, logprobs: bool = True, rows: list[Answer] = ROWS) -> Outcome:
    return alpaca.win_rates(
        rows,
        alpaca.references(rows),
        {"model": "m"},
        judge=alpaca.Judge(model="stub", base_url=url, logprobs=logprobs),
        name="tuned",
        task="alpaca_method",
        n_full=4,
        folder=tmp_path / "alpaca",
        data_root=None,
    )


def swapped() -> list[Answer]:
    return [replace(row, output=row.model_response, model_response=row.output) for row in ROWS]


def test_the_better_answers_win_and_swapped_sides_give_the_rest(tmp_path: Path) -> None:
    with stub_judge("splendid") as (url, requests):
        [score] = win_rates(tmp_path / "a", url).scores
        [other] = win_rates(tmp_path / "b", url, rows=swapped()).scores
    # The judge is sure by 0.9, so a win counts 0.9 and a loss 0.1: (0.9 * 3 + 0.1) / 4.
    assert score.metric == "win_rate" and score.value == pytest.approx(0.7)
    assert score.pooled == pytest.approx([0.9, 0.9, 0.1, 0.9]) and score.chance == 0.5
    assert other.value == pytest.approx(1 - 0.7)
    assert scores.difference(score, other, None) is None  # not against the same references
    assert len(requests) == 8 and requests[0]["model"] == "stub" and requests[0]["top_logprobs"] == 5


def test_a_judge_without_probabilities_ranks_in_words(tmp_path: Path) -> None:
    with stub_judge("splendid") as (url, _):
        [score] = win_rates(tmp_path, url, logprobs=False).scores
    assert score.pooled == [1.0, 1.0, 0.0, 1.0] and score.value == 0.75


def test_verdicts_are_asked_for_once_and_no_key_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with stub_judge("splendid") as (url, requests):
        assert win_rates(tmp_path, url).scores == win_rates(tmp_path, url).scores
    assert len(requests) == 4
    texts = [path.read_text() for path in (tmp_path / "alpaca").iterdir()]
    assert texts and not any("sk-secret" in text for text in texts)


def test_a_judge_that_does_not_answer_gives_no_number(tmp_path: Path) -> None:
    with stub_judge("splendid", silent=True) as (url, _), pytest.raises(UserError, match="no verdict on 4 of 4"):
        win_rates(tmp_path, url, logprobs=False)


def test_a_missing_judge_is_noticed_before_any_model_is_asked() -> None:
    absent = alpaca.Judge(model="stub", base_url=f"http://127.0.0.1:{free_port()}/v1", logprobs=True)
    with pytest.raises(
        UserError, match=r"judge_model: stub at http://127\.0\.0\.1:\d+/v1 does not answer \(.*[Cc]onnect"
    ):
        alpaca.refuse_silent(absent)
    with stub_judge("splendid") as (url, requests):
        alpaca.refuse_silent(alpaca.Judge(model="stub", base_url=url, logprobs=True))
    assert len(requests) == 1


def test_answers_equal_to_the_reference_are_ties_and_reported_as_such(tmp_path: Path) -> None:
    same = [replace(row, model_response=row.output) for row in ROWS]
    with stub_judge("splendid") as (url, requests):
        outcome = win_rates(tmp_path, url, rows=same)
    assert (outcome.scores[0].value, requests) == (0.5, [])
    assert "4 of 4 answers are the reference word for word: ties, not judged" in outcome.notes


@pytest.mark.slow
def test_length_control_is_for_the_805_instructions_only(tmp_path: Path) -> None:
    root = tmp_path / "hub"
    (root / "tatsu-lab" / "alpaca_eval").mkdir(parents=True)
    lines = ["index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline,model"]
    lines += [f"{n},{n % 2},{(n % 7) / 7 - 0.5},{(n % 5) / 5 - 0.4},{n % 3 == 0},gamed" for n in range(805)]
    (root / "tatsu-lab" / "alpaca_eval" / "df_gamed.csv").write_text("\n".join(lines))
    reference = [{"instruction": f"Do {n}.", "output": "dull" * (n % 4), "generator": "gpt4"} for n in range(805)]
    (root / "tatsu-lab" / "alpaca_eval" / alpaca.INSTRUCTIONS).write_text(json.dumps(reference))
    read = alpaca.read_reference(root)
    records = alpaca.instruction_records(read)
    answers = [
        Answer(row_id=n, instruction=row.instruction, input="", output=row.output, model_response="splendid" * (n % 3))
        for n, row in enumerate(records)
    ]
    found = {}
    with stub_judge("splendid") as (url, _):
        for count in (805, 30):
            outcome = alpaca.win_rates(
                answers[:count],
                read[:count],
                {"model": "m"},
                judge=alpaca.Judge(model="stub", base_url=url, logprobs=True),
                name="tuned",
                task="alpaca_eval",
                n_full=805,
                folder=tmp_path / str(count),
                data_root=root,
            )
            found[count] = ([score.metric for score in outcome.scores], outcome.notes)
            if count == 805:
                controlled = estimate(outcome.scores[1], None)
                assert controlled.n == 805 and controlled.ci95 is not None
                assert controlled.ci95[0] < controlled.value < controlled.ci95[1]
    assert found[805][0] == ["win_rate", "length_controlled_winrate"]
    assert found[30][0] == ["win_rate"]
    assert "no length-controlled rate: it is defined for all 805 instructions together" in found[30][1]
