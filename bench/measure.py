"""Rounds A B C A B C, each run in a fresh process, summed up in medians and paired ratios.

The processes are forks of one that has imported everything and computed nothing (multiprocessing's forkserver). So the
variants of a round follow each other on the same machine within seconds, peak memory belongs to one variant, and what a
tool does to its process (allocator settings, patches of transformers) is gone when the next one starts.
"""

import gc
import multiprocessing
import os
import platform
import resource
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import datasets
import torch
import transformers
from datasets import Dataset

from bench.jobs import Job
from bench.models import SHAPES
from bench.variants import VARIANTS
from heed.hardware import cpu_name

SFT_BEST = "sft_best"
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "trl", "litgpt")


def run_apart(variant: str, job: Job, rows: Dataset) -> dict[str, Any]:
    """One run in its own process: the fields of Run, and peak_mb, which includes some 700 MB of imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.variants"])
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(variant, job, rows, theirs))
    process.start()
    theirs.close()
    try:
        found: dict[str, Any] = ours.recv()
    except EOFError:
        found = {"error": "the process died, perhaps out of memory"}
    process.join()
    if "error" in found:
        raise RuntimeError(f"{variant} on {job.name}: {found['error']}")
    return found


def serve(variant: str, job: Job, rows: Dataset, connection: Connection) -> None:
    quiet()
    try:
        run = asdict(VARIANTS[variant](job, rows))
        connection.send(run | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})
    except Exception:  # whatever a tool raises is reported by the process that asked
        connection.send({"error": traceback.format_exc()})


def run_here(variant: str, job: Job, rows: Dataset) -> dict[str, Any]:
    """One run in this process, whose GPU's peak memory is counted from zero for each."""
    gc.collect()
    if job.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    run = asdict(VARIANTS[variant](job, rows))
    return run | {"peak_mb": torch.cuda.max_memory_allocated() / 2**20 if job.device == "cuda" else 0.0}


def quiet() -> None:
    warnings.simplefilter("ignore")
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()


def summary(runs: Sequence[Mapping[str, Any]], job: Job) -> dict[str, Any]:
    """Medians over the runs of one variant.

    Useful operations: 6 for each weight of the blocks and each token, and for each weight of the head and each
    supervised token; 4 where the weights are frozen. Attention and padding do not count. Computed ones are the same for
    the tokens that a tool computed: what rows share counts once.
    """
    shape, steps = SHAPES[job.shape], job.steps

    def middle(value: Any) -> float:
        return float(median(value(run) for run in runs))

    def tflops(run: Mapping[str, Any], tokens: str, scored: str) -> float:
        weights = shape.block_weights * run[tokens] + shape.head_weights * run[scored]
        return float(1e-12 * job.operations_per_weight * weights / run["seconds"])

    return {
        "ms_per_step": middle(lambda run: 1000 * run["seconds"] / steps),
        "cpu_seconds_per_step": middle(lambda run: run["cpu_seconds"] / steps),
        "examples_per_second": middle(lambda run: run["examples"] / run["seconds"]),
        "supervised_per_second": middle(lambda run: run["supervised"] / run["seconds"]),
        "tokens_per_second": middle(lambda run: run["tokens"] / run["seconds"]),
        "useful_tflops": middle(lambda run: tflops(run, "tokens", "supervised")),
        "computed_tflops": middle(lambda run: tflops(run, "computed", "scored")),
        "peak_mb": middle(lambda run: run["peak_mb"]),
        "loss": middle(lambda run: run["loss"]),
        "runs": [dict(run) for run in runs],
    }


def ratios(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """How many times as fast we are per example: median, least and most over rounds, by the clock and by CPU time.

    CPU time stays comparable when others use the machine.
    """
    found = {}
    for name, key in (("wall", "seconds"), ("cpu", "cpu_seconds")):
        paired = [
            (their[key] / their["examples"]) / (our[key] / our["examples"])
            for our, their in zip(ours, theirs, strict=False)
        ]
        found[name] = [median(paired), min(paired), max(paired)]
    return found


def result(
    job: Job, runs: Mapping[str, Sequence[Mapping[str, Any]]], at_least: Mapping[str, float], *, limit: float
) -> dict[str, Any]:
    """One job of the JSON file; `at_least` are the ratios wanted, SFT_BEST being SFTTrainer's fastest setting.

    `limit` is what the machine can do, in TFLOP/s.
    """
    variants = {variant: summary(found, job) for variant, found in runs.items() if found}
    settings = [variant for variant in variants if variant.startswith("sft_")]
    if settings:
        best = max(settings, key=lambda variant: variants[variant]["examples_per_second"])
        at_least = {best if variant == SFT_BEST else variant: ratio for variant, ratio in at_least.items()}
    return {
        "job": asdict(job),
        "variants": variants,
        "heed_is_faster": {
            variant: ratios(runs["heed"], found) for variant, found in runs.items() if variant != "heed" and found
        },
        "at_least": dict(at_least),
        "limit_tflops": limit,
    }


def machine() -> dict[str, Any]:
    """Where it was measured, and with what."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    found = {"cpu": cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "versions": versions}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found
