from pathlib import Path

import pytest

from heed.errors import UserError
from heed.judge.agreement import Opinion, agreement, read_people
from heed.judge.summary import score_text
from heed.measure.alpha import krippendorff_alpha


def test_agreement_has_the_values_one_gets_by_hand() -> None:
    # values 1 1 2 2 3 4: the mean square within units is 1/3, between all values 82/30
    ours: Opinion = {("m", "0"): 1.0, ("m", "1"): 2.0, ("m", "2"): 3.0, ("m", "9"): 50.0}
    theirs: Opinion = {("m", "0"): 1.0, ("m", "1"): 2.0, ("m", "2"): 4.0}
    found = agreement(ours, theirs, a="judge", b="people", on="scores")
    assert found == {
        "a": "judge",
        "b": "people",
        "on": "scores",
        "n": 3,
        "spearman": pytest.approx(1.0),
        "krippendorff_alpha": pytest.approx(1 - (1 / 3) / (82 / 30)),
        "mean_absolute_error": pytest.approx(1 / 3),
        "bias": pytest.approx(-1 / 3),
    }


def test_alpha_falls_when_one_side_is_stricter_though_the_ranks_are_the_same() -> None:
    assert krippendorff_alpha([10, 50, 90], [10, 50, 90]) == pytest.approx(1.0)
    stricter = krippendorff_alpha([10, 50, 90], [0, 10, 30])
    assert stricter is not None and stricter < 0.5


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [2.0]), ([5.0, 5.0], [5.0, 5.0])])
def test_too_little_to_compare_gives_no_number(ours: list[float], theirs: list[float]) -> None:
    def units(values: list[float]) -> dict[tuple[str, ...], float]:
        return {("m", str(row)): value for row, value in enumerate(values)}

    found = agreement(units(ours), units(theirs), a="x", b="y", on="scores")
    assert (found["spearman"], found["krippendorff_alpha"]) == (None, None)
    assert found["n"] == len(ours)


def test_scores_and_votes_of_people_are_read_and_several_voices_count_with_their_mean(tmp_path: Path) -> None:
    path = tmp_path / "people.jsonl"
    path.write_text(
        '{"row_id": 3, "name": "tuned", "score": 80}\n'
        '{"row_id": 3, "name": "tuned", "score": 60}\n'
        '{"a": "base", "b": "tuned", "row_id": 3, "winner": "b", "voter": "ann"}\n'
        '{"a": "tuned", "b": "base", "row_id": 3, "winner": "b", "voter": "bob"}\n'
        '{"a": "base", "b": "tuned", "row_id": 4, "winner": "both_bad", "voter": "ann"}\n'
        '{"a": "base", "b": "tuned", "row_id": null, "winner": "a", "voter": "ann"}\n'
    )
    said: list[str] = []
    scores, outcomes = read_people(path, say=said.append)
    assert said == [f"{path}: 1 vote on questions that people typed left out: they belong to no row"]
    assert scores == {("tuned", "3"): 70.0}
    assert outcomes == {("base", "tuned", "3"): 0.5, ("base", "tuned", "4"): 0.5}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"row_id": 3, "name": "tuned", "score": 101}', "score 101 is not from 0 to 100"),
        ('{"row_id": 3, "score": 50}', "KeyError: 'name'"),
        ('{"a": "x", "b": "y", "row_id": 3, "winner": "z"}', "KeyError: 'z'"),
        ("[1]", "expected a score"),
        ("85", "expected a score"),
        ("{", "expected a score"),
        ("[" * 10_000, "too many brackets within brackets"),
        ("\0\0", "NUL bytes"),
    ],
)
def test_a_line_that_is_neither_score_nor_vote_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "people.jsonl"
    path.write_text(f'{{"row_id": 3, "name": "tuned", "score": 80}}\n{line}\n')
    with pytest.raises(UserError, match=rf"people\.jsonl:2: .*{message}"):
        read_people(path)


def test_a_file_of_people_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl: cannot be read"):
        read_people(tmp_path / "none.jsonl")


def test_a_mean_that_people_correct_is_shown_beside_the_judges_own() -> None:
    scores = {"mean": 84.0, "ci95": (82.0, 86.0), "n": 400, "failures": {}, "withheld": False}
    assert score_text(scores | {"corrected": None}) == " 84.0 [82.0, 86.0] on 400 rows, 0 failed"
    assert score_text(scores | {"corrected": {"mean": 71.0, "ci95": (66.0, 77.0), "n": 60}}) == (
        " 84.0 [82.0, 86.0] on 400 rows, 0 failed; corrected 71.0 [66.0, 77.0] by people's scores of 60 rows"
    )
