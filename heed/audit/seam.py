"""Where the answer begins: whether prompt and answer would merge into other tokens there."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from heed.prompts.template import Prompt

SEAM = 3  # tokens on either side of where the answer begins


def merges(prompt: Prompt, before: Sequence[int], answer: Sequence[int]) -> bool:
    """Whether the tokens at the seam would be others if prompt and answer were tokenized together."""
    head = tuple(token for token in answer[:SEAM] if token != prompt.eos_token_id)
    return seam_merges(prompt.tokenizer, tuple(before[-SEAM:]), head)


@lru_cache(maxsize=100_000)
def seam_merges(tokenizer: Any, tail: tuple[int, ...], head: tuple[int, ...]) -> bool:
    before, after = (str(tokenizer.decode(list(ids))) for ids in (tail, head))
    if "\ufffd" in before + after:  # half a letter: decoded alone it would be another text
        return False

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    return encode(before + after) != encode(before) + encode(after)
