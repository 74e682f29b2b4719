"""Ids of words that were met before: a byte-level tokenizer gives a word the same ids wherever it stands.

Such a tokenizer cuts a text into words by a pattern and encodes each alone. Doing both here, with the ids of a word
looked up where it was met before, takes a quarter of the time. Only where that is certain: the tokenizer does nothing
else to a text, and every letter is one that all versions of Unicode in use know alike. All else it does itself.
"""

import json
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any

import regex

if TYPE_CHECKING:  # heavy, and only named here
    from transformers import PreTrainedTokenizerBase

Encode = Callable[[str], list[int]]
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # what ByteLevel does by itself
# Latin, Greek, Cyrillic, punctuation, Chinese, Japanese, Korean, pictures: the pattern's library and the tokenizer's
# own disagree on letters that only the newer of them knows.
SETTLED = regex.compile(r"[\x00-\u0557\u2010-\u2060\u3000-\u9fff\uac00-\ud7a3\U0001f300-\U0001f64f]*")
MOST, LONGEST = 200_000, 60  # words kept, some 150 bytes each, and letters in one
PROBE = "It's 1,234 words:  naïve\n\n\tx  \nWE'LL 日本語 😀 café!? "


class Words(dict[str, list[int]]):
    """Word -> ids."""

    def __init__(self, encode: Encode) -> None:
        self.encode = encode

    def __missing__(self, word: str) -> list[int]:
        ids = self.encode(word)
        if len(self) < MOST and len(word) <= LONGEST:
            self[word] = ids
        return ids


def word_encoder(tokenizer: "PreTrainedTokenizerBase") -> Encode:
    """Ids of a text without special tokens around it: exactly those of `tokenizer.encode`."""

    def whole(text: str) -> list[int]:  # not verbose: a row that is too long is reported elsewhere, with its place
        return list(tokenizer.encode(text, add_special_tokens=False, verbose=False))

    pattern = word_pattern(tokenizer)
    if pattern is None:
        return whole
    from tokenizers import Tokenizer, pre_tokenizers  # heavy, and in no way needed to read a contract

    backend = tokenizer.backend_tokenizer
    alone = Tokenizer(backend.model)
    alone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = Words(lambda word: list(alone.encode(word, add_special_tokens=False).ids))
    added = {token.content: number for number, token in backend.get_added_tokens_decoder().items()}
    marks = regex.compile("|".join(map(regex.escape, sorted(added, key=len, reverse=True))) or r"(?!)")

    def cut(text: str) -> list[int]:
        found = pattern.findall(text)
        if sum(map(len, found)) < len(text):  # the pattern leaves letters out, which make words of their own
            return whole(text)
        return list(chain.from_iterable(map(words.__getitem__, found)))

    def encode(text: str) -> list[int]:
        if SETTLED.fullmatch(text) is None:
            return whole(text)
        ids: list[int] = []
        start = 0
        for mark in marks.finditer(text):
            ids += [*cut(text[start : mark.start()]), added[mark.group()]]
            start = mark.end()
        return ids + cut(text[start:])

    probe = PROBE + "".join(f"{mark} a{mark}" for mark in added) + PROBE
    return encode if encode(probe) == whole(probe) else whole


def word_pattern(tokenizer: "PreTrainedTokenizerBase") -> Any:
    """How the tokenizer cuts words, if that, its added tokens and its byte-level BPE are all it does."""
    backend = getattr(tokenizer, "backend_tokenizer", None)  # absent in tokenizers written in Python
    if backend is None or backend.normalizer is not None or backend.pre_tokenizer is None:
        return None
    if tokenizer.split_special_tokens or type(backend.model).__name__ != "BPE" or backend.model.dropout:
        return None
    added = backend.get_added_tokens_decoder().values()
    if any(each.lstrip or each.rstrip or each.single_word for each in added):
        return None
    if len({each.normalized for each in added}) > 1:  # those that are not are looked for first
        return None
    found = json.loads(backend.pre_tokenizer.__getstate__())
    if found["type"] == "ByteLevel" and found["use_regex"] and not found["add_prefix_space"]:
        return regex.compile(GPT2)
    steps = found.get("pretokenizers", [])
    if [step["type"] for step in steps] != ["Split", "ByteLevel"]:
        return None
    split, bytes_of = steps
    if bytes_of["use_regex"] or bytes_of["add_prefix_space"] or split["behavior"] != "Isolated" or split["invert"]:
        return None
    try:
        pattern = regex.compile(split["pattern"]["Regex"])
    except (KeyError, regex.error):
        return None
    return None if pattern.groups else pattern
