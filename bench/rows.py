"""Synthetic examples with the lengths, and the shared beginnings, of two real instruction sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import AutoTokenizer

from heed.data.sources import Source, read
from heed.prompts.template import load_prompt
from heed.tokens.encoding import Policy, encode_split

EOS = 0  # of every model in models.py; random ids start at 1
MAX_LENGTH = 512
LEVELS = (0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Rows that begin with the same preamble. Lengths are quantiles at LEVELS, in GPT-2's tokens."""

    share: float
    preamble: int
    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]
    """For each quarter of the prompts, the shortest first: long prompts have shorter responses."""


# "short": 1,100 rows of short instructions under prompts/alpaca_short.jinja; 57.4 tokens an example, 77 % of them
# prompt, 24 common to all. In 4,000 random batches of 8 the common beginning was 24 tokens long, once 26.
# "alpaca": 999 rows in the manner of Alpaca under prompts/alpaca.jinja, cut at 512; 204 tokens an example, 26 % of them
# prompt. 41 % have an input and a preamble of 33 tokens, the others one of 24, and both begin with the same 8.
# tests/bench checks that `examples` gives these means, shares and the padding of random batches.
SETS: Mapping[str, tuple[Kind, ...]] = {
    "short": (
        Kind(
            share=1.0,
            preamble=24,
            prompt=(35, 37, 37, 38, 39, 40, 40, 41, 43, 49, 51, 54, 56, 60, 65),
            responses=(
                (3, 4, 7, 8, 9, 9, 11, 11, 12, 13, 14, 21, 29, 39, 46),
                (3, 4, 9, 10, 11, 12, 13, 14, 14, 15, 16, 19, 30, 42, 47),
                (2, 3, 5, 7, 8, 9, 10, 12, 14, 16, 18, 22, 28, 43, 51),
                (2, 3, 6, 7, 8, 9, 9, 10, 11, 12, 14, 16, 19, 29, 41),
            ),
        ),
    ),
    "alpaca": (
        Kind(
            share=0.59,
            preamble=24,
            prompt=(34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 47, 50, 56, 114),
            responses=(
                (7, 7, 12, 23, 46, 103, 136, 180, 223, 268, 312, 358, 379, 434, 475),
                (8, 10, 17, 32, 82, 113, 145, 190, 232, 297, 340, 394, 448, 474, 474),
                (6, 10, 17, 24, 59, 126, 157, 189, 258, 291, 339, 378, 412, 470, 470),
                (4, 7, 9, 9, 16, 33, 64, 115, 191, 274, 329, 393, 466, 469, 469),
            ),
        ),
        Kind(
            share=0.41,
            preamble=33,
            prompt=(52, 53, 56, 58, 60, 62, 64, 66, 69, 72, 76, 87, 101, 139, 193),
            responses=(
                (2, 3, 6, 7, 10, 16, 22, 33, 67, 104, 217, 304, 326, 399, 453),
                (5, 6, 8, 9, 11, 14, 22, 33, 46, 72, 171, 301, 392, 450, 451),
                (2, 3, 6, 10, 13, 17, 20, 28, 55, 87, 138, 249, 318, 443, 446),
                (2, 4, 10, 12, 22, 33, 47, 57, 71, 99, 162, 251, 331, 398, 409),
            ),
        ),
    ),
}
COMMON_TO_PREAMBLES = 8
ANSWERS = 4  # to each question of "answers"
EXCHANGES = 5  # in each of "chats": ten turns


def make_rows(name: str, count: int, *, vocabulary: int, seed: int = 0) -> Dataset:
    """Examples of one of SETS, or made of `short` ones: "answers", four to each question; "chats", ten turns each."""
    if name == "answers":
        return answered(examples("short", count, vocabulary=vocabulary, seed=seed), ANSWERS)
    if name == "chats":
        return conversations(examples("short", count * EXCHANGES, vocabulary=vocabulary, seed=seed), EXCHANGES)
    return examples(name, count, vocabulary=vocabulary, seed=seed)


def examples(name: str, count: int, *, vocabulary: int, seed: int = 0) -> Dataset:
    """Examples as the collators take them, ids drawn at random below `vocabulary`; every response ends in EOS."""
    random = np.random.default_rng(seed)
    kinds = SETS[name]
    chosen = random.choice(len(kinds), size=count, p=[kind.share for kind in kinds])
    prompts, responses = [], []
    for number in chosen:
        kind = kinds[number]
        place = random.random()
        prompt_length = round(np.interp(place, LEVELS, kind.prompt))
        response_length = round(np.interp(random.random(), LEVELS, kind.responses[int(4 * place)]))
        rest = random.integers(1, vocabulary, size=prompt_length - kind.preamble)
        prompts.append([*preamble(int(number), kind.preamble), *rest.tolist()])
        body = random.integers(1, vocabulary, size=min(response_length, MAX_LENGTH - prompt_length) - 1)
        responses.append([*body.tolist(), EOS])
    whole = [before + answer for before, answer in zip(prompts, responses, strict=True)]
    return dataset(whole, [[[len(before), len(ids)]] for before, ids in zip(prompts, whole, strict=True)])


def answered(rows: Dataset, answers: int) -> Dataset:
    """As many rows, the first prompts now with as many answers each: theirs, and those of the rows after them."""
    pairs = []
    for place in range(len(rows)):
        asked, row = rows[place - place % answers], rows[place]
        pairs.append((asked["input_ids"][: asked["spans"][0][0]], row["input_ids"][row["spans"][0][0] :]))
    whole = [prompt + answer for prompt, answer in pairs]
    spans = [[[len(prompt), len(ids)]] for (prompt, _), ids in zip(pairs, whole, strict=True)]
    return dataset(whole, spans)


def conversations(rows: Dataset, exchanges: int) -> Dataset:
    """Each made of as many rows; all but the first of them without the preamble."""
    whole, spans = [], []
    for start in range(0, len(rows), exchanges):
        ids: list[int] = []
        learned = []
        for row in rows.select(range(start, start + exchanges)):
            cut = SETS["short"][0].preamble if ids else 0
            [[begin, end]] = row["spans"]
            learned.append([len(ids) + begin - cut, len(ids) + end - cut])
            ids += row["input_ids"][cut:]
        whole.append(ids)
        spans.append(learned)
    return dataset(whole, spans)


def dataset(whole: Sequence[Sequence[int]], spans: Sequence[Sequence[Sequence[int]]]) -> Dataset:
    """Examples with the columns that training reads."""
    return Dataset.from_dict(
        {
            "row_id": list(range(len(whole))),
            "input_ids": whole,
            "spans": spans,
            "tokens": list(map(len, whole)),
            "response_tokens": [sum(end - begin for begin, end in own) for own in spans],
        }
    )


def preamble(number: int, length: int) -> list[int]:
    """The ids that all prompts of a kind begin with: the first eight are those of every kind."""
    own = 100 + 100 * number
    return [*range(1, 1 + COMMON_TO_PREAMBLES), *range(own, own + length - COMMON_TO_PREAMBLES)]


def real_examples(path: Path, *, tokenizer: str, prompt: str) -> Dataset:
    """Rows of a file, as training would encode them."""
    records = read(Source(data=str(path), on_bad_row="drop")).rows.records
    policy = Policy(max_length=MAX_LENGTH, on_long_row="cut_response", loss_on="response")
    return encode_split(records, load_prompt(prompt, AutoTokenizer.from_pretrained(tokenizer)), policy).dataset
