"""Prompts to responses: greedy text in left-padded batches, the same as one by one."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

from heed.errors import UserError
from heed.memory import BatchSize, forward_bytes, free_memory, rows_that_fit
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


# At most. On two CPU cores 64 rows of the tiny model are about as fast as 32 or 128, and faster than 16.
MOST_ROWS = 64
RELIEF = "allow fewer new tokens (max_new_tokens), or choose a smaller type for the weights (dtype: bfloat16)"


@torch.no_grad()
def generate(
    model: Any,
    prompt: Prompt,
    prompts_ids: Sequence[Sequence[int]],
    *,
    stop_token_ids: Sequence[int],
    batch_size: int | None,
    max_new_tokens: int,
    on_done: Callable[[int], object] = lambda count: None,
    say: Callable[[str], object] = print,
) -> list[Response]:
    """Greedy responses in the order of `prompts_ids`; `on_done` is told how many more are finished.

    Prompts of like length share a batch, so little is padded. Padding is on the left, and position ids follow the
    attention mask, so that a row's answer does not depend on its neighbours. A row that would reach the end of the
    model's context is answered alone, up to there. Without a `batch_size` memory sets it, and `say` is told; so it is
    when memory runs out. Raises UserError for a prompt that fills the context.
    """
    positions = context_length(model)
    lengths = list(map(len, prompts_ids))
    longest = max(lengths, default=0)
    if longest >= positions:
        raise UserError(f"a prompt of {longest} tokens leaves no room in the model's {positions} positions")
    if batch_size is None:
        new_tokens = min(max_new_tokens, positions - longest)
        needed, free = row_bytes(model, longest, new_tokens), free_memory(model.device)
        batch_size = rows_that_fit(free, needed, most=min(MOST_ROWS, len(prompts_ids)))
        say(f"{batch_size} rows at once (one takes up to {needed / 2**20:.1f} MiB, {free / 2**20:,.0f} MiB are free)")
    size = BatchSize(batch_size, key="batch_size", relief=RELIEF, say=say)
    answer = partial(respond, model, prompt, prompts_ids, stop_token_ids=stop_token_ids, max_new_tokens=max_new_tokens)
    responses: dict[int, Response] = {}
    for rows in together_and_alone(lengths, positions - max_new_tokens):
        for batch, answers in size.batches(rows, answer):
            responses.update(zip(batch, answers, strict=True))
            on_done(len(batch))
    return [responses[index] for index in range(len(prompts_ids))]


def row_bytes(model: Any, prompt_tokens: int, new_tokens: int) -> int:
    """About what a row takes: keys and values, what reading the prompt takes, and the scores of the next token.

    Memory grew by 0.8 to 1.1 times this (small GPT-2 and Pythia, prompts of 500 to 1,000 tokens, CPU).
    """
    config = model.config
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    width = config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * head_size
    cache = 2 * width * (prompt_tokens + new_tokens) * model.dtype.itemsize
    return cache + forward_bytes(config, tokens=prompt_tokens, scored=1, itemsize=model.dtype.itemsize)


def together_and_alone(lengths: Sequence[int], roomy: int) -> list[list[int]]:
    """Indices to cut batches from: all prompts up to `roomy` tokens, shortest first; then each longer one alone."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    together = [index for index in order if lengths[index] <= roomy]
    return [together, *([index] for index in order[len(together) :])]


def respond(
    model: Any,
    prompt: Prompt,
    prompts_ids: Sequence[Sequence[int]],
    batch: Sequence[int],
    *,
    stop_token_ids: Sequence[int],
    max_new_tokens: int,
) -> list[Response]:
    """The responses to the prompts of one batch, as far as the context reaches."""
    longest = max(len(prompts_ids[index]) for index in batch)
    began = time.perf_counter()
    generated = generate_batch(
        model,
        [prompts_ids[index] for index in batch],
        pad_token_id=prompt.eos_token_id,
        stop_token_ids=stop_token_ids,
        max_new_tokens=min(max_new_tokens, context_length(model) - longest),
    )
    seconds = (time.perf_counter() - began) / len(batch)
    responses = []
    for index, ids in zip(batch, generated, strict=True):
        stopped = bool(ids) and ids[-1] in stop_token_ids
        responses.append(
            Response(
                text=str(prompt.tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True)),
                finish_reason="stop" if stopped else "length",
                prompt_tokens=len(prompts_ids[index]),
                response_tokens=len(ids),
                seconds=seconds,
            )
        )
    return responses


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
