"""What the machine can do at most: its own matrix products, in the shapes of a step of training."""

import time
from collections.abc import Callable

import torch
from datasets import Dataset
from torch.nn.functional import linear

from bench.jobs import Job
from bench.models import SHAPES

SECONDS = 0.1  # for each product; the fastest run counts, since other work on the machine only adds


def limit_tflops(job: Job, rows: Dataset) -> float:
    """TFLOP/s of the products of one step with all its tokens, forward and backward, and of nothing else.

    A tool that leaves out tokens, as Heed does with what several rows begin with, can be faster than this.
    """
    shape, steps = SHAPES[job.shape], job.all_steps
    tokens = sum(rows["tokens"]) // steps
    supervised = sum(rows["response_tokens"]) // steps if job.loss_on == "response" else tokens - job.batch_size
    seconds = sum(shape.layers * step_seconds(job, tokens, inner, columns) for inner, columns in shape.products)
    seconds += step_seconds(job, supervised, shape.width, shape.vocabulary)
    return (
        1e-12 * job.operations_per_weight * (tokens * shape.block_weights + supervised * shape.head_weights) / seconds
    )


def step_seconds(job: Job, rows: int, inner: int, columns: int) -> float:
    """A layer's product and those of its gradients, each at best: the first by MKL or oneDNN."""
    dtype = torch.bfloat16 if job.dtype == "bf16" else None
    given, weights = torch.randn(rows, inner, dtype=dtype), torch.randn(columns, inner, dtype=dtype)
    upstream, for_weights = torch.randn(rows, columns, dtype=dtype), torch.empty(columns, inner, dtype=dtype)
    ways: list[list[Callable[[], object]]] = [
        [lambda: given @ weights.T, lambda: linear(given.to_mkldnn(), weights)],
        [lambda: upstream @ weights],
    ]
    if not job.lora_rank:
        ways.append([lambda: torch.mm(upstream.T, given, out=for_weights)])
    return sum(min(map(best_seconds, product)) for product in ways)


def best_seconds(run: Callable[[], object]) -> float:
    best, ends = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < ends or best == float("inf"):
        began = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - began)
    return best
