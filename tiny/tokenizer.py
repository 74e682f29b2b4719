"""How the tiny model cuts text into tokens: GPT-2's byte-level BPE, learned from its own small world."""

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Tokenizer

END = "<|endoftext|>"
VOCABULARY = 2000


def train_tokenizer(texts: Iterable[str], *, max_length: int) -> GPT2Tokenizer:
    """Learn the vocabulary; all 256 bytes are in it, so that any text can be encoded."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    learned = json.loads(bpe.to_str())["model"]
    merges: list[Any] = [tuple(pair) for pair in learned["merges"]]
    return GPT2Tokenizer(
        vocab=learned["vocab"],
        merges=merges,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,  # the clean-up would join the space before a quoted word
    )
