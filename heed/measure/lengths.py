"""How much of a difference is one of length: two systems compared again with length taken away."""

import re
from dataclasses import replace
from functools import lru_cache

from heed.answers.responses import Answer
from heed.measure.clusters import Clusters
from heed.measure.comparison import Difference, LengthMatched, System, compare, of_rows
from heed.measure.metrics import Metric, texts_of
from heed.measure.words import word_by_word

UNIT = re.compile(r"\s*(?:[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\s\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+)")
"""A word, or a character where words are not separated."""
ALIKE = 0.25  # of the longer answer, by which the shorter may fall short of it


def length_matched(
    a: System, b: System, metric: Metric, whole: Difference, *, name: str, clusters: Clusters | None = None
) -> LengthMatched:
    """`whole` is the difference of `name`, which `metric` measures."""
    others = {each.row_id: each for each in b.answers}
    pairs = [(each, others[each.row_id]) for each in a.answers]
    cut, alike = [], []
    for mine, yours in pairs:
        cut.append((trimmed(mine, yours), trimmed(yours, mine)))
        alike += [mine.row_id] if are_alike(mine, yours) else []

    def compared(*sides: System) -> Difference:
        alone = [
            replace(side, measurements=[each for each in side.measurements if each.metric == name]) for side in sides
        ]
        return compare(*alone, headline=name, clusters=clusters).metrics[name]

    def measured(side: System, answers: list[Answer]) -> System:
        return replace(side, answers=answers, measurements=metric(*texts_of(answers)))

    left = compared(*(measured(side, [pair[place] for pair in cut]) for place, side in enumerate((a, b))))
    shorter = [sum(before[place] != after[place] for before, after in zip(pairs, cut, strict=True)) for place in (0, 1)]
    return LengthMatched(
        metric=name,
        cut=left,
        cut_answers=(shorter[0], shorter[1]),
        share=left.difference / whole.difference if whole.difference else None,
        alike=compared(of_rows(a, alike), of_rows(b, alike)) if alike else None,
    )


def trimmed(answer: Answer, other: Answer) -> Answer:
    """Without what goes beyond both the other answer's length and the reference's."""
    kept = max(length(other.model_response), length(answer.output))
    if length(answer.model_response) <= kept:
        return answer
    return replace(answer, model_response="".join(UNIT.findall(answer.model_response)[:kept]))


def are_alike(answer: Answer, other: Answer) -> bool:
    lengths = length(answer.model_response), length(other.model_response)
    return max(lengths) - min(lengths) <= ALIKE * max(lengths)


def units(word: str) -> int:
    return len(UNIT.findall(word))


length = lru_cache(maxsize=8)(word_by_word(units, lambda counts: sum(counts)))  # kept of the three texts of a row
