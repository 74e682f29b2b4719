"""BLEU and chrF: scores of all answers as one text, from what each of them adds to the counts."""

from array import array
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import Any

import numpy as np

from heed.measure.intervals import PERCENT, SMALLEST, SMALLEST_UNKNOWN, Estimate, resampled, together
from heed.measure.measurements import Measurement, library
from heed.measure.ngrams import in_common
from heed.measure.words import Texts, settled, word_by_word


@cache
def sacrebleu_metric(name: str) -> Any:
    from sacrebleu.metrics import BLEU, CHRF

    metric = BLEU() if name == "bleu" else CHRF()
    metric.num_refs = 1  # for its signature
    return metric


def corpus_score(name: str, responses: Texts, references: Texts) -> list[Measurement]:
    """The score of all answers as one text (no mean of sentences), 0 to 100, with sentence scores as items."""
    from sacrebleu.metrics import BLEU

    metric = sacrebleu_metric(name)
    statistics = corpus_statistics(name, responses, references)
    sentence = BLEU(effective_order=True) if name == "bleu" else metric
    scores = (float(sentence._compute_score_from_stats(counts).score) for counts in statistics.astype(int).tolist())
    notes: tuple[str, ...] = ()
    if name == "bleu" and not statistics[:, -1].any():
        notes = ("no answer has four words, so BLEU has nothing to count",)
    return [
        Measurement(
            metric=name,
            value=corpus_value(name, statistics),
            n=len(statistics),
            items=tuple(settled(responses, references, scores, best=100.0)),
            scale=100.0,
            within=PERCENT,
            library=library("sacrebleu"),
            notes=notes,
            details={"signature": str(metric.get_signature())},
            statistics=statistics,
        )
    ]


def corpus_statistics(name: str, responses: Texts, references: Texts) -> np.ndarray:
    """The counts of each answer that a corpus score is made of, shape (answers, counts), in sacrebleu's order."""
    units = bleu_words() if name == "bleu" else characters
    ours, theirs = ([np.frombuffer(units(text), dtype=np.uint32) for text in side] for side in (responses, references))
    longest = NGRAMS[name]
    both = in_common(ours, theirs, longest)
    lengths = [np.array([len(text) for text in side])[:, None] for side in (ours, theirs)]
    written, wanted = (np.maximum(each - np.arange(longest), 0) for each in lengths)
    if name == "bleu":
        return np.concatenate([*lengths, both, written], axis=1).astype(float)
    return np.stack([written * (wanted > 0), wanted, both], axis=2).reshape(len(both), -1).astype(float)


NGRAMS = {"bleu": 4, "chrf": 6}
"""The longest that each counts."""


characters = word_by_word(lambda word: word.encode("utf-32-le", "surrogatepass"), b"".join)
"""The numbers of all that are no white space, in four bytes each."""


@cache
def bleu_words() -> Callable[[str], bytes]:
    """Gives sacrebleu's words of a text, equal words as equal numbers of four bytes each.

    It is shown one word at a time, save where it takes something out of the line first, which can join words.
    """
    tokenize = sacrebleu_metric("bleu").tokenizer
    numbers: dict[str, int] = {}

    def look(text: str) -> bytes:
        return array("I", [numbers.setdefault(word, len(numbers)) for word in tokenize(text).split()]).tobytes()

    words = word_by_word(look, b"".join)
    return lambda text: look(text.rstrip()) if "-\n" in text or "<skipped>" in text else words(text)


def corpus_value(name: str, statistics: np.ndarray) -> float:
    return score_of(name, statistics.sum(axis=0))


def score_of(name: str, sums: np.ndarray) -> float:
    if name == "bleu":  # sacrebleu cuts lengths to whole numbers; only their ratio matters
        sums = np.append(sums[:2] * 1000, sums[2:])
    return float(sacrebleu_metric(name)._compute_score_from_stats(sums.tolist()).score)


DRAWS = 2000  # each calls sacrebleu


def unseen_rows(name: str, statistics: np.ndarray) -> np.ndarray:
    """The counts of a row like the average one of which nothing is right, and of the same where all is."""
    worst, best = statistics.mean(axis=0), statistics.mean(axis=0)
    if name == "bleu":  # length, length of the reference, matches of 1 to 4 words, texts of 1 to 4 words
        worst[2:6] = 0
        best[0] = best[1]
        best[2:6] = best[6:] = np.maximum(best[1] - np.arange(4), 0)
    else:  # for each order: in the answer, in the reference, in both
        worst[2::3] = 0
        best[0::3] = best[2::3] = best[1::3]
    return np.stack([worst, best])


def corpus_estimate(
    name: str,
    statistics: np.ndarray,
    less: np.ndarray | None = None,
    clusters: Sequence[Hashable] | None = None,
) -> Estimate:
    """The corpus score of one system, or how much it is above that of another (`less`) on the same rows.

    The counts of rows are weighted and added up again, for both together, so that a hard row is hard for both (Koehn
    2004, paired bootstrap).
    """
    systems = [statistics] if less is None else [statistics, less]

    def value(sums: np.ndarray) -> float:
        scores = [score_of(name, each) for each in np.split(sums, len(systems))]
        return scores[0] - scores[1] if len(scores) == 2 else scores[0]

    rows, n = together(np.concatenate(systems, axis=1), clusters), len(statistics)
    actual = value(rows.sum(axis=0))
    if len(rows) < (SMALLEST if len(rows) == n else SMALLEST_UNKNOWN):
        return Estimate(value=actual, ci95=None, n=n)
    unseen = [unseen_rows(name, each) for each in np.split(rows, len(systems), axis=1)]
    if len(unseen) == 2:
        unseen[1] = unseen[1][::-1]  # at worst the other is right where this one is wrong
    return resampled(
        rows,
        np.concatenate(unseen, axis=1),
        lambda sums: np.array([value(each) for each in sums]),
        value=actual,
        n=n,
        draws=DRAWS,
    )
