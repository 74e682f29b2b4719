"""Training rows that give away an evaluation: runs of eight words that both have.

As in Tulu 3 (Lambert et al. 2024, section 3.2): an evaluation's question counts as known when half of its runs of
eight words are in one training row. (GPT-3 looked for one run of thirteen, Brown et al. 2020, appendix C; PaLM for
70 % of the runs of eight.) A shorter question counts when a training row asks exactly the same.
"""

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from heed.audit.duplicates import MIX, fingerprint
from heed.data.records import Record, normalized

WORDS = 8
KNOWN = 0.5
WORD = re.compile(r"\w+")


def word_runs(text: str) -> np.ndarray:
    """The distinct runs of eight words of a text, each as a hash; uint64. Case and punctuation make no difference."""
    words = [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in WORD.findall(text.casefold())]
    if len(words) < WORDS:
        return np.empty(0, dtype=np.uint64)
    numbers = np.array(words, dtype=np.uint64)
    hashes = np.zeros(len(numbers) - WORDS + 1, dtype=np.uint64)
    for place in range(WORDS):
        hashes = (hashes ^ (hashes >> np.uint64(31))) * MIX + numbers[place : len(hashes) + place]
    return np.unique(hashes)


@dataclass(frozen=True, kw_only=True)
class Questions:
    """The questions of an evaluation, ready to be looked for in training rows."""

    row_ids: np.ndarray
    fingerprints: np.ndarray
    runs: np.ndarray
    """Every distinct run, sorted."""
    ends: np.ndarray
    """Questions with the i-th run are owners[ends[i] : ends[i + 1]]."""
    owners: np.ndarray
    run_counts: np.ndarray
    """How many runs each question has."""

    def known_to(self, text: str, question: int) -> np.ndarray:
        """Positions of the questions that a training row gives away; `question` is its own question's fingerprint."""
        same = np.flatnonzero(self.fingerprints == np.uint64(question))
        mine = word_runs(text)
        places = np.searchsorted(self.runs, mine)
        places = places[places < len(self.runs)]
        hits = places[np.isin(self.runs[places], mine)]
        if not len(hits):
            return same
        owners = np.concatenate([self.owners[self.ends[hit] : self.ends[hit + 1]] for hit in hits])
        touched, counts = np.unique(owners, return_counts=True)
        return np.union1d(same, touched[counts >= KNOWN * self.run_counts[touched]])


def questions(records: Iterable[Record]) -> Questions:
    row_ids, prints, all_runs = [], [], []
    for record in records:
        row_ids.append(record.row_id)
        prints.append(fingerprint(normalized(record.question)))
        all_runs.append(word_runs(record.question))
    counts = np.array([len(each) for each in all_runs], dtype=np.int64)
    owners = np.repeat(np.arange(len(all_runs)), counts)
    flat = np.concatenate([np.empty(0, dtype=np.uint64), *all_runs])
    order = np.argsort(flat, kind="stable")
    runs, starts = np.unique(flat[order], return_index=True)
    return Questions(
        row_ids=np.array(row_ids, dtype=np.int64),
        fingerprints=np.array(prints, dtype=np.uint64),
        runs=runs,
        ends=np.append(starts, len(flat)),
        owners=owners[order],
        run_counts=counts,
    )


References = Mapping[str, Questions]
"""The evaluation files that training rows are compared with, by name."""
