"""N-grams that two texts share, counted at once, against counts by hand, and one by one as the libraries count."""

import numpy as np
import pytest

from heed.measure import ngrams
from heed.measure.corpus import corpus_statistics, sacrebleu_metric
from heed.measure.metrics import METRICS, normalized
from heed.measure.ngrams import counted, in_common

RIGHT_TO_LEFT = "שלום عالم"
ODD = [
    *["", " ", "a", "A", "!", ".", "-", "-\n", "\x00", "\ud800", "a" * 9, "a a a a a", "ab" * 40, "the a an"],
    *["1.5 1. .1 1,5 1-2 -1 a.b. ..", "well-\nknown", "a-<skipped>\nb", "<skip<skipped>ped> x", "x <skipped> y"],
    *["&quot;a&amp;lt;&#39;b", "[x]{y}~^`\\/@#$%(z)", "the–cat’s “hat”", "a\u00a0b\u2028c\x1fd\u3000e\tf\r\ng\u200bh"],
    *[
        "e\u0301 é ß ﬁ İ ſ K Ⅷ ² ١٢",
        "ΑΣ ΑΣ. ΟΔΟΣ",
        "🙂🙂 👩‍👩‍👧 🙂",
        RIGHT_TO_LEFT,
        f"{RIGHT_TO_LEFT} !",
        "日本語。日本",
    ],
    *["running ponies, caresses; skies' dying", "word " * 3000, "".join(map(chr, range(0x4E00, 0x4E00 + 1500)))],
]
PAIRS = [(ours, theirs) for ours in ODD for theirs in (ours, ODD[len(ours) % len(ODD)], f"{ours} {ours[1:]}", "a. B")]


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_the_counts_of_odd_texts_are_sacrebleus_own(name: str) -> None:
    ours, theirs = map(list, zip(*PAIRS, strict=True))
    wanted = sacrebleu_metric(name)._extract_corpus_statistics(ours, [theirs])
    found = corpus_statistics(name, ours, theirs)
    for pair, own, sacrebleus in zip(PAIRS, found.tolist(), wanted, strict=True):
        assert own == list(map(float, sacrebleus)), pair


def test_rouge_of_odd_texts_is_rouge_scores_own() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    pairs = [(ours, theirs) for ours, theirs in PAIRS if ours.strip() and theirs.strip() and len(ours) < 1000]
    [found] = METRICS["rougeL"](*map(list, zip(*pairs, strict=True)))
    rouge = RougeScorer(["rougeL"], use_stemmer=True)
    assert found.items == tuple(rouge.score(theirs, ours)["rougeL"].fmeasure for ours, theirs in pairs)


def test_odd_texts_are_normalized_as_squad_does() -> None:
    assert normalized("The–cat a\u00a0B. an") == "–cat b"
    assert normalized("ΟΔΟΣ the ΣΑΣ!") == "οδος σας"
    assert (normalized("The."), normalized("A"), normalized("!")) == ("the", "a", "!")


def test_what_the_rarer_side_has_is_in_common() -> None:
    ours, theirs = np.array([1, 1, 2, 1]), np.array([1, 2, 1, 2, 5])
    # 1 twice and 2 once; 1 2 and 2 1; 1 2 1; of four none, and nothing reaches from one text into the next
    assert in_common([ours, theirs], [theirs, np.array([], dtype=int)], 4).tolist() == [[3, 2, 1, 0], [0, 0, 0, 0]]
    assert in_common([], [], 2).tolist() == []


@pytest.mark.parametrize("together", [1, 64, ngrams.AT_ONCE])
@pytest.mark.parametrize("different", [1, 3, 200, 70_000])
def test_counting_at_once_is_counting_one_by_one(
    different: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ngrams, "AT_ONCE", together)
    random = np.random.default_rng(different)
    ours, theirs = ([random.integers(different, size=random.integers(0, 40)) for _ in range(30)] for _ in range(2))
    theirs[::2] = [each[::-1] if place % 4 else each for place, each in enumerate(ours[::2])]
    one_by_one = [[counted(mine, yours, n) for n in range(1, 7)] for mine, yours in zip(ours, theirs, strict=True)]
    assert in_common(ours, theirs, 6).tolist() == one_by_one
