from heed.answers.responses import Answer
from heed.measure.clusters import clusters_of, clusters_text

LONG = "Write down, in one full sentence and without any further words, which animal is kept on"


def answer(row: int, instruction: str, output: str = "yes", **rest: object) -> Answer:
    return Answer(row_id=row, instruction=instruction, input="", output=output, model_response="", **rest)  # type: ignore[arg-type]


def test_rows_that_ask_the_same_or_nearly_repeat_each_other_are_drawn_together() -> None:
    answers = [
        answer(3, f"{LONG} farm 7."),
        answer(5, "What is the capital of Italy?", "Rome."),
        answer(7, f"{LONG} farm 8."),
        answer(8, "what is the  capital of Italy?", "The capital of Italy is Rome, a city on the river Tiber."),
        answer(9, "What is the capital of Spain?", "Madrid."),
        answer(10, f"{LONG} farm 9."),
    ]

    clusters = clusters_of(answers, None)

    assert clusters == {3: 0, 5: 1, 7: 0, 8: 1, 9: 4, 10: 0}
    assert clusters_text(clusters, None) == (
        "6 rows count as 3 in the intervals: some ask the same, or nearly repeat each other."
    )


def test_a_field_may_say_what_is_drawn_together_and_earlier_turns_are_part_of_a_question() -> None:
    answers = [answer(row, f"Question {row}", "same" if row < 2 else "other") for row in range(3)]
    by_field = clusters_of(answers, "output")

    assert clusters_of(answers, None) is None and clusters_text(None, None) is None
    assert clusters_text(by_field, "output") == "3 rows count as 2 in the intervals: some have the same output."
    turns = [({"role": "user", "content": text},) for text in ("Speak of cats.", "Speak of the old town hall.")]
    assert clusters_of([answer(row, "More?", str(row), history=turn) for row, turn in enumerate(turns)], None) is None
