"""A conversation with a model: what was said so far, and an answer that is shown as it is written."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from heed.answers.decoding import plain_generation
from heed.data.records import Message
from heed.errors import UserError
from heed.models.loading import context_length
from heed.prompts.template import Prompt


class Conversation:
    """Turns of user and assistant, with a system message in front if there is one."""

    def __init__(self, system: str | None = None) -> None:
        self.begin(system)

    def begin(self, system: str | None) -> None:
        self.system = system
        self.turns: list[Message] = []

    def asked(self, question: str) -> list[Message]:
        """What a model reads: all that was said, and the question."""
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *self.turns, {"role": "user", "content": question}]

    def add(self, question: str, answer: str) -> None:
        self.turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


class Interrupted(StoppingCriteria):
    """Ends an answer behind the token that is being written."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> Any:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


def stream_answer(
    model: Any,
    prompt: Prompt,
    messages: Sequence[Message],
    *,
    stop_token_ids: Sequence[int],
    max_new_tokens: int,
    write: Callable[[str], object],
) -> str:
    """The model's greedy answer; `write` gets it piece by piece. Ctrl-C ends it early, with what was written so far.

    Raises UserError when the conversation fills the model's context.
    """
    ids = prompt.encode_prompt(messages)
    room = context_length(model) - len(ids)
    if room < 1:
        raise UserError(
            f"the conversation has {len(ids)} tokens and the model has positions for {context_length(model)}, so there "
            "is no room for an answer; /reset begins anew"
        )
    tokenizer: Any = prompt.tokenizer
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    interrupted, failed = Interrupted(), []
    input_ids = torch.tensor([ids], device=model.device)

    def generate() -> None:
        try:
            with plain_generation(model):
                model.generate(
                    input_ids=input_ids,
                    attention_mask=torch.ones_like(input_ids),
                    do_sample=False,
                    num_beams=1,
                    use_cache=True,
                    max_new_tokens=min(max_new_tokens, room),
                    eos_token_id=list(stop_token_ids),
                    pad_token_id=prompt.eos_token_id,
                    streamer=streamer,
                    stopping_criteria=StoppingCriteriaList([interrupted]),
                )
        except BaseException as error:
            failed.append(error)
            streamer.end()

    thread = threading.Thread(target=generate)
    thread.start()
    pieces = []
    while True:
        try:
            for piece in streamer:
                pieces.append(piece)
                write(piece)
            break
        except KeyboardInterrupt:
            interrupted.event.set()
    thread.join()
    if failed:
        raise failed[0]
    return "".join(pieces)
