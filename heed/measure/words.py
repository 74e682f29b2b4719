"""Texts as metrics read them: word by word, empty or not."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import chain
from typing import TypeVar

Texts = Sequence[str]
Unit = TypeVar("Unit")


def word_by_word(look: Callable[[str], Iterable[Unit]]) -> Callable[[str], list[Unit]]:
    """The same for whole texts, for what does not see beyond white space: it looks at each word once."""
    once = cache(lambda word: tuple(look(word)))
    return lambda text: list(chain.from_iterable(map(once, text.split())))


def settled(responses: Texts, references: Texts, scores: Iterable[float], *, best: float) -> list[float]:
    """The scores, but settled for empty texts, where libraries differ: both empty is the best, one of them 0."""
    return [
        score if response.strip() and reference.strip() else best * (response.strip() == reference.strip())
        for response, reference, score in zip(responses, references, scores, strict=True)
    ]
