"""Prompts to responses by a model that is here: the same greedy text whichever engine writes it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from heed.answers.decoding import Finished, decode_batch, decode_one_by_one
from heed.answers.partial import OnResponse, Response
from heed.errors import UserError
from heed.models.loading import context_length
from heed.models.memory import BatchSize, forward_bytes, free_memory, rows_that_fit
from heed.prompts.template import Prompt
from heed.saying import Detail, Say

Engine = Literal["auto", "batch", "one"]
ENGINES: Mapping[Engine, Callable[..., Iterator[Finished]]] = {
    "batch": decode_batch,
    "one": decode_one_by_one,
}
# At most. On one CPU core 64 rows of a 30 M-parameter model are faster than 32 or 110.
MOST_ROWS = 64
RELIEF = "allow fewer new tokens (max_new_tokens), or choose a smaller type for the weights (dtype: bfloat16)"
# What a generation_config may contain without changing a greedy answer.
HARMLESS = {"bos_token_id", "eos_token_id", "pad_token_id", "max_length", "max_new_tokens", "transformers_version"}
HARMLESS |= {"_from_model_config", "use_cache", "output_attentions", "output_hidden_states"}


def generate(
    model: Any,
    prompt: Prompt,
    prompts_ids: Sequence[Sequence[int]],
    *,
    stop_token_ids: Sequence[int],
    batch_size: int | None,
    max_new_tokens: int,
    engine: Engine = "auto",
    on_response: OnResponse = lambda index, response: None,
    say: Say = print,
) -> list[Response]:
    """Greedy responses in the order of `prompts_ids`; `on_response` receives each as it is finished.

    All engines write the same text (in float32; in half precision two scores can be so near that it depends on the
    shape of the batch). A row that would reach the end of the model's context is answered up to there. Without a
    `batch_size` memory sets it, and `say` reports it; it also reports when memory runs out, and when the model's own
    generation_config asks for anything but greedy text. Raises UserError for a prompt that fills the context.
    """
    positions = context_length(model)
    longest = max(map(len, prompts_ids), default=0)
    if longest >= positions:
        raise UserError(f"a prompt of {longest} tokens leaves no room in the model's {positions} positions")
    if engine == "auto":
        engine, reason = choose_engine(model.device)
        say(Detail(f"engine {engine}: {reason}"))
    if engine == "one" and batch_size not in (None, 1):
        raise UserError(f"batch_size: {batch_size}, but engine: one answers one by one; leave one of them out")
    if put_aside := own_settings(model):
        say(f"the model's generation_config asks for {put_aside}; that is ignored, and answers are greedy")
    limits = [min(max_new_tokens, positions - len(ids)) for ids in prompts_ids]
    if batch_size is None and engine != "one" and prompts_ids:
        lengths = [len(ids) + limit for ids, limit in zip(prompts_ids, limits, strict=True)]
        needed, free = row_bytes(model, longest, max(lengths) - longest), free_memory(model.device)
        batch_size = rows_that_fit(free, needed, most=min(MOST_ROWS, len(prompts_ids)))
        memory = f"one takes up to {needed / 2**20:.1f} MiB, {free / 2**20:,.0f} MiB are free"
        say(Detail(f"{batch_size} rows at once ({memory})"))
    responses: dict[int, Response] = {}
    for index, ids, seconds in ENGINES[engine](
        model,
        prompts_ids,
        limits=limits,
        stop_token_ids=stop_token_ids,
        pad_token_id=prompt.eos_token_id,
        size=BatchSize(batch_size or 1, key="batch_size", relief=RELIEF, say=say),
    ):
        stopped = ids[-1] in stop_token_ids
        responses[index] = Response(
            text=prompt.answer_text(ids[:-1] if stopped else ids),
            finish_reason="stop" if stopped else "length",
            prompt_tokens=len(prompts_ids[index]),
            response_tokens=len(ids),
            seconds=seconds,
        )
        on_response(index, responses[index])
    return [responses[index] for index in range(len(prompts_ids))]


def choose_engine(device: torch.device) -> tuple[Literal["batch"], str]:
    """What `auto` means on a device, and why."""
    if device.type == "cpu":
        return "batch", "measured fastest on CPUs (docs/performance.md)"
    return "batch", f"measured fastest on CPUs; on {device.type} nothing has been measured yet"


def own_settings(model: Any) -> str:
    """What in the model's generation_config would change a greedy answer, as `key: value` pairs."""
    owner = model if isinstance(model, PreTrainedModel) else model.get_base_model()
    own = owner.generation_config.to_diff_dict()
    return ", ".join(f"{key}: {value}" for key, value in sorted(own.items()) if key not in HARMLESS and value)


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
