import pytest

from heed.judge.parsing import Verdict, read_reply

SCORES: list[tuple[str, float | None, str]] = [
    # the JSON that was asked for
    ('{"reasoning": "Right.", "score": 85}', 85, "schema"),
    ('{"score": 0}', 0, "schema"),
    ('{"score": 100, "reasoning": "As good as the reference."}', 100, "schema"),
    ('{"reasoning": "It says {\\"score\\": 3}.", "score": 40}', 40, "schema"),
    (' \n{"score": 85.0}\n', 85, "schema"),
    ('{"score": "85"}', 85, "schema"),
    ('{"score": "85/100"}', 85, "schema"),
    ('<think>Between 60 and 80?</think>{"score": 70}', 70, "schema"),
    ('It is 60 or so.</think>\n{"score": 70}', 70, "schema"),
    # JSON somewhere in the text
    ('```json\n{"reasoning": "Right.", "score": 85}\n```', 85, "json"),
    ('Here is my verdict: {"score": 12}. I hope this helps!', 12, "json"),
    ('The answer has 3 of 4 points. {"score": 75}', 75, "json"),
    ('{"score": 50}\n{"score": 50}', 50, "json"),
    ('{"score": 50}\n{"score": 90}', None, "ambiguous"),
    ('{"score": 50, "score": 90}', None, "ambiguous"),
    ('{"score": 85.5}', None, "out_of_range"),
    ('{"score": 150}', None, "out_of_range"),
    ('{"score": -5}', None, "out_of_range"),
    ('{"score": true}', None, "out_of_range"),
    ('{"score": null}', None, "out_of_range"),
    ('{"score": "high"}', None, "out_of_range"),
    ('{"score": [85]}', None, "out_of_range"),
    ('{"score": "7/10"}', None, "out_of_range"),
    ('{"rating": 85}', 85, "number"),
    ('{"confidence": 85}', None, "garbage"),
    # one number that can only be the score
    ("85", 85, "number"),
    ("  85.\n", 85, "number"),
    ("85.0", 85, "number"),
    ("**85**", 85, "number"),
    ("0", 0, "number"),
    ("100", 100, "number"),
    ("85/100", 85, "number"),
    ("I give it 85 out of 100.", 85, "number"),
    ("Score: 85", 85, "number"),
    ("**Score:** `85`", 85, "number"),
    ("My rating of the answer is 85.", 85, "number"),
    ("I would score the model response as a 60, since it is half right.", 60, "number"),
    ("On a scale from 0 to 100, I would score this response 40.", 40, "number"),
    ("70\n\nThe response is mostly right.", 70, "number"),
    ('{"reasoning": "no end", "score": 85', 85, "number"),
    # numbers that are not, or not surely
    ("85.5", None, "out_of_range"),
    ("150", None, "out_of_range"),
    ("-5", None, "out_of_range"),
    ("1,000", None, "out_of_range"),
    ("7 out of 10", None, "ambiguous"),
    ("7/10", None, "ambiguous"),
    ("Score: 8/10", None, "ambiguous"),
    ("85 %", None, "ambiguous"),
    ("Between 60 and 80", None, "ambiguous"),
    ("60-80", None, "ambiguous"),
    ("Score: 85 (confidence: 9)", None, "ambiguous"),
    ("Score: 85. There are 2 errors.", None, "ambiguous"),
    ("There are 3 errors in the answer.", None, "garbage"),
    ("The answer scores badly, since 3 facts are wrong.", None, "garbage"),
    ("A score from 0 to 100 cannot be given.", None, "garbage"),
    ("3 errors were found.", None, "garbage"),
    ("eighty-five", None, "garbage"),
    ("٨٥", None, "out_of_range"),
    ("Score: GPT4 would say so", None, "garbage"),
    ("I cannot judge this.", None, "garbage"),
    ("", None, "empty"),
    (" \n ", None, "empty"),
    ("<think>A score of 85 seems right", None, "empty"),
]
WINNERS: list[tuple[str, str | None, str]] = [
    ('{"reasoning": "Clearer.", "winner": "A"}', "A", "schema"),
    ('{"winner": "b"}', "B", "schema"),
    ('So: {"winner": "tie"}', "tie", "json"),
    ('{"winner": "A"} {"winner": "B"}', None, "ambiguous"),
    ('{"winner": "neither"}', None, "out_of_range"),
    ('{"winner": 1}', None, "out_of_range"),
    ("A", "A", "word"),
    ("[[B]]", "B", "word"),
    ("[[C]]", "tie", "word"),
    ("Winner: Answer B.", "B", "word"),
    ("**tie**", "tie", "word"),
    ("A good answer", None, "garbage"),
    ("A and B", None, "garbage"),
    ("Both have merits.", None, "garbage"),
]


@pytest.mark.parametrize(("reply", "score", "how"), SCORES)
def test_a_score_is_read_or_refused_with_a_reason_but_never_guessed(reply: str, score: float | None, how: str) -> None:
    verdict = read_reply(reply, "score")
    assert (verdict.value, verdict.how or verdict.failure) == (score, how)


@pytest.mark.parametrize(("reply", "winner", "how"), WINNERS)
def test_a_winner_is_read_or_refused_with_a_reason(reply: str, winner: str | None, how: str) -> None:
    verdict = read_reply(reply, "pair")
    assert (verdict.value, verdict.how or verdict.failure) == (winner, how)


def test_the_reasoning_is_kept() -> None:
    expected = Verdict(value=85, reason="Right.", how="schema")
    assert read_reply('{"reasoning": " Right. ", "score": 85}', "score") == expected


def test_a_long_reply_of_braces_is_read_in_time() -> None:
    assert read_reply("{" * 20_000, "score").failure == "garbage"
