"""Measures Heed next to other tools on a CPU; `make bench` calls it.

python -m bench.cpu                     # shapes of models, on short instructions
python -m bench.cpu --of jobs           # chats, Alpaca, several answers, LoRA, a real model's shape, loss on all
python -m bench.cpu --shapes s384 gpt2_small --dtype fp32 --variants heed trainer --rounds 5 --steps 8
python -m bench.cpu --shapes s384 --data rows.json --tokenizer FOLDER     # real rows instead of synthetic ones
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from bench.jobs import Job
from bench.limit import limit_tflops
from bench.measure import SFT_BEST, machine, result, run_apart
from bench.rows import real_examples
from bench.table import write_tables
from bench.variants import VARIANTS, missing


@dataclass(frozen=True, kw_only=True)
class Comparison:
    job: Job
    variants: tuple[str, ...]
    at_least: dict[str, float]
    """How much faster than a variant Heed is meant to be; shown beside what was measured, never asserted."""


TRAINERS = ("heed", "trainer", "sft_no_checkpointing", "sft_padding_free")
COMPARISONS: dict[str, tuple[Comparison, ...]] = {
    "shapes": (
        Comparison(
            job=Job(shape="s384", dtype="fp32"),
            variants=("heed", "textbook", "trainer", "sft_defaults", "sft_no_checkpointing", "sft_padding_free"),
            at_least={"trainer": 3.5},
        ),
        Comparison(
            job=Job(shape="pythia_70m", dtype="fp32"),
            variants=("heed", "trainer", "litgpt"),
            at_least={"litgpt": 3.0},
        ),
        Comparison(
            job=Job(shape="gpt2_small", dtype="fp32", steps=3),
            variants=("heed", "textbook", "trainer", "sft_padding_free"),
            at_least={"trainer": 3.2},
        ),
        Comparison(
            job=Job(shape="gpt2_small", dtype="bf16", steps=3),
            variants=("heed", "trainer"),
            at_least={"trainer": 2.0},
        ),
        Comparison(
            job=Job(shape="gpt2_medium", dtype="fp32", steps=2),
            variants=("heed", "trainer"),
            at_least={"trainer": 1.9},
        ),
    ),
    "jobs": (
        Comparison(
            job=Job(shape="s384", dtype="fp32", rows="chats", batch_size=4, steps=3),
            variants=TRAINERS,
            at_least={SFT_BEST: 4.0},
        ),
        Comparison(job=Job(shape="s384", dtype="fp32", rows="alpaca", steps=3), variants=TRAINERS, at_least={}),
        Comparison(job=Job(shape="s384", dtype="fp32", rows="answers"), variants=TRAINERS, at_least={}),
        Comparison(job=Job(shape="s384", dtype="fp32", loss_on="all"), variants=TRAINERS, at_least={}),
        Comparison(
            job=Job(shape="gpt2_small", dtype="fp32", lora_rank=16, steps=3),
            variants=("heed", "trainer", "sft_padding_free"),
            at_least={"trainer": 2.5},
        ),
        Comparison(
            job=Job(shape="smollm2_135m", dtype="fp32", steps=2),
            variants=("heed", "trainer", "sft_padding_free"),
            at_least={"trainer": 2.0},
        ),
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    args.out = args.out or Path(f"docs/performance-{args.of}.json")
    chosen = choose(args)
    runs: dict[Job, dict[str, list[dict[str, Any]]]] = {c.job: defaultdict(list) for c in chosen}
    limits: dict[Job, float] = {}
    started = time.perf_counter()
    # Rounds are the outer loop, so that all comparisons get about equally many, however much time there is.
    for number in range(args.rounds):
        for comparison in chosen:
            rows = rows_of(comparison.job, args, seed=number)
            for variant in comparison.variants:
                run = run_apart(variant, comparison.job, rows)
                runs[comparison.job][variant].append(run)
                speed = run["examples"] / run["seconds"]
                say(f"round {number + 1}  {comparison.job.name:40} {variant:22} {speed:8.2f} examples/s")
            limits[comparison.job] = max(limits.get(comparison.job, 0.0), limit_tflops(comparison.job, rows))
            results = [result(c.job, runs[c.job], c.at_least, limit=limits[c.job]) for c in chosen if runs[c.job]]
            report = {"machine": machine(), "minutes": (time.perf_counter() - started) / 60, "results": results}
            args.out.write_text(json.dumps(report, indent=1) + "\n")
        passed = (time.perf_counter() - started) / 60
        if passed * (number + 2) / (number + 1) > args.minutes:
            say(f"{number + 1} of {args.rounds} rounds in {passed:.1f} minutes; another would exceed {args.minutes:g}")
            break
    write_tables(args.out, args.page)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shapes = sorted({comparison.job.shape for group in COMPARISONS.values() for comparison in group})
    found.add_argument("--of", choices=list(COMPARISONS), default="shapes", help="what varies (default: %(default)s)")
    found.add_argument("--shapes", nargs="+", choices=shapes, default=shapes)
    found.add_argument("--dtype", choices=["fp32", "bf16"], help="only comparisons in this type")
    found.add_argument("--variants", nargs="+", choices=list(VARIANTS), help="default: those of each comparison")
    found.add_argument("--rounds", type=int, default=3, help="at most (default: %(default)s)")
    found.add_argument("--steps", type=int, help="timed steps of a run; default: those of each comparison")
    found.add_argument("--minutes", type=float, default=9.5, help="start no round that would exceed this")
    found.add_argument("--data", type=Path, help="a file of real rows; needs --tokenizer")
    found.add_argument("--tokenizer", help="of --data: a folder or Hub id")
    found.add_argument("--prompt", default="alpaca_short", help="of --data (default: %(default)s)")
    found.add_argument("--out", type=Path, help="default: docs/performance-OF.json")
    found.add_argument("--page", type=Path, default=Path("docs/performance.md"), help="where the tables are written")
    return found


def choose(args: argparse.Namespace) -> list[Comparison]:
    """The comparisons asked for, without the variants that are not installed, which are named once."""
    chosen = []
    absent: set[str] = set()
    for comparison in COMPARISONS[args.of]:
        if comparison.job.shape not in args.shapes or args.dtype not in (None, comparison.job.dtype):
            continue
        wanted = args.variants or comparison.variants
        absent |= {reason for variant in wanted if (reason := missing(variant))}
        rows = args.data.name if args.data else comparison.job.rows
        job = replace(comparison.job, rows=rows, steps=args.steps or comparison.job.steps)
        present = tuple(dict.fromkeys(("heed", *(variant for variant in wanted if not missing(variant)))))
        chosen.append(replace(comparison, job=job, variants=present))
    for reason in sorted(absent):
        say(f"left out: {reason}")
    return chosen


def rows_of(job: Job, args: argparse.Namespace, *, seed: int) -> Dataset:
    """New rows in each round, the same for all variants of a round."""
    if args.data is None:
        return job.examples(seed)
    rows = real_examples(args.data, tokenizer=args.tokenizer, prompt=args.prompt).shuffle(seed=seed)
    return rows.select(range(job.all_steps * job.batch_size))


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
