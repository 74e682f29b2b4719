"""What the machine can do at most: its own matrix products, in the shapes of a step of training."""

import time

import torch
from datasets import Dataset

from bench.jobs import Job
from bench.models import SHAPES

SECONDS = 0.2  # for each product; the fastest run counts, since other work on the machine only adds


def limit_tflops(job: Job, rows: Dataset) -> float:
    """TFLOP/s of the products of one step with all its tokens, forward and backward, and of nothing else.

    A tool that leaves out tokens, as Heed does with what several rows begin with, can be faster than this.
    """
    shape, steps = SHAPES[job.shape], job.all_steps
    tokens = sum(rows["tokens"]) // steps
    width = shape.width
    layers = [(tokens, width, columns, shape.layers) for columns in (3 * width, width, 4 * width)]
    supervised = sum(rows["response_tokens"]) // steps
    products = [*layers, (tokens, 4 * width, width, shape.layers), (supervised, width, shape.vocabulary, 1)]
    operations = seconds = 0.0
    for rows_of, inner, columns, times in products:
        operations += times * 6e-12 * rows_of * inner * columns
        seconds += times * step_seconds(rows_of, inner, columns, torch.bfloat16 if job.dtype == "bf16" else None)
    return operations / seconds


def step_seconds(rows: int, inner: int, columns: int, dtype: torch.dtype | None) -> float:
    """A layer's product and the two of its gradients, at best."""
    given, weights = torch.randn(rows, inner, dtype=dtype), torch.randn(inner, columns, dtype=dtype)
    upstream = torch.randn(rows, columns, dtype=dtype)
    best, ends = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < ends or best == float("inf"):
        began = time.perf_counter()
        given @ weights, upstream @ weights.T, given.T @ upstream
        best = min(best, time.perf_counter() - began)
    return best
