"""Ids of words that were met before are those that the tokenizer gives to the whole text."""

import random
from typing import Any

import pytest
from tokenizers import Regex, normalizers, pre_tokenizers
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerBase

from heed.prompts.words import word_encoder, word_pattern
from world.small_world import TINY

LLAMA3, QWEN = (
    rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for numbers in (r"\p{N}{1,3}", r"\p{N}")
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
PARTS = [
    *"aZéßяñ1²½ \n\t\r'’-_.,!?()<|>日本어😀",
    "  ",
    "\r\n",
    "'s",
    "'LL",
    "the",
    " model",
    "\u1c8a",
    "\u00a0",
    "\x85",
]
PARTS += ["<|endoftext|>", "<|im_start|>", "endoftext", "e\u0301"]
IN_LINES = [*"\n\n\n\n .1a", "\n\n", "the model", "\n\n### Input:\n", "It's 12 o'clock.", "\r\n", " \n", "<|im_start|>"]


def tokenizer(change: Any = None) -> PreTrainedTokenizerBase:
    found = AutoTokenizer.from_pretrained(TINY)
    found.add_special_tokens({"additional_special_tokens": [AddedToken("<|im_start|>", normalized=False)]})
    if change is not None:
        change(found)
    return found


def split_by(pattern: str) -> Any:
    def change(found: Any) -> None:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        found.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, BYTES])

    return change


def like_qwen(found: Any) -> None:
    split_by(QWEN)(found)
    found.backend_tokenizer.normalizer = normalizers.NFC()


def like_pythia(found: Any) -> None:
    """Its runs of spaces are tokens, looked for in what is left between the special ones."""
    found.backend_tokenizer.normalizer = normalizers.NFC()
    found.add_tokens([AddedToken(" " * spaces, normalized=True) for spaces in (4, 3, 2)])


def like_smollm(found: Any) -> None:
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    found.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])


def lowers(found: Any) -> None:
    found.backend_tokenizer.normalizer = normalizers.Lowercase()


def strips(found: Any) -> None:
    found.add_tokens([AddedToken("the", lstrip=True, normalized=False)])


def in_two_passes(found: Any) -> None:
    found.add_tokens([AddedToken("<|im", normalized=True)])


KNOWN = {"gpt2": None, "llama3": split_by(LLAMA3), "qwen": like_qwen, "pythia": like_pythia, "smollm": like_smollm}
KNOWN |= {"words only": split_by(r"\p{L}+"), "two passes": in_two_passes}
OTHER = {"normalizer": lowers, "strips": strips, "groups": split_by(r"(a|b)+|.")}


@pytest.mark.parametrize("name", [*KNOWN, *OTHER])
def test_words_met_before_have_the_ids_of_the_whole_text(name: str) -> None:
    made = tokenizer((KNOWN | OTHER)[name])
    assert (word_pattern(made) is None) == (name in OTHER)
    encode, drawn = word_encoder(made), random.Random(0)
    for number in range(600):  # every second text has lines, many of them met before
        parts, most = (PARTS, 60) if number % 2 else (IN_LINES, 12)
        text = "".join(drawn.choices(parts, k=drawn.randint(0, most)))
        assert encode(text) == made.encode(text, add_special_tokens=False), repr(text)
