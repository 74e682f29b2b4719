"""Ids of words that were met before: a byte-level tokenizer gives a word the same ids wherever it stands.

Such a tokenizer cuts a text into words by a pattern and encodes each alone. Doing both here, with the ids of a word
looked up where it was met before, takes a quarter of the time. Only where that is certain: the tokenizer does nothing
else to a text, and every letter is one that all versions of Unicode in use know alike. All else it does itself.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any
from unicodedata import is_normalized

import regex

if TYPE_CHECKING:  # heavy, and only named here
    from transformers import PreTrainedTokenizerBase

Encode = Callable[[str], list[int]]
# What ByteLevel does by itself: GPT-2, Pythia.
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same after every digit was taken out, which ends the text before it: SmolLM2.
DIGITS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
LLAMA3, QWEN = (
    rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for numbers in (r"\p{N}{1,3}", r"\p{N}")
)
# Latin, Greek, Cyrillic, punctuation, Chinese, Japanese, Korean, pictures: the pattern's library and the tokenizer's
# own disagree on letters that only the newer of them knows.
SETTLED = regex.compile(r"[\x00-\u0557\u2010-\u2060\u3000-\u9fff\uac00-\ud7a3\U0001f300-\U0001f64f]*")
MOST, LONGEST = 200_000, 60  # words kept, some 150 bytes each, and letters in one
MOST_LINES, LONGEST_LINE = 1000, 400  # a template's own lines come in the first rows
# Lines that words never reach across, and where they might: a word may take the breaks after it (LLAMA3), or none is of
# letters and a break (GPT2). Other patterns are not cut into lines.
BEFORE_BREAK = (regex.compile(r"\n*[^\n]+|\n+"), regex.compile(r"[^\S\n]\n"))
AFTER_BREAK = (regex.compile(r"[^\n]*\n+|[^\n]+"), regex.compile(r"\n[^\S\n]"))
LINES = {GPT2: BEFORE_BREAK, DIGITS: BEFORE_BREAK, LLAMA3: AFTER_BREAK, QWEN: AFTER_BREAK}
PROBE = "It's 1,234 words:  naïve\n\n\tx  \nWE'LL 日本語 😀 café!? "


class Words(dict[str, list[int]]):
    """Word -> ids; and line -> ids."""

    def __init__(self, encode: Encode, most: int = MOST, longest: int = LONGEST) -> None:
        self.encode, self.most, self.longest = encode, most, longest

    def __missing__(self, word: str) -> list[int]:
        ids = self.encode(word)
        if len(self) < self.most and len(word) <= self.longest:
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
    composes = backend.normalizer is not None
    alone = Tokenizer(backend.model)
    alone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = Words(lambda word: list(alone.encode(word, add_special_tokens=False).ids))
    tokens = backend.get_added_tokens_decoder()
    added = {token.content: number for number, token in tokens.items()}

    def cut(text: str) -> list[int]:
        found = pattern.findall(text)
        if sum(map(len, found)) < len(text):  # the pattern leaves letters out, which make words of their own
            return whole(text)
        return list(chain.from_iterable(map(words.__getitem__, found)))

    line, across = LINES.get(pattern.pattern, (None, None))
    lines = Words(cut, MOST_LINES, LONGEST_LINE)

    def cut_lines(text: str) -> list[int]:
        if line is None or across.search(text):
            return cut(text)
        return list(chain.from_iterable(map(lines.__getitem__, line.findall(text))))

    around: Encode = cut_lines
    for normalized in (True, False):  # those that are not are looked for first, in the whole text
        marks = [each.content for each in tokens.values() if each.normalized == normalized]
        if marks:
            around = between(marks, added, around)

    def encode(text: str) -> list[int]:
        if SETTLED.fullmatch(text) is None or (composes and not is_normalized("NFC", text)):
            return whole(text)
        return around(text)

    probe = PROBE + "".join(f"{mark} a{mark}" for mark in added) + PROBE
    return encode if encode(probe) == whole(probe) else whole


def between(marks: Sequence[str], ids_of: Mapping[str, int], encode: Encode) -> Encode:
    """Ids of a text in which `marks` are tokens by themselves, and `encode` takes what is between them."""
    pattern = regex.compile("|".join(map(regex.escape, sorted(marks, key=len, reverse=True))))

    def encode_apart(text: str) -> list[int]:
        ids: list[int] = []
        start = 0
        for mark in pattern.finditer(text):
            ids += [*encode(text[start : mark.start()]), ids_of[mark.group()]]
            start = mark.end()
        return ids + encode(text[start:])

    return encode_apart


def word_pattern(tokenizer: "PreTrainedTokenizerBase") -> Any:
    """How the tokenizer cuts words, if that, NFC, its added tokens and its byte-level BPE are all it does."""
    backend = getattr(tokenizer, "backend_tokenizer", None)  # absent in tokenizers written in Python
    if backend is None or backend.pre_tokenizer is None:
        return None
    if backend.normalizer is not None and json.loads(backend.normalizer.__getstate__())["type"] != "NFC":
        return None
    if tokenizer.split_special_tokens or type(backend.model).__name__ != "BPE" or backend.model.dropout:
        return None
    if any(each.lstrip or each.rstrip or each.single_word for each in backend.get_added_tokens_decoder().values()):
        return None
    found = json.loads(backend.pre_tokenizer.__getstate__())
    *before, last = found.get("pretokenizers", [found])
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return None
    if last["use_regex"]:
        known = {"[]": GPT2, '[{"type": "Digits", "individual_digits": true}]': DIGITS}.get(json.dumps(before))
        return None if known is None else regex.compile(known)
    if [step["type"] for step in before] != ["Split"]:
        return None
    [split] = before
    if split["behavior"] != "Isolated" or split["invert"]:
        return None
    try:
        pattern = regex.compile(split["pattern"]["Regex"])
    except (KeyError, regex.error):
        return None
    return None if pattern.groups else pattern
