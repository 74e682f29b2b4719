import numpy as np
import pytest

from heed.audit.duplicates import (
    FACTORS,
    SUMMANDS,
    fingerprint,
    first_with,
    likely_pairs,
    runs,
    signature,
    similar_pairs,
    similarity,
)
from heed.audit.languages import language
from heed.data.records import normalized

TEXT = "The quick brown fox jumps over the lazy dog while the cat looks on."


def test_runs_are_the_distinct_fives_of_letters() -> None:
    assert len(runs("abcdefg")) == 3
    assert len(runs("aaaaaaaaa")) == 1
    assert len(runs("ab")) == 1 and len(runs("")) == 1
    assert np.array_equal(runs(TEXT * 3), np.unique(runs(TEXT * 3)))
    assert similarity(runs("abcdef"), runs("abcdefg")) == pytest.approx(2 / 3)


def test_case_and_space_make_no_difference() -> None:
    assert fingerprint(normalized(" The\n QUICK ")) == fingerprint("the quick")


def test_a_signature_estimates_what_is_common() -> None:
    random = np.random.RandomState(1)
    for share in (0.5, 0.8, 0.95):
        common = random.randint(0, 2**32, 2000, dtype=np.uint32)
        apart = int(1000 * (1 - share) / (1 + share) * 2)
        these, those = (
            np.unique(np.concatenate([common, random.randint(0, 2**32, apart, dtype=np.uint32)])) for _ in range(2)
        )
        hashes = these[:, None] * FACTORS + SUMMANDS  # of all at once
        assert np.array_equal(signature(these), (hashes.min(axis=0) >> np.uint64(32)).astype(np.uint16))
        assert (signature(these) == signature(those)).mean() == pytest.approx(similarity(these, those), abs=0.2)


def test_near_duplicates_are_found_among_many() -> None:
    random = np.random.RandomState(2)
    words = [f"w{number}x{number * 7}" for number in range(300)]
    texts = [" ".join(random.choice(words, 30)) for _ in range(500)]
    for row in range(400, 500, 2):  # every other one of the last hundred repeats an earlier row except for one word
        texts[row] = texts[row - 400].rsplit(" ", 1)[0] + " changed"
    signatures = np.stack([signature(runs(text)) for text in texts])
    pairs = likely_pairs(signatures, np.arange(500))
    asked: list[int] = []

    def text_of(rows: set[int]) -> list[tuple[int, str]]:
        asked.append(len(rows))
        return [(row, texts[row]) for row in rows]

    across = likely_pairs(signatures, np.arange(400, 500), np.arange(400))
    found, again = similar_pairs([pairs, across], lambda rows: iter(text_of(rows)))
    assert found.tolist() == [[row, row - 400] for row in range(400, 500, 2)]
    assert len(asked) == 1
    assert again.tolist() == found.tolist()


def test_the_first_of_equal_keys() -> None:
    assert first_with(np.array([5, 3, 5, 3, 9])).tolist() == [0, 1, 0, 1, 4]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (TEXT + " It is what it is.", "English"),
        ("Das ist nicht der Fall, und es wird auch nicht von dem Mann gesagt.", "German"),
        ("Le chat est dans la maison et il ne veut pas sortir avec vous.", "French"),
        ("El perro está en la casa y no quiere salir por la puerta.", "Spanish"),
        ("Il cane è nella casa e non vuole uscire con gli altri.", "Italian"),
        ("Het is een hond die niet met de kat naar buiten wil.", "Dutch"),
        ("Собака сидит в доме.", "Cyrillic"),
        ("犬は家の中にいて外に出たくない。", "Japanese"),
        ("狗在房子里面不想出去散步因为下雨了", "Chinese"),
        ("12 + 30 = 42", ""),
        ("Zebra, Elephant, Crocodile", ""),
    ],
)
def test_a_language_shows_in_letters_and_common_words(text: str, name: str) -> None:
    assert language(text) == name
