"""How metrics are named and numbers written, in report, card and terminal alike."""

import math
from collections.abc import Sequence

Interval = tuple[float, float]

LABELS = {
    "exact_match": "Exact match",
    "normalized_exact_match": "Exact match, normalised",
    "contains": "Contains the reference",
    "token_f1": "Token F1",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "chrf": "chrF",
    "bleu": "BLEU",
    "bertscore": "BERTScore F1",
    "reference_likelihood": "Likelihood of the reference",
    "loss_per_token": "Loss per token",
    "bits_per_byte": "Bits per byte",
    "empty": "Empty answers",
    "length_ratio": "Length, to the reference's",
    "distinct_1": "Different words",
    "distinct_2": "Different pairs of words",
    "p_eos": "P(EOS) at the reference's end",
    "premature_eos": "Stopped too early",
    "cut": "Cut by max_new_tokens",
}
MEANINGS = {
    "exact_match": "the answer is the reference, character by character",
    "normalized_exact_match": "the same words; case, punctuation and articles do not count",
    "contains": "the reference's words are somewhere in the answer, in a row",
    "token_f1": "words that answer and reference share, in any order; 1 is all",
    "rouge1": "single words that answer and reference share",
    "rouge2": "pairs of words that answer and reference share",
    "rougeL": "the longest run of words, gaps allowed, that both have in the same order",
    "chrf": "groups of up to six letters that answer and reference share, of 100",
    "bleu": "groups of up to four words that answer and reference share, of 100",
    "bertscore": "how near a language model finds the words of answer and reference",
    "reference_likelihood": "how likely the model finds a word piece of the reference, on the average; 1 is by heart",
    "loss_per_token": "how badly plain text is predicted, for a word piece",
    "bits_per_byte": "how badly plain text is predicted, whatever the word pieces",
    "empty": "nothing was answered",
    "length_ratio": "words of the answer to words of the reference; 1 is as long",
    "distinct_1": "different words among all words of an answer; low where it repeats itself",
    "distinct_2": "different pairs of neighbouring words; low where an answer repeats itself",
    "p_eos": "how likely the model is to stop where the reference ends",
    "premature_eos": "stopping was likeliest somewhere before the reference ends",
    "cut": "the answer had not ended within the allowed number of tokens",
    "judge_score": "the judge's opinion, from 0 to 100",
}
"""What a reader of the number must know, in a line."""
COUNTED = {
    "exact_match": "answered exactly right",
    "normalized_exact_match": "answered with the right words",
    "contains": "answered with the reference's words among others",
}
"""Metrics that are right or wrong for each row, as a number of questions says them."""
NOT_MEASURED = "not measured"
"""Nothing gave a number: no answer that the metric says anything of."""
WITHHELD = "withheld"
"""There are numbers, and their mean is not shown: too many are missing to trust it."""


def label(metric: str) -> str:
    return LABELS.get(metric, metric)


def in_sentence(label: str) -> str:
    """Exact match -> exact match, but ROUGE-L and chrF as they are."""
    return label[0].lower() + label[1:] if label[1:2].islower() and label[-1].islower() else label


def is_wide(*values: float | None) -> bool:
    """Whether any goes beyond 1, as scores to 100 and ratings do; numbers side by side are written alike."""
    return any(value is not None and abs(value) > 1 for value in values)


def number(value: float | None, *, wide: bool, absent: str = NOT_MEASURED) -> str:
    """Three decimals for shares, one on a scale that goes beyond 1."""
    if value is None:
        return absent
    if not math.isfinite(value):
        return "not a number"
    return f"{value:,.1f}" if wide else f"{value:.3f}"


def signed(value: float, *, wide: bool) -> str:
    """With its sign, and a minus as long as the plus."""
    digits = number(abs(value), wide=wide)
    if digits.strip("0.") == "":
        return digits
    return ("+" if value > 0 else "\N{MINUS SIGN}") + digits


def interval_text(ci95: Sequence[float] | None, *, wide: bool, with_sign: bool = False) -> str:
    if ci95 is None:
        return ""
    low, high = (signed(end, wide=wide) if with_sign else number(end, wide=wide) for end in ci95)
    return f"{low} to {high}"


def epochs_text(epochs: float) -> str:
    return f"{epochs:.4g} {'epoch' if epochs == 1 else 'epochs'}"
