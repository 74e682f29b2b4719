"""Completion functions for OpenAI Evals; its processes import this by the names that the registry writes."""

import threading
from pathlib import Path
from typing import Any

from evals.api import CompletionFn, CompletionResult
from evals.record import record_sampling

from heed.answers.responses import read_responses
from heed.servers.client import LibraryClient

RETRIES = 8  # about 40 s of pauses; a request that fails after them ends the eval


class Text(CompletionResult):
    def __init__(self, text: str) -> None:
        self.text = text

    def get_completions(self) -> list[str]:
        return [self.text]


def last_words(prompt: Any) -> str:
    """What the user said last; evals hands over a conversation or its text."""
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


class Replay(CompletionFn):
    """Answers from a file in the format of responses.json, so that nothing is generated twice.

    A prompt that is not in the file is an error, not an empty answer.
    """

    def __init__(self, path: str, registry: Any = None) -> None:
        answers = read_responses(Path(path), say=lambda text: None)
        self.responses = {answer.user_content: answer.model_response for answer in answers}

    def __call__(self, prompt: Any, **options: Any) -> CompletionResult:
        text = self.responses[last_words(prompt)]
        record_sampling(prompt=prompt, sampled=[text])
        return Text(text)


class Ask(CompletionFn):
    """Asks a model with its own prompt contract. evals has ten threads; the model answers one of them at a time."""

    def __init__(self, model: str, max_new_tokens: int = 256, registry: Any = None) -> None:
        from heed.answers.subjects import find_prompt, load_subject
        from heed.runs.finished import Subject

        self.prompt, self.contract = find_prompt(model, None, None)
        self.model = load_subject(Subject(name="model", model=model), dtype="float32", bits=None)
        self.max_new_tokens = max_new_tokens
        self.one_at_a_time = threading.Lock()

    def __call__(self, prompt: Any, **options: Any) -> CompletionResult:
        from heed.answers.generation import generate

        messages: list[Any] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        with self.one_at_a_time:
            [response] = generate(
                self.model,
                self.prompt,
                [self.prompt.encode_prompt(messages)],
                stop_token_ids=self.contract.stop_token_ids,
                batch_size=1,
                max_new_tokens=self.max_new_tokens,
                engine="batch",
                say=lambda text: None,
            )
        record_sampling(prompt=prompt, sampled=[response.text])
        return Text(response.text)


class Judge(CompletionFn):
    """Asks a chat server. evals' own client has no limit in time or size, and follows redirects."""

    def __init__(self, model: str, api_base: str | None = None, registry: Any = None) -> None:
        self.model, self.client = model, LibraryClient(base_url=api_base, max_retries=RETRIES)

    def __call__(self, prompt: Any, **options: Any) -> CompletionResult:
        messages: list[Any] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        reply = self.client.chat.completions.create(model=self.model, messages=messages, **options)
        text = reply.choices[0].message.content or ""
        record_sampling(prompt=messages, sampled=[text], model=reply.model, usage=reply.usage)
        return Text(text)
