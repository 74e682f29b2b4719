import subprocess
import sys

import pytest

from heed.answers.responses import Answer
from heed.errors import UserError
from heed.measure.measurements import Measurement
from heed.measure.metrics import (
    contains,
    describe,
    exact_match,
    load_metrics,
    mean,
    measure,
    normalized,
    normalized_exact_match,
    token_f1,
)
from world.small_world import ROOT


def answers(*texts: tuple[str, str], finish_reason: str | None = "stop") -> list[Answer]:
    return [
        Answer(
            row_id=number, instruction="?", input="", output=output, model_response=text, finish_reason=finish_reason
        )
        for number, (text, output) in enumerate(texts)
    ]


def found(measurements: list[Measurement]) -> dict[str, Measurement]:
    return {each.metric: each for each in measurements}


def test_exact_match_ignores_only_surrounding_white_space() -> None:
    assert exact_match(" It is blue.\n", "It is blue.") == 1.0
    assert exact_match("it is blue.", "It is blue.") == 0.0


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("The  Answer is: a (small) CAT!", "answer is small cat"),
        ("It's 3.5", "its 35"),
        ("Über die Brücke", "über die brücke"),
        ("A", "a"),  # SQuAD would leave nothing of these four, and take them for no answer
        ("The.", "the"),
        (" ?! ", "?!"),
        ("…", "…"),
        ("", ""),
        (" \n", ""),
    ],
)
def test_normalising_takes_case_punctuation_and_articles_away(text: str, wanted: str) -> None:
    assert normalized(text) == wanted


@pytest.mark.parametrize(
    "response, reference, exact, inside, f1",
    [
        ("The cat.", "a cat", 1, 1, 1),
        ("A black cat sat down", "black cat", 0, 1, 2 * 2 / 6),
        ("black sat cat", "black cat", 0, 0, 2 * 2 / 5),
        ("party", "art", 0, 0, 0),  # words, not letters
        ("cat cat cat", "cat", 0, 1, 2 * 1 / 4),
        ("", "cat", 0, 0, 0),
        ("cat", "", 0, 0, 0),  # an empty reference is not contained in everything
        ("", "", 1, 1, 1),
        (" ", "\n", 1, 1, 1),
        ("A", "", 0, 0, 0),
        ("A", "B", 0, 0, 0),
    ],
)
def test_words_are_compared_as_squad_does(response: str, reference: str, exact: int, inside: int, f1: float) -> None:
    assert normalized_exact_match(response, reference) == exact
    assert contains(response, reference) == inside
    assert token_f1(response, reference) == pytest.approx(f1)


def test_a_mean_of_nothing_is_refused() -> None:
    assert mean([1.0, 0.0]) == 0.5
    with pytest.raises(ValueError, match="no values"):
        mean([])
    with pytest.raises(UserError, match="no answers to measure"):
        measure(load_metrics(["exact_match"]), [])


def test_a_measurement_has_a_number_for_each_answer_and_an_interval() -> None:
    texts = [("yes", "yes"), ("no", "yes"), ("yes", "yes"), ("yes", "yes")]
    result = found(measure(load_metrics(["exact_match", "token_f1"]), answers(*texts)))
    exact = result["exact_match"]
    assert (exact.value, exact.n, exact.items) == (0.75, 4, (1.0, 0.0, 1.0, 1.0))
    assert exact.ci95 == pytest.approx((0.1941, 0.9937), abs=1e-4)
    assert (exact.better, exact.scale, exact.library) == ("higher", 1.0, "heed 0.1.0")
    assert list(result) == ["exact_match", "token_f1", "empty", "cut", "length_ratio", "distinct_1", "distinct_2"]


def test_answers_are_described_and_what_has_no_number_is_left_out() -> None:
    result = found(describe(answers(("a b a b", "x y"), (" ", "x"), ("one", ""))))
    assert result["empty"].items == (0.0, 1.0, 0.0)
    assert result["cut"].items == (0.0, 0.0, 0.0)
    assert result["length_ratio"].items == (2.0, 0.0, None)  # nothing is longer than an empty reference
    assert result["distinct_1"].items == (0.5, None, 1.0)
    assert result["distinct_2"].items == (2 / 3, None, None)
    assert (result["distinct_2"].value, result["distinct_2"].n, result["distinct_2"].ci95) == (2 / 3, 1, None)
    assert found(describe(answers(("a", "a"), finish_reason="length")))["cut"].value == 1.0


def test_answers_that_do_not_say_how_they_ended_do_not_count_as_complete() -> None:
    cut = found(describe(answers(("a", "a"), ("b", "b"), finish_reason=None)))["cut"]
    assert (cut.value, cut.ci95, cut.n) == (None, None, 0)
    assert cut.notes == ("2 answers do not say how they ended", "it has no value for any of these answers")


def test_an_unknown_metric_is_named_with_those_there_are() -> None:
    with pytest.raises(
        UserError,
        match=r"metrics: 'rougel' is not one of exact_match, normalized_exact_match, contains, token_f1, rougeL, chrf, "
        r"bleu, bertscore, evaluate:NAME_OR_FOLDER; did you mean rougeL\?",
    ):
        load_metrics(["exact_match", "rougel"])
    with pytest.raises(UserError, match="exact_match is named twice"):
        load_metrics(["exact_match", "exact_match"])
    with pytest.raises(UserError, match="bertscore_model: nothing reads it; add bertscore to metrics"):
        load_metrics(["exact_match"], bertscore_model="models/tiny-gpt2")


def test_measuring_never_imports_torch() -> None:
    program = (
        "import sys; from heed.answers import exports; from heed.measure import comparison, metrics\n"
        "from heed.answers.responses import Answer\n"
        "rows = [Answer(row_id=0, instruction='?', input='', output='a b', model_response='a b')]\n"
        "metrics.measure(metrics.load_metrics([*metrics.METRICS]), rows)\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_an_accent_is_the_same_letter_however_it_is_written() -> None:
    """A model whose tokenizer composes cannot write what the reference has: 'Cafe' and a combining accent."""
    metrics = load_metrics(["exact_match", "contains", "token_f1", "chrf", "bleu"])
    rows = answers(("Caf\u00e9 Vi\u1ec7t", "Cafe\u0301 Vie\u0323\u0302t"), ("same", "same"))
    result = found(measure(metrics, rows))
    assert [result[name].value for name in ("exact_match", "contains", "token_f1")] == [1.0, 1.0, 1.0]
    assert result["chrf"].value == pytest.approx(100.0)
