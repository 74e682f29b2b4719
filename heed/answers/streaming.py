"""A greedy answer that is shown while it is written."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import StoppingCriteria, TextStreamer

from heed.answers.decoding import decode_alone
from heed.data.records import Message
from heed.errors import UserError, is_out_of_memory
from heed.models.loading import context_length
from heed.prompts.template import Prompt


@dataclass(frozen=True, kw_only=True)
class Streamed:
    text: str
    cut: bool
    """It ended before the model did."""


class NoRoom(UserError):
    """A conversation that fills the model's context."""


class Pieces(TextStreamer):
    """Passes on words as they are finished, without what the template itself writes before an answer."""

    def __init__(self, prompt: Prompt, write: Callable[[str], object]) -> None:
        super().__init__(prompt.tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.write, self.written = write, ""
        self.opening, self.held = prompt.opening, ""

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.held += text
        if not stream_end and self.held != self.opening and self.opening.startswith(self.held):
            return  # this may become the opening
        text, self.held, self.opening = self.held.removeprefix(self.opening), "", ""
        self.written += text
        self.write(text)


class Stopped(StoppingCriteria):
    """Ends an answer after the token that is being written."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> Any:
        return torch.full((len(input_ids),), self.stop.is_set(), device=input_ids.device)


def stream_answer(
    model: Any,
    prompt: Prompt,
    messages: Sequence[Message],
    *,
    stop_token_ids: Sequence[int],
    max_new_tokens: int,
    write: Callable[[str], object],
    stop: threading.Event | None = None,
) -> Streamed:
    """The same text as `generate` gives; `write` gets it piece by piece.

    `stop` and Ctrl-C end it early, with what was written so far. Raises NoRoom for a conversation that fills the
    context of the model, and UserError for one that fills the memory.
    """
    ids = prompt.encode_prompt(messages)
    room = context_length(model) - len(ids)
    if room < 1:
        raise NoRoom(
            f"the conversation has {len(ids)} tokens and the model has positions for {context_length(model)}, so there "
            "is no room for an answer"
        )
    pieces = Pieces(prompt, write)
    try:
        written = decode_alone(
            model,
            ids,
            limit=min(max_new_tokens, room),
            stop_token_ids=stop_token_ids,
            pad_token_id=prompt.eos_token_id,
            streamer=pieces,
            stopping_criteria=[Stopped(stop or threading.Event())],
        )
    except KeyboardInterrupt:
        pieces.end()
        return Streamed(text=pieces.written, cut=True)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"not enough memory for a conversation of {len(ids)} tokens") from error
    whole = bool(written) and written[-1] in stop_token_ids
    return Streamed(text=prompt.answer_text(written[:-1] if whole else written), cut=not whole)
