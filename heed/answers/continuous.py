"""Greedy decoding by transformers' continuous batching: keys and values in pages, rows of any length side by side."""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from heed.answers.decoding import Finished
from heed.models.memory import BatchSize, is_out_of_memory

PAGE_SIZE = 32  # tokens; pages of 16 and 64 were within the noise, the default of 256 was slower
BATCH_TOKENS = 512  # what is read in one step; longer prompts are read in several
# From 5.18 to 5.23 the size of a page changed its name, and flash attention may be fetched from the Hub unasked.
KNOWN = {field.name for field in fields(ContinuousBatchingConfig)}


def decode_continuously(
    model: Any,
    prompts_ids: Sequence[Sequence[int]],
    *,
    limits: Sequence[int],
    stop_token_ids: Sequence[int],
    pad_token_id: int,
    size: BatchSize,
) -> Iterator[Finished]:
    """The same answers, each as it is finished. Sizes are set from the prompts: the defaults are very slow on CPUs.

    `seconds` is the time since the answer before it: which rows took part in a step is not told, so only the sum means
    something. Not to be called inside torch.inference_mode. When memory runs out, `size` is halved, and the rows that
    were in work begin anew.
    """
    assert not torch.is_inference_mode_enabled(), "continuous batching fails inside torch.inference_mode"
    # Neighbours in this order share what they begin with, and such pages are kept once.
    left = sorted(range(len(prompts_ids)), key=lambda index: list(prompts_ids[index]), reverse=True)
    while left:
        rows = min(size.rows, len(left))
        failed = False
        began = time.perf_counter()
        with (
            quiet(),
            model.continuous_batching_context_manager(
                generation_config=GenerationConfig(
                    do_sample=False, eos_token_id=list(stop_token_ids), pad_token_id=pad_token_id
                ),
                continuous_batching_config=settings(
                    [len(prompts_ids[index]) + limits[index] for index in left], rows=rows
                ),
                warmup=False,
            ) as manager,
        ):
            for index in left:
                manager.add_request(list(prompts_ids[index]), request_id=str(index), max_new_tokens=limits[index])
            try:
                for result in results(manager, len(left)):
                    if result.error is not None:
                        failed = True
                        if not ran_out_of_memory(result.error):
                            raise RuntimeError(f"continuous batching failed: {result.error}")
                        continue
                    now = time.perf_counter()
                    left.remove(int(result.request_id))
                    yield Finished(int(result.request_id), list(result.generated_tokens), now - began)
                    began = now
            except BaseException:  # Ctrl-C too: the manager would first answer all that is left
                for index in left:
                    manager.cancel_request(str(index))
                raise
        if failed:
            size.halve(rows)


def settings(lengths: Sequence[int], *, rows: int) -> ContinuousBatchingConfig:
    """Room for `rows` rows at once, the longest together, so that none is ever put off for want of pages."""
    pages = sorted((math.ceil(length / PAGE_SIZE) + 1 for length in lengths), reverse=True)
    chosen: dict[str, Any] = {
        "page_size" if "page_size" in KNOWN else "block_size": PAGE_SIZE,
        "num_blocks": sum(pages[:rows]),
        "max_batch_tokens": max(BATCH_TOKENS, rows),
        "max_requests_per_batch": rows,
    }
    if "auto_switch_to_flash" in KNOWN:
        chosen["auto_switch_to_flash"] = False
    return ContinuousBatchingConfig(**chosen)


def results(manager: Any, count: int) -> Iterator[Any]:
    """What the manager finishes, `count` results in all. Raises RuntimeError when its thread ends before."""
    finished = 0
    while finished < count:
        result = manager.get_result(timeout=1)
        if result is not None:
            finished += 1
            yield result
        elif not manager.is_running():
            raise RuntimeError(f"continuous batching ended with {count - finished} of {count} rows unanswered")


def ran_out_of_memory(error: str) -> bool:
    return "out of memory" in error or is_out_of_memory(RuntimeError(error))


@contextmanager
def quiet() -> Iterator[None]:
    """transformers warns of the attention it was told to use, and of each id it wrote beyond a row's limit."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
