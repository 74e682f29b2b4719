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
    "empty": "Empty answers",
    "length_ratio": "Length, to the reference's",
    "distinct_1": "Different words",
    "distinct_2": "Different pairs of words",
    "p_eos": "P(EOS) at the reference's end",
    "premature_eos": "Stopped too early",
    "cut": "Cut by max_new_tokens",
}
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
