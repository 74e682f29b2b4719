"""(response, reference) -> number. No model, no network, unless a metric is asked for that is one.

English articles, punctuation and case are what SQuAD's evaluation takes away
(https://rajpurkar.github.io/SQuAD-explorer); everything else about a text counts.
"""

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache, partial

from heed.answers.responses import Answer
from heed.errors import UserError
from heed.measure import scorers
from heed.measure.clusters import Clusters
from heed.measure.corpus import corpus_estimate, corpus_score
from heed.measure.intervals import mean_estimate
from heed.measure.measurements import Measurement, mean_measurement
from heed.measure.words import chained, numbered, word_by_word

Metric = Callable[[Sequence[str], Sequence[str]], list[Measurement]]  # (responses, references) -> what was found
ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
EVALUATE = "evaluate:"


# ---- on one answer


def exact_match(response: str, reference: str) -> float:
    """1.0 when both are the same text, surrounding white space aside."""
    return float(response.strip() == reference.strip())


def normalized_exact_match(response: str, reference: str) -> float:
    """1.0 when both are the same words. Two empty texts are."""
    return float(normalized_words(response) == normalized_words(reference))


def contains(response: str, reference: str) -> float:
    """1.0 when the reference's words are in the response, in a row. An empty reference is only in an empty one."""
    if not normalized_words(reference):
        return float(not normalized_words(response))
    return float(f" {normalized(reference)} " in f" {normalized(response)} ")


def token_f1(response: str, reference: str) -> float:
    """The harmonic mean of precision and recall over words, as SQuAD has it: both empty is 1, one empty is 0."""
    return words_f1(normalized_words(response), normalized_words(reference))


def words_f1(ours: Sequence[str], theirs: Sequence[str]) -> float:
    if not ours or not theirs:
        return float(ours == theirs)
    of_ours, of_theirs = Counter(ours), Counter(theirs)
    both = of_ours.keys() & of_theirs.keys()
    common = sum(map(min, map(of_ours.__getitem__, both), map(of_theirs.__getitem__, both)))
    return 2 * common / (len(ours) + len(theirs))


def normalized(text: str) -> str:
    return " ".join(normalized_words(text))


@lru_cache(maxsize=1 << 15)  # of the same texts for several metrics
def normalized_words(text: str) -> Sequence[str]:
    """As SQuAD has them; where that leaves nothing, less is taken away: "A" or "!" must not count as no answer."""
    return squad_words(text) or text.lower().translate(PUNCTUATION).split() or text.lower().split()


squad_words = word_by_word(lambda word: ARTICLES.sub(" ", word.lower().translate(PUNCTUATION)).split(), chained)
"""Lower case, without punctuation and articles (Rajpurkar et al. 2016)."""


def mean(values: list[float]) -> float:
    """Raises ValueError for no values: a mean of nothing is not 0."""
    if not values:
        raise ValueError("mean of no values")
    return sum(values) / len(values)


# ---- on all answers


def each_answer(
    metric: str, number: Callable[[str, str], float], responses: Sequence[str], references: Sequence[str]
) -> list[Measurement]:
    pairs = zip(responses, references, strict=True)
    return [mean_measurement(metric, [number(response, reference) for response, reference in pairs])]


METRICS: dict[str, Metric] = {
    "exact_match": partial(each_answer, "exact_match", exact_match),
    "normalized_exact_match": partial(each_answer, "normalized_exact_match", normalized_exact_match),
    "contains": partial(each_answer, "contains", contains),
    "token_f1": partial(each_answer, "token_f1", token_f1),
    "rougeL": scorers.rouge_l,
    "chrf": partial(corpus_score, "chrf"),
    "bleu": partial(corpus_score, "bleu"),
}
KNOWN = (*METRICS, "bertscore", f"{EVALUATE}NAME_OR_FOLDER")


def load_metrics(
    names: Sequence[str], *, bertscore_model: str | None = None, bertscore_num_layers: int | None = None
) -> dict[str, Metric]:
    """The metrics of these names, with what they need loaded: call it before answers are generated, not after.

    Raises UserError for an unknown name, and for a model, module or package that is missing.
    """
    if "bertscore" not in names and (bertscore_model is not None or bertscore_num_layers is not None):
        key = "bertscore_model" if bertscore_model is not None else "bertscore_num_layers"
        raise UserError(f"{key}: nothing reads it; add bertscore to metrics, or leave it out")
    loaded: dict[str, Metric] = {}
    for name in names:
        if name in loaded:
            raise UserError(f"metrics: {name} is named twice")
        if name in METRICS:
            loaded[name] = METRICS[name]
        elif name == "bertscore":
            loaded[name] = scorers.load_bertscore(bertscore_model, bertscore_num_layers)
        elif name.startswith(EVALUATE) and name != EVALUATE:
            loaded[name] = scorers.load_module(name.removeprefix(EVALUATE))
        else:
            nearest = get_close_matches(name, KNOWN, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise UserError(f"metrics: {name!r} is not one of {', '.join(KNOWN)}{hint}")
    return loaded


def composed(text: str) -> str:
    """An accent and its letter as one character (NFC): many tokenizers write no other form, and nobody sees which."""
    return unicodedata.normalize("NFC", text)


def texts_of(answers: Sequence[Answer]) -> tuple[list[str], list[str]]:
    """Responses and references, as every metric is to read them."""
    return [composed(each.model_response) for each in answers], [composed(each.output) for each in answers]


def measure(
    metrics: dict[str, Metric], answers: Sequence[Answer], *, clusters: Clusters | None = None
) -> list[Measurement]:
    """What each metric finds, then what describes the answers. Raises UserError for no answers.

    `clusters` are rows that are drawn together.
    """
    if not answers:
        raise UserError("there are no answers to measure")
    responses, references = texts_of(answers)
    found = [each for metric in metrics.values() for each in metric(responses, references)]
    return with_intervals([*found, *describe(answers)], answers, clusters)


def with_intervals(
    measurements: Sequence[Measurement], answers: Sequence[Answer], clusters: Clusters | None
) -> list[Measurement]:
    groups = None if clusters is None else [clusters[answer.row_id] for answer in answers]
    return [replace(each, ci95=interval(each, groups)) for each in measurements]


def interval(measurement: Measurement, clusters: Sequence[Hashable] | None) -> tuple[float, float] | None:
    if measurement.statistics is not None:
        return corpus_estimate(measurement.metric, measurement.statistics, clusters=clusters).ci95
    known = [(place, item) for place, item in enumerate(measurement.items or ()) if item is not None]
    if not known:
        return None
    groups = None if clusters is None else [clusters[place] for place, _ in known]
    return mean_estimate([item for _, item in known], within=measurement.within, clusters=groups).ci95


def describe(answers: Sequence[Answer]) -> list[Measurement]:
    """How the answers look, whatever they say: empty, cut, longer than the reference, repeating themselves."""
    words = [numbered(answer.model_response) for answer in answers]
    wanted = [len(numbered(answer.output)) for answer in answers]
    ended = [answer.finish_reason for answer in answers]
    unknown = sum(reason is None for reason in ended)
    notes = (f"{unknown} answers do not say how they ended",) if unknown else ()
    return [
        mean_measurement("empty", [float(not each) for each in words], better="lower"),
        mean_measurement(
            "cut",
            [None if reason is None else float(reason == "length") for reason in ended],
            better="lower",
            notes=notes,
        ),
        mean_measurement(
            "length_ratio",
            [len(own) / length if length else None for own, length in zip(words, wanted, strict=True)],
            better="neither",
            within=(0.0, math.inf),
        ),
        *(mean_measurement(f"distinct_{n}", [distinct(own, n) for own in words], better="neither") for n in (1, 2)),
    ]


def distinct(words: Sequence[int], n: int) -> float | None:
    """Different n-grams as a share of all (Li et al. 2016, within one answer): low where a text repeats itself."""
    count = len(words) - n + 1
    return len(set(zip(*(words[start:] for start in range(n)), strict=False))) / count if count > 0 else None
