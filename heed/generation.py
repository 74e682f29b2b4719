"""Prompts to responses: greedy text in left-padded batches, the same as one by one."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from heed.errors import UserError
from heed.modeling import context_length
from heed.prompts import Prompt


@dataclass(frozen=True, kw_only=True)
class Response:
    """What a model wrote. `text` is decoded from the ids it generated, up to the stop id; nothing is searched for."""

    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    response_tokens: int
    """Generated ids, the stop id included."""
    seconds: float
    """The batch's time divided by its size."""


@torch.no_grad()
def generate(
    model: Any,
    prompt: Prompt,
    prompts_ids: Sequence[Sequence[int]],
    *,
    stop_token_ids: Sequence[int],
    batch_size: int,
    max_new_tokens: int,
    on_done: Callable[[int], object] = lambda count: None,
) -> list[Response]:
    """Greedy responses in the order of `prompts_ids`; `on_done` is told how many more are finished.

    Prompts of like length share a batch, so little is padded. Padding is on the left, and position ids follow the
    attention mask, so that a row's answer does not depend on its neighbours. A row that would reach the end of the
    model's context is answered alone, up to there. Raises UserError for a prompt that fills the context.
    """
    positions = context_length(model)
    responses: dict[int, Response] = {}
    for batch in plan_batches(list(map(len, prompts_ids)), batch_size, positions - max_new_tokens):
        longest = max(len(prompts_ids[index]) for index in batch)
        if longest >= positions:
            raise UserError(f"a prompt of {longest} tokens leaves no room in the model's {positions} positions")
        began = time.perf_counter()
        generated = generate_batch(
            model,
            [prompts_ids[index] for index in batch],
            pad_token_id=prompt.eos_token_id,
            stop_token_ids=stop_token_ids,
            max_new_tokens=min(max_new_tokens, positions - longest),
        )
        seconds = (time.perf_counter() - began) / len(batch)
        for index, ids in zip(batch, generated, strict=True):
            stopped = bool(ids) and ids[-1] in stop_token_ids
            responses[index] = Response(
                text=str(prompt.tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True)),
                finish_reason="stop" if stopped else "length",
                prompt_tokens=len(prompts_ids[index]),
                response_tokens=len(ids),
                seconds=seconds,
            )
        on_done(len(batch))
    return [responses[index] for index in range(len(prompts_ids))]


def plan_batches(lengths: Sequence[int], batch_size: int, roomy: int) -> Iterator[list[int]]:
    """Indices in batches, shortest prompts first; prompts over `roomy` tokens go alone."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    together = [index for index in order if lengths[index] <= roomy]
    for start in range(0, len(together), batch_size):
        yield together[start : start + batch_size]
    for index in order[len(together) :]:
        yield [index]


def generate_batch(
    model: Any,
    prompts_ids: Sequence[Sequence[int]],
    *,
    pad_token_id: int,
    stop_token_ids: Sequence[int],
    max_new_tokens: int,
) -> list[list[int]]:
    """The ids each prompt is continued with, ending in a stop id or at `max_new_tokens`."""
    longest = max(map(len, prompts_ids))
    input_ids = torch.full((len(prompts_ids), longest), pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(prompts_ids):
        input_ids[row, longest - len(ids) :] = torch.tensor(list(ids))
        attention_mask[row, longest - len(ids) :] = 1
    output = model.generate(
        input_ids=input_ids.to(model.device),
        attention_mask=attention_mask.to(model.device),
        do_sample=False,
        num_beams=1,
        use_cache=True,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stop_token_ids),
        pad_token_id=pad_token_id,
    )
    return [cut_at_stop(ids, stop_token_ids) for ids in output[:, longest:].tolist()]


def cut_at_stop(ids: list[int], stop_token_ids: Sequence[int]) -> list[int]:
    """Up to and including the first stop id; behind it a batch only holds padding."""
    for place, token_id in enumerate(ids):
        if token_id in stop_token_ids:
            return ids[: place + 1]
    return ids
