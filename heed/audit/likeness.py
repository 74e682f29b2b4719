"""Whether held-out rows are like the training rows: a word, a length or a file that is common on one side only."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from heed.audit.row import BIT
from heed.saying import count

FEWEST = 30  # held-out rows
SAMPLED = 2000  # rows of each side, evenly
APART = 0.2  # difference of two shares of rows
LEVEL = 0.001  # for all that is compared together
SHOWN = 3
WORD = re.compile(r"[^\W\d_]{4,}")


def judge_likeness(
    table: np.ndarray, files: Sequence[str], text_of: Callable[[set[int]], Iterator[tuple[int, str]]]
) -> list[str]:
    """Flag held-out rows that have what training rows lack; sentences about the largest differences."""
    learned, held_out = np.flatnonzero(table["split"] == 0), np.flatnonzero(table["split"] > 0)
    if not len(held_out) or not len(learned):
        return []
    if len(held_out) < FEWEST:
        rows = count(len(held_out), "held-out row is", "held-out rows are")
        return [f"{rows} too few to tell whether they are like the training rows"]
    sides = [evenly(learned), evenly(held_out)]
    short, long = np.quantile(table["tokens"][learned], [0.25, 0.75])
    marks: dict[int, set[str]] = {}
    for row, text in text_of(sides[0] | sides[1]):
        tokens = table["tokens"][row]
        marks[row] = {f"the word “{word}”" for word in WORD.findall(text)}
        marks[row] |= {f"rows of {files[table['file'][row]].rstrip(':, ')}"} if len(files) > 1 else set()
        marks[row] |= {f"at most {short:.0f} tokens"} if tokens <= short else set()
        marks[row] |= {f"at least {long:.0f} tokens"} if tokens >= long else set()
    train, test = (Counter(mark for row in side for mark in marks[row]) for side in sides)
    sizes = [len(side) for side in sides]
    compared = train | test
    apart = sorted(
        (mark for mark in compared if differs(train[mark], test[mark], *sizes, of=len(compared))),
        key=lambda mark: (-abs(test[mark] / sizes[1] - train[mark] / sizes[0]), mark),
    )
    more = {mark for mark in apart if test[mark] / sizes[1] > train[mark] / sizes[0]}
    unlike = [row for row in sides[1] if marks[row] & more]
    table["flags"][np.array(unlike, dtype=int)] |= BIT["unlike_training"]
    return [
        f"held-out rows are unlike the training rows: {mark} in {test[mark] / sizes[1]:.0%} of them, in "
        f"{train[mark] / sizes[0]:.0%} of the training rows"
        for mark in apart[:SHOWN]
    ]


def evenly(rows: np.ndarray) -> set[int]:
    return set(rows[np.linspace(0, len(rows) - 1, min(SAMPLED, len(rows)), dtype=int)].tolist())


def differs(here: int, there: int, n: int, m: int, *, of: int) -> bool:
    """Whether two shares are far apart, and not by the chance of `of` comparisons."""
    pooled = (here + there) / (n + m)
    if abs(here / n - there / m) < APART:
        return False
    z = abs(here / n - there / m) / math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return math.erfc(z / math.sqrt(2)) * of < LEVEL
