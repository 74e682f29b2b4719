"""What becomes of an example that is longer than the model can read."""

from typing import Literal

from heed.prompts.template import Encoded

Outcome = Literal["whole", "cut_prompt", "cut_response", "too_long"]


def fit(
    encoded: Encoded, *, max_length: int, on_long_row: Literal["error", "drop", "cut_prompt", "cut_response"]
) -> tuple[Encoded, Outcome]:
    """Bring an example to at most `max_length` ids, by the policy; "too_long" says that it cannot be used.

    A cut prompt loses its beginning. A cut response loses its end and with it EOS: a model must not learn to stop
    in the middle of a sentence. What leaves no token to read, or none to learn, is too long to cut.
    """
    prompt_ids, response_ids = encoded
    surplus = len(prompt_ids) + len(response_ids) - max_length
    if surplus <= 0:
        return encoded, "whole"
    if on_long_row == "cut_prompt" and surplus < len(prompt_ids):
        return Encoded(prompt_ids[surplus:], response_ids), "cut_prompt"
    if on_long_row == "cut_response" and surplus < len(response_ids):
        return Encoded(prompt_ids, response_ids[:-surplus]), "cut_response"
    return encoded, "too_long"
