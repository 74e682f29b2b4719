"""Measures Heed next to other tools on one GPU, in one call of less than nine minutes.

python -m bench.gpu --out docs/performance-gpu.json
python -m bench.gpu --device cpu --shape tiny --rounds 1 --steps 2 --out /tmp/smoke.json     # does it run at all?

In this order: what the GPU can do at most, checks (varlen attention, trees, graph against eager, losses against the
textbook's), a textbook's recipe at 8 examples a step, Alpaca-like rows at about 16,000 tokens a step, and the recipe
with its evaluations. What is known is written after each part, and a part that no longer fits into the time is
left out.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.checks import heed_synchronizes, losses_agree, varlen_attention_is_bottom_right_causal
from bench.jobs import Dtype, Job
from bench.measure import SFT_BEST, machine, quiet, result, run_here
from bench.models import SHAPES
from bench.recipe import heed_recipe, textbook_recipe
from bench.table import write_tables
from bench.variants import missing

PEAK_TFLOPS = 989  # bf16 without sparsity, NVIDIA's figure for H100 SXM and H200
SFT = ("sft_defaults", "sft_no_checkpointing", "sft_grouped", "sft_padding_free", "sft_packing")


class Report:
    """The JSON file, rewritten after every part, and the time that is left."""

    def __init__(self, out: Path, seconds: float) -> None:
        self.out = out
        self.started = time.perf_counter()
        self.seconds = seconds
        self.values: dict[str, Any] = {"machine": machine(), "minutes": 0.0, "results": [], "also": {}}

    def left(self) -> float:
        return self.seconds - (time.perf_counter() - self.started)

    def add(self, name: str, part: Callable[[], Any], *, needs: float) -> Any:
        """Runs a part if `needs` seconds are left, and keeps what it returns under its name.

        A check that fails is told and stops nothing: a machine is lent for minutes, and the rest is to be seen too.
        """
        try:
            found = part() if self.left() > needs else f"left out: {self.left():.0f} s left, {needs:.0f} needed"
        except (AssertionError, RuntimeError, ValueError) as error:
            found = f"FAILED: {type(error).__name__}: {str(error)[:300]}"
        self.values["also"][name] = found
        print(f"{self.seconds - self.left():5.0f} s  {name}: {found}", flush=True)
        self.write()
        return found

    def write(self) -> None:
        self.values["minutes"] = (time.perf_counter() - self.started) / 60
        self.out.write_text(json.dumps(self.values, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    quiet()
    report = Report(args.out, args.seconds)
    shape = args.shape
    short = Job(shape=shape, dtype="bf16", device=args.device, warm_up=4, steps=args.steps or 228)
    batch_size = 80 if args.device == "cuda" else 8
    alpaca = replace(short, rows="alpaca", batch_size=batch_size, warm_up=3, steps=args.steps or 12)
    few = replace(short, warm_up=2, steps=8, learning_rate=0.0)
    if args.device == "cuda":
        report.add("ceilings_tflops", lambda: ceilings(SHAPES[shape].width), needs=0)
        report.add("varlen_attention_errors", varlen_attention_is_bottom_right_causal, needs=0)
        report.add("heed_synchronizes", lambda: heed_synchronizes(few), needs=0)
    in_fp32 = replace(few, dtype="fp32")
    report.add("losses_with_trees_fp32", lambda: losses_agree(in_fp32, answers=4), needs=0)
    report.add("losses_of_graph_and_eager_fp32", lambda: losses_agree(in_fp32, "heed_graph", "heed"), needs=0)
    report.add("losses_with_one_head_fp32", lambda: losses_agree(in_fp32, "heed_head", "heed"), needs=0)
    report.add("losses_fp32", lambda: losses_agree(in_fp32), needs=0)
    report.add("losses_bf16", lambda: losses_agree(few), needs=0)
    report.add("losses_with_trees_bf16", lambda: losses_agree(few, answers=4), needs=0)
    names = ("heed_graph", "heed_head", "trainer", *SFT)
    others: list[tuple[str, Dtype]] = [(name, "bf16") for name in names if not missing(name)]
    against_textbook = {"textbook fp32": 4.0, SFT_BEST: 2.0}
    compare(report, short, [("heed", "bf16"), ("textbook", "fp32"), *others], args.rounds, against_textbook)
    compare(report, alpaca, [("heed", "bf16"), *others], args.rounds, {SFT_BEST: 2.0})
    report.add("recipe_seconds_heed_bf16", lambda: heed_recipe(short), needs=40)
    report.add("recipe_seconds_textbook_fp32", lambda: textbook_recipe(replace(short, dtype="fp32")), needs=40)
    write_tables(args.out, args.page)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    found.add_argument("--shape", choices=list(SHAPES), default="gpt2_medium")
    found.add_argument("--rounds", type=int, default=2, help="at most (default: %(default)s)")
    found.add_argument("--steps", type=int, help="timed steps of a run (default: 228 of 8 examples, 12 of 80)")
    found.add_argument("--seconds", type=float, default=520, help="start nothing that would exceed this")
    found.add_argument("--out", type=Path, default=Path("docs/performance-gpu.json"))
    found.add_argument("--page", type=Path, default=Path("docs/performance.md"), help="where the tables are written")
    return found


def compare(
    report: Report, job: Job, variants: Sequence[tuple[str, Dtype]], rounds: int, at_least: dict[str, float]
) -> None:
    """Rounds A B C A B C in this process. A variant that fails (out of memory, say) is reported and not run again."""
    rows = job.examples()
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    last: dict[str, float] = {}
    for _ in range(rounds):
        for variant, dtype in variants:
            label = variant if dtype == job.dtype else f"{variant} {dtype}"
            if report.left() < last.get(label, 30):
                continue
            started = time.perf_counter()
            try:
                runs[label].append(run_here(variant, replace(job, dtype=dtype), rows))
            except (RuntimeError, ValueError) as error:
                report.values["also"][f"{job.name}: {label} failed"] = str(error)[:300]
                last[label] = float("inf")
                continue
            last[label] = time.perf_counter() - started
            speed = runs[label][-1]["examples"] / runs[label][-1]["seconds"]
            print(f"{report.seconds - report.left():5.0f} s  {job.name}  {label}  {speed:.1f} examples/s", flush=True)
    if not runs.get("heed"):
        return
    report.values["results"].append(result(job, runs, at_least, limit=PEAK_TFLOPS))
    report.write()


def ceilings(width: int) -> dict[str, float]:
    """TFLOP/s of bf16 products: a large square one, and those of an MLP at several numbers of tokens."""
    sizes = {"8192^3": (8192, 8192, 8192)}
    sizes |= {f"{tokens} tokens": (tokens, width, 4 * width) for tokens in (304, 464, 1024, 16384)}
    found = {}
    for name, (rows, inner, columns) in sizes.items():
        left = torch.randn(rows, inner, device="cuda", dtype=torch.bfloat16)
        right = torch.randn(inner, columns, device="cuda", dtype=torch.bfloat16)
        for _ in range(5):
            left @ right
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(50):
            left @ right
        end.record()
        torch.cuda.synchronize()
        found[name] = round(50 * 2 * rows * inner * columns / start.elapsed_time(end) / 1e9, 1)
    return found


if __name__ == "__main__":
    main()
