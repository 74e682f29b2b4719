"""Ids of words that were met before are those that the tokenizer gives to the whole text."""

import random
from typing import Any

import pytest
from tokenizers import Regex, normalizers, pre_tokenizers
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerBase

from heed.prompts.words import word_encoder, word_pattern
from world.small_world import TINY

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
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
PARTS += ["<|endoftext|>", "<|im_start|>", "endoftext"]


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


def composes(found: Any) -> None:
    found.backend_tokenizer.normalizer = normalizers.NFC()


def strips(found: Any) -> None:
    found.add_tokens([AddedToken("the", lstrip=True, normalized=False)])


def in_two_passes(found: Any) -> None:
    found.add_tokens([AddedToken("<|im", normalized=True)])


KNOWN = {"gpt2": None, "llama3": split_by(LLAMA3), "words only": split_by(r"\p{L}+")}
OTHER = {"normalizer": composes, "strips": strips, "two passes": in_two_passes, "groups": split_by(r"(a|b)+|.")}


@pytest.mark.parametrize("name", [*KNOWN, *OTHER])
def test_words_met_before_have_the_ids_of_the_whole_text(name: str) -> None:
    made = tokenizer((KNOWN | OTHER)[name])
    assert (word_pattern(made) is None) == (name in OTHER)
    encode, drawn = word_encoder(made), random.Random(0)
    for _ in range(300):
        text = "".join(drawn.choices(PARTS, k=drawn.randint(0, 60)))
        assert encode(text) == made.encode(text, add_special_tokens=False), repr(text)
