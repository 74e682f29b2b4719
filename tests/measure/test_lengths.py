from collections.abc import Sequence

from heed.answers.responses import Answer
from heed.measure.comparison import LengthMatched, System, compare
from heed.measure.lengths import are_alike, length, length_matched, trimmed
from heed.measure.measurements import Measurement
from heed.measure.metrics import load_metrics, measure


def answer(text: str, reference: str = "the capital is Rome", row: int = 0) -> Answer:
    return Answer(row_id=row, instruction="?", input="", output=reference, model_response=text)


def test_what_is_longer_than_both_the_other_answer_and_the_reference_is_cut() -> None:
    rambling = answer("the capital is Rome\nand then some more words")

    assert trimmed(rambling, answer("Rome")).model_response == "the capital is Rome"
    assert trimmed(rambling, answer("one two three four five six")).model_response == "the capital is Rome\nand then"
    assert trimmed(answer("the capital is Rome"), answer("Paris")).model_response == "the capital is Rome"
    assert (length("Rome is old"), length("\u7f57\u9a6c\u5f88\u8001"), length("")) == (3, 4, 0)
    assert are_alike(answer("a b c d"), answer("a b c")) and not are_alike(answer("a b c d"), answer("a b"))


def matched(base: list[str], tuned: list[str], metric: str) -> LengthMatched:
    a, b = (system(texts, metric) for texts in (base, tuned))
    return length_matched(a, b, load_metrics([metric])[metric], compare(a, b).metrics[metric], name=metric)


def system(texts: list[str], metric: str) -> System:
    answers = [answer(text, row=row) for row, text in enumerate(texts)]
    return System(name="x", answers=answers, measurements=measure(load_metrics([metric]), answers), contract="c0ffee")


def test_a_gain_that_is_only_an_earlier_end_is_gone_once_lengths_are_matched() -> None:
    found = matched(["the capital is Rome and so on"] * 12, ["the capital is Rome"] * 12, "exact_match")

    assert (found.cut.a, found.cut.b, found.share, found.cut_answers) == (1.0, 1.0, 0.0, (12, 0))
    assert found.alike is None


def test_a_gain_of_padding_is_gone_and_one_of_knowledge_stays() -> None:
    padded = matched(["it is Paris"] * 12, ["or Paris or Bonn or the capital is Rome"] * 12, "contains")
    assert (padded.share, padded.cut_answers) == (0.0, (0, 12))
    known = matched(["Paris"] * 12, ["the capital is Rome"] * 12, "exact_match")
    assert (known.share, known.cut_answers) == (1.0, (0, 0))
    alike = matched(["the capital is Paris"] * 6 + ["no"] * 6, ["the capital is Rome"] * 12, "exact_match").alike
    assert alike is not None and (alike.n, alike.difference) == (6, 1.0)


def test_answers_that_are_alike_in_length_are_not_scored_again() -> None:
    [(name, exact_match)] = load_metrics(["exact_match"]).items()
    scored: list[str] = []

    def metric(responses: Sequence[str], references: Sequence[str]) -> list[Measurement]:
        scored.extend(responses)
        return exact_match(responses, references)

    a, b = system(["the capital is Paris", "no"], name), system(["the capital is Rome"] * 2, name)
    found = length_matched(a, b, metric, compare(a, b).metrics[name], name=name)

    assert scored == ["the capital is Paris", "no", "the capital is Rome", "the capital is Rome"]
    assert found.alike is not None and (found.alike.n, found.alike.difference) == (1, 1.0)
