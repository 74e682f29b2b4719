"""Texts as metrics read them: word by word, empty or not."""

from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import TypeVar

Texts = Sequence[str]
Unit = TypeVar("Unit")
Part = TypeVar("Part")
Whole = TypeVar("Whole")


class Numbers(dict[str, int]):
    """Word -> its number, which is its place among all words that were seen."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        self.words.append(word)
        return number


numbers = Numbers()


@lru_cache(maxsize=1 << 15)  # of the same texts for several metrics, and of the references for several systems
def numbered(text: str) -> "array[int]":
    """The words of a text, equal words as equal numbers."""
    return array("I", map(numbers.__getitem__, text.split()))


def chained(parts: Iterable[Iterable[Unit]]) -> list[Unit]:
    return list(chain.from_iterable(parts))


def word_by_word(look: Callable[[str], Part], join: Callable[[Iterable[Part]], Whole]) -> Callable[[str], Whole]:
    """What `look` finds, for whole texts: it looks at each word once, so it must not see beyond white space."""
    found: list[Part] = []

    def joined(text: str) -> Whole:
        words = numbered(text)
        found.extend(map(look, numbers.words[len(found) :]))
        return join(map(found.__getitem__, words))

    return joined


def settled(responses: Texts, references: Texts, scores: Iterable[float], *, best: float) -> list[float]:
    """The scores, but settled for empty texts, where libraries differ: both empty is the best, one of them 0."""
    return [
        score if response.strip() and reference.strip() else best * (response.strip() == reference.strip())
        for response, reference, score in zip(responses, references, scores, strict=True)
    ]
