"""What a prompt and a tokenizer are known by."""

import hashlib
import json
from typing import Any, cast

from heed import __version__
from heed.files.hashes import json_sha256
from heed.prompts.template import Prompt


def tokenizer_digest(tokenizer: Any) -> str:
    return digest(vocabulary(tokenizer))


def digest(value: Any) -> str:
    return json_sha256(value)[:16]


def prompt_hash(prompt: Prompt) -> str:
    """SHA-256 over template, tokenizer and code version."""
    digest = hashlib.sha256()
    special_tokens = json.dumps({name: str(token) for name, token in prompt.tokenizer.special_tokens_map.items()})
    for part in (__version__, prompt.template, vocabulary(prompt.tokenizer), special_tokens):
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()


def vocabulary(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return json.dumps(tokenizer.get_vocab(), sort_keys=True) if backend is None else cast("str", backend.to_str())
