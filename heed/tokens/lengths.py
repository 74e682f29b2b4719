"""What becomes of an answer that, with what comes before it, is longer than the model can read."""

from typing import Literal

from heed.prompts.template import Encoded

OnLongRow = Literal["error", "drop", "cut_prompt", "cut_response"]
Outcome = Literal["whole", "cut_prompt", "cut_response", "too_long"]


def fit(encoded: Encoded, *, max_length: int, on_long_row: OnLongRow) -> tuple[Encoded, Outcome]:
    """Bring one answer and its prompt to at most `max_length` ids, by the policy; "too_long" says it cannot be used.

    A cut prompt loses its beginning. A cut response loses its end and with it the token that stops: a model must not
    learn to stop in the middle of a sentence. What leaves no token to read, or none to learn, is too long to cut.
    """
    [(start, end)] = encoded.spans
    surplus = end - max_length
    if surplus <= 0:
        return encoded, "whole"
    if on_long_row == "cut_prompt" and surplus < start:
        return Encoded(encoded.input_ids[surplus:], [(start - surplus, end - surplus)]), "cut_prompt"
    if on_long_row == "cut_response" and surplus < end - start:
        return Encoded(encoded.input_ids[:-surplus], [(start, end - surplus)]), "cut_response"
    return encoded, "too_long"
