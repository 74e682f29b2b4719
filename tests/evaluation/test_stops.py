from heed.answers.responses import Answer
from heed.evaluation.stops import kept_measurements


def test_rows_without_a_stop_metric_are_counted_by_reason() -> None:
    answers = [Answer(row_id=row, instruction="?", input="", output="x", model_response="x") for row in range(3)]
    known: dict[str, float | None] = {"p_eos": 0.5, "premature_eos": 0.0, "reference_likelihood": 0.25}
    cut: dict[str, float | None] = known | {"p_eos": None, "premature_eos": None}
    stops = {0: known, 1: cut, 2: dict.fromkeys(known, None)}

    p_eos, premature, likelihood = kept_measurements(stops, answers)

    too_long = "no number: the reference of 1 row is longer than the model's positions"
    assert p_eos.notes[:2] == ("no number: the reference of 1 row was cut, so it has no end", too_long)
    assert (p_eos.n, premature.notes[:2], likelihood.n, likelihood.notes) == (1, p_eos.notes[:2], 2, (too_long,))
    assert kept_measurements({0: known}, answers) == []
