"""What a prompt and a tokenizer are known by."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

from heed import __version__
from heed.prompts.template import Prompt

if TYPE_CHECKING:
    pass


def tokenizer_digest(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return digest(backend.to_str() if backend is not None else tokenizer.get_vocab())


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def prompt_hash(prompt: Prompt) -> str:
    """SHA-256 over template, tokenizer and code version."""
    digest = hashlib.sha256()
    tokenizer = prompt.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    special_tokens = json.dumps({name: str(token) for name, token in tokenizer.special_tokens_map.items()})
    for part in (__version__, prompt.template, vocabulary, special_tokens):
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()
