"""What the machine can do at most: its own matrix products, in the shapes of a step of training."""

import time
from collections.abc import Callable

import torch
from datasets import Dataset

from bench.jobs import Job
from bench.models import SHAPES
from heed.models.products import multiplied, onednn_works

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
    """A layer's product and those of its gradients, each at best."""
    dtype = torch.bfloat16 if job.dtype == "bf16" else None
    given, weights = torch.randn(rows, inner, dtype=dtype), torch.randn(columns, inner, dtype=dtype)
    upstream = torch.randn(rows, columns, dtype=dtype)
    products = [(given, weights), (upstream, weights.T)]
    if not job.lora_rank:
        products.append((upstream.T, given.T))
    return sum(product_seconds(left, table) for left, table in products)


def product_seconds(left: torch.Tensor, table: torch.Tensor) -> float:
    """Of `left @ table.T`, by MKL or oneDNN."""
    into = torch.empty(len(left), len(table), dtype=left.dtype)
    seconds = [best_seconds(lambda: torch.mm(left, table.T, out=into))]
    if onednn_works():
        seconds.append(best_seconds(lambda: multiplied(left, table)))
    return min(seconds)


def best_seconds(run: Callable[[], object]) -> float:
    best, ends = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < ends or best == float("inf"):
        began = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - began)
    return best
