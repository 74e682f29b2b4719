"""Whether a model reads the instruction: what is asked for that, and what is concluded."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from heed.answers.partial import Response
from heed.answers.responses import Answer
from heed.config import EvalConfig
from heed.data.records import Message, Record
from heed.errors import UserError
from heed.evaluation.controlled import score_controls
from heed.evaluation.controls import Control, Controls, make_controls, read_rewordings, write_controls
from heed.evaluation.kept import Asked, Evaluation
from heed.files.hashes import file_sha256
from heed.measure.metrics import load_metrics
from heed.measure.rows import Row, read_rows
from heed.report.controls import controls_text, verdicts

ALL = EvalConfig().controls


def record(row_id: int, instruction: str, input: str, output: str) -> Record:
    turn: Message = {"role": "user", "content": instruction}
    if input:
        turn["input"] = input
    answer: Message = {"role": "assistant", "content": output}
    return Record(row_id=row_id, place=f"rows.json:{row_id}", messages=(turn, answer))


RECORDS = [
    record(0, "Give the plural of this.", "cat", "cats"),
    record(1, "Give the past tense.", "go", "went"),
    record(2, "Which colour does grass have?", "", "green"),
]


def asked(records: list[Record], **changes: Any) -> Controls:
    told: dict[str, Any] = {"kinds": ALL, "rows": 60, "rewordings": {}}
    return make_controls(records, **(told | changes))


def test_a_row_is_asked_with_another_instruction_without_input_and_in_other_words() -> None:
    of_first = {each.kind: each.record for each in asked(RECORDS).asked if each.record.row_id == 0}

    assert {kind: (each.instruction, each.input) for kind, each in of_first.items()} == {
        "foreign": ("Give the past tense.", "cat"),  # the one that comes with an input, too
        "no_input": ("Give the plural of this.", ""),
        "shuffled": ("Give this. the of plural", "cat"),
        "case": ("give the plural of this.", "cat"),
        "polite": ("Hello! Could you please help me with the following? Give the plural of this.", "cat"),
    }
    assert {each.output for each in of_first.values()} == {"cats"}
    assert [each.instead for each in asked(RECORDS).asked if each.kind == "foreign" and each.record.row_id == 0] == [
        "went"
    ]


def test_what_cannot_be_asked_of_a_row_is_counted_by_reason() -> None:
    same = [record(number, "翻译", "", word) for number, word in enumerate(("one", "two"))]
    found = asked(same)

    assert found.left_out == {
        "foreign": {"for which there is no other instruction": 2},
        "no_input": {"without an input": 2},
        "shuffled": {"whose words have no other order": 2},
        "case": {"whose letters have no case": 2},
    }
    short = found.fitting([True, False])
    assert short.left_out["polite"] == {"whose prompt would not fit the model's positions": 1}
    assert str(asked(RECORDS[2:], kinds=["case", "no_input"])) == (
        "controls, on 1 row: case 1, no_input not on 1 row without an input"
    )


def test_the_same_rows_are_chosen_in_whatever_order_they_come_and_those_with_rewordings_first() -> None:
    many = [record(number, f"Say {number}.", "", str(number)) for number in range(40)]

    def chosen(records: list[Record], **changes: Any) -> list[tuple[int, str]]:
        found = asked(records, rows=5, kinds=["foreign"], **changes)
        return [(each.record.row_id, each.record.instruction) for each in found.asked]

    assert chosen(many) == chosen(many[::-1]) and len(chosen(many)) == 5
    reworded = chosen(many, rewordings={"Say 7.": ["7, please.", "Write 7."]})
    assert [each for each in reworded if each[0] == 7][1:] == [(7, "7, please."), (7, "Write 7.")]


def test_history_stays_before_a_changed_question() -> None:
    earlier: tuple[Message, ...] = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    )
    talk = Record(row_id=0, place="rows.json:1", messages=(*earlier, *RECORDS[2].messages))
    [control] = asked([talk], kinds=["case"]).asked

    assert control.record.messages == (
        *earlier,
        {"role": "user", "content": "which colour does grass have?"},
        talk.messages[-1],
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", r"rewordings.jsonl:2: expected .*ValueError: not a JSON object"),
        ('{"instruction": "Give the past tense."}', r"rewordings.jsonl:2: .*KeyError: 'paraphrases'"),
        ('{"instruction": "Give the past tense.", "paraphrases": "Past?"}', r":2: .*'Past\?' is not a list of texts"),
        ('{"instruction": "Give the past tense.", "paraphrases": [""]}', r":2: .*\[''\] is not a list of texts"),
        ('{"instruction": 3, "paraphrases": ["Past?"]}', r":2: .*AttributeError"),
        ('{"instruction": "Sing!", "paraphrases": ["La"]}', r":2: no row that is answered has the instruction 'Sing!'"),
    ],
)
def test_a_line_that_is_not_a_rewording_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "rewordings.jsonl"
    good = json.dumps({"instruction": "Give the past tense.", "paraphrases": ["Past?"]})
    file.write_text(f"{good}\n{line}\n")

    with pytest.raises(UserError, match=message):
        read_rewordings(file, RECORDS)
    file.write_text(f"{good}\n{good}\n")
    assert read_rewordings(file, RECORDS) == {"Give the past tense.": ["Past?", "Past?"]}


# ---- what is concluded


def concluded(
    folder: Path,
    answers: dict[str, list[str]],
    references: list[str],
    instead: list[str],
    headline: str = "exact_match",
) -> list[Row]:
    """Rows of what was answered to each kind of control, row by row."""
    records = [record(row, f"Do {row}.", "it", reference) for row, reference in enumerate(references)]
    own = [
        Answer(row_id=each.row_id, instruction=each.instruction, input="it", output=each.output, model_response=text)
        for each, text in zip(records, answers["own"], strict=True)
    ]
    controls = [
        Control(kind=kind, record=each, instead=instead[each.row_id] if kind == "foreign" else None)
        for kind in answers
        if kind != "own"
        for each in records
    ]
    texts = [text for kind, given in answers.items() if kind != "own" for text in given]
    responses = [
        Response(text=text, finish_reason="stop", prompt_tokens=1, response_tokens=1, seconds=0.5) for text in texts
    ]
    write_controls(folder, Controls(asked=controls), responses)
    system = Asked(model="m", revision=None, responses="responses.json", responses_sha256="", contract=None)
    known: dict[str, Any] = dict.fromkeys(Evaluation.__dataclass_fields__, None)
    known |= {"systems": {"tuned": system}, "data": "rows.json", "data_sha256": "ab", "versions": {}, "command": ""}
    known |= {"n_full": 99, "headline_metric": headline}
    known["controls_sha256"] = file_sha256(folder / "responses_controls.json")
    return score_controls(
        folder, Evaluation(**known), {"tuned": own}, load_metrics(["token_f1", "exact_match"]), clusters=None, say=print
    )


def test_a_model_that_answers_from_habit_is_distinguished_from_one_that_reads(tmp_path: Path) -> None:
    right = [f"answer {row}" for row in range(20)]
    other = [f"other {row}" for row in range(20)]
    reads = concluded(tmp_path, {"own": right, "foreign": other}, right, other)
    habit = concluded(tmp_path, {"own": right, "foreign": [*right[:18], "no", "no"]}, right, other)
    unclear = concluded(tmp_path, {"own": ["no"] * 20, "foreign": other}, right, other)

    assert [list(verdicts(rows)) for rows in (reads, habit, unclear)] == [[False], [True], [None]]
    assert controls_text(habit) == (
        "\nRight with its own instruction 1.000 [0.832, 1.000], with a foreign one 0.900 [0.683, 0.988] "
        "(exact match, n = 20).\n  It answers from habit: with another row's instruction, more than half of what its "
        "own gains is left."
    )
    assert [asdict(row) for row in read_rows(tmp_path)] == [asdict(row) for row in unclear]  # the last that was scored


def test_an_answer_that_is_often_right_by_chance_is_not_a_habit(tmp_path: Path) -> None:
    references, instead = ["yes", "no"] * 40, ["yes", "yes", "no", "no"] * 20
    rows = concluded(tmp_path, {"own": references, "foreign": instead}, references, instead)

    foreign = next(row for row in rows if row.task == "foreign")
    assert (foreign.value, foreign.chance, list(verdicts(rows))) == (0.5, 0.5, [False])


def test_worst_wording_and_consistency_are_shown_beside_the_mean_of_all_wordings(tmp_path: Path) -> None:
    own = ["a", "b", "c", "d"]
    rows = concluded(tmp_path, {"own": own, "case": ["a", "b", "c", "x"], "polite": ["a", "x", "c", "x"]}, own, [])

    values = {row.task: row.value for row in rows}
    assert values == {
        "own": 1.0,
        "case": 0.75,
        "polite": 0.5,
        "reworded": 0.625,
        "worst_wording": 0.5,
        "consistency": 0.5,
    }
    polite = next(row for row in rows if row.task == "polite")
    assert polite.details["example"]["row_id"] == 1 and polite.seconds == 2.0  # the first that went wrong
    assert polite.n_full == 99 and verdicts(rows) == {}


def test_words_in_common_replace_a_judge_who_is_not_asked(tmp_path: Path) -> None:
    answers = {"own": ["a cat sits", "b"], "foreign": ["a cat", "c"]}
    rows = concluded(tmp_path, answers, ["a cat sits", "b"], ["x", "y"], headline="judge_score")

    assert {row.task: (row.metric, row.value) for row in rows}["own"] == ("token_f1", 1.0)
    assert controls_text(rows).startswith("\nToken F1 with its own instruction 1.000 [")
