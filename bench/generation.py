"""Measures the generation engines next to each other on a CPU; `make bench-generation` calls it.

python -m bench.generation
python -m bench.generation --shapes s384 --engines padded batch --rounds 5

The prompts are as long as those of the short rows of bench/rows.py. Random weights never stop by themselves, so the
length of each answer is preset: exponential, at most 256, and unknown to the engines. All must write the same ids.
"""

import argparse
import json
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from bench.measure import machine, quiet
from bench.models import SHAPES, build
from bench.rows import examples
from bench.table import put, times, where
from heed.answers.decoding import Finished
from heed.answers.generation import ENGINES, MOST_ROWS
from heed.models.memory import BatchSize

MOST = 256
PADDED_ROWS = 16  # the fastest of 8, 16, 32 and 110
WANTED = {"batch": 8.0}  # times as fast as one by one; shown beside what was measured, never asserted


@dataclass(frozen=True, kw_only=True)
class Comparison:
    shape: str
    prompts: int
    mean: int
    """Of the answers' lengths."""
    threads: int

    @property
    def name(self) -> str:
        return f"{self.shape}, {self.prompts} prompts, answers of {self.mean}, {self.threads} thread(s)"


COMPARISONS = (
    Comparison(shape="s384", prompts=110, mean=40, threads=1),
    Comparison(shape="gpt2_small", prompts=110, mean=13, threads=2),  # 13 is the mean of the short rows' own answers
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Prompts, the preset lengths of their answers, and a stop id that no model writes."""

    prompts_ids: list[list[int]]
    limits: list[int]
    stop_token_id: int


def work(comparison: Comparison) -> Work:
    vocabulary = SHAPES[comparison.shape].vocabulary
    rows = examples("short", comparison.prompts, vocabulary=vocabulary, seed=0)
    lengths = random.Random(0)
    limits = [min(MOST, max(1, round(lengths.expovariate(1 / comparison.mean)))) for _ in rows]
    return Work(
        prompts_ids=[row["input_ids"][: row["spans"][0][0]] for row in rows],
        limits=limits,
        stop_token_id=vocabulary,
    )


class Limits(StoppingCriteria):
    """Ends each row of a padded batch at its own length."""

    def __init__(self, limits: Sequence[int], width: int) -> None:
        self.ends: Any = torch.tensor([width + limit for limit in limits])

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> Any:
        return input_ids.shape[1] >= self.ends


def padded(
    model: Any,
    prompts_ids: Sequence[Sequence[int]],
    *,
    limits: Sequence[int],
    stop_token_ids: Sequence[int],
    pad_token_id: int,
    size: BatchSize,
) -> Iterator[Finished]:
    """`model.generate` on left-padded batches of prompts of similar length; each waits for its longest answer."""
    order = sorted(range(len(prompts_ids)), key=lambda index: len(prompts_ids[index]))
    for start in range(0, len(order), PADDED_ROWS):
        batch = order[start : start + PADDED_ROWS]
        width = max(len(prompts_ids[index]) for index in batch)
        input_ids = torch.full((len(batch), width), pad_token_id)
        mask = torch.zeros_like(input_ids)
        for row, index in enumerate(batch):
            input_ids[row, width - len(prompts_ids[index]) :] = torch.tensor(prompts_ids[index])
            mask[row, width - len(prompts_ids[index]) :] = 1
        ends = Limits([limits[index] for index in batch], width)
        output = model.generate(
            input_ids=input_ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=max(limits[index] for index in batch),
            eos_token_id=list(stop_token_ids),
            pad_token_id=pad_token_id,
            stopping_criteria=StoppingCriteriaList([ends]),
        )
        for index, ids in zip(batch, output[:, width:].tolist(), strict=True):
            yield Finished(index, ids[: limits[index]], 0.0)


VARIANTS: dict[str, Callable[..., Iterator[Finished]]] = {str(name): engine for name, engine in ENGINES.items()}
VARIANTS["padded"] = padded


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    quiet()
    engines = list(dict.fromkeys(["one", *args.engines]))
    chosen = [each for each in COMPARISONS if each.shape in args.shapes]
    runs: dict[Comparison, dict[str, list[dict[str, float]]]] = {each: defaultdict(list) for each in chosen}
    started = time.perf_counter()
    for number in range(args.rounds):
        for comparison in chosen:
            answers = {}
            for engine in engines:
                run, answers[engine] = measure(comparison, engine)
                runs[comparison][engine].append(run)
                took = f"{run['seconds']:6.1f} s, CPU {run['cpu_seconds']:6.1f} s, load {run['load']:.1f}"
                print(f"round {number + 1}  {comparison.name:52} {engine:12} {took}", flush=True)
                assert answers[engine] == answers["one"], f"{engine} wrote other ids than one by one"
        minutes = (time.perf_counter() - started) / 60
        results = [result(each, found) for each, found in runs.items()]
        report = {"machine": machine(), "minutes": minutes, "results": results}
        args.out.write_text(json.dumps(report, indent=1) + "\n")
        if minutes * (number + 2) / (number + 1) > args.minutes:
            break
    text = render(report)
    print(text)
    put(args.page, args.out.stem, text)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shapes = [each.shape for each in COMPARISONS]
    found.add_argument("--shapes", nargs="+", choices=shapes, default=shapes)
    found.add_argument("--engines", nargs="+", choices=list(VARIANTS), default=["batch"])
    found.add_argument("--rounds", type=int, default=2, help="at most (default: %(default)s)")
    found.add_argument("--minutes", type=float, default=7.5, help="start no round that would exceed this")
    found.add_argument("--out", type=Path, default=Path("docs/performance-generation.json"))
    found.add_argument("--page", type=Path, default=Path("docs/performance.md"), help="where the tables are written")
    return found


def measure(comparison: Comparison, engine: str) -> tuple[dict[str, float], list[list[int]]]:
    """One run: what it took, and the ids it wrote. Two short answers beforehand are not timed."""
    torch.set_num_threads(comparison.threads)
    model = build(comparison.shape).eval()
    model.config.use_cache = True
    given = work(comparison)
    write(engine, model, given.prompts_ids[:2], [2, 2], given.stop_token_id)
    wall, cpu = time.perf_counter(), time.process_time()
    ids = write(engine, model, given.prompts_ids, given.limits, given.stop_token_id)
    return {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "load": os.getloadavg()[0],
        "prompt_tokens": sum(map(len, given.prompts_ids)),
        "tokens": sum(map(len, ids)),
    }, ids


def write(
    engine: str, model: PreTrainedModel, prompts_ids: Sequence[list[int]], limits: Sequence[int], stop_token_id: int
) -> list[list[int]]:
    rows = VARIANTS[engine](
        model,
        prompts_ids,
        limits=limits,
        stop_token_ids=[stop_token_id],
        pad_token_id=0,
        size=BatchSize(min(MOST_ROWS, len(prompts_ids)), key="batch_size", relief=""),
    )
    found = {index: ids for index, ids, _ in rows}
    return [found[index] for index in range(len(prompts_ids))]


def result(comparison: Comparison, runs: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    engines = {}
    for engine, found in runs.items():
        faster = {}
        for name, key in (("wall", "seconds"), ("cpu", "cpu_seconds")):
            ratio = [one[key] / each[key] for one, each in zip(runs["one"], found, strict=True)]
            faster[name] = [median(ratio), min(ratio), max(ratio)]
        engines[engine] = {"runs": list(found), "faster": faster}
    return {"comparison": asdict(comparison), "name": comparison.name, "engines": engines}


def render(report: Mapping[str, Any]) -> str:
    return "\n\n".join([where(report), *(table(found) for found in report["results"])])


def table(found: Mapping[str, Any]) -> str:
    first = found["engines"]["one"]["runs"][0]
    lines = [
        f"**{found['name']}**, {first['prompt_tokens']:.0f} prompt tokens, {first['tokens']:.0f} written, "
        f"{len(found['engines']['one']['runs'])} round(s)",
        "",
        "| engine | seconds | CPU seconds | tok/s | times one by one, by the clock | by CPU time | wanted |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for engine, each in found["engines"].items():
        seconds, cpu = (median(run[key] for run in each["runs"]) for key in ("seconds", "cpu_seconds"))
        faster = [times(each["faster"][name]) if engine != "one" else "" for name in ("wall", "cpu")]
        wanted = f"{WANTED[engine]:.1f} x" if engine in WANTED else ""
        cells = [engine, f"{seconds:.1f}", f"{cpu:.1f}", f"{first['tokens'] / seconds:.0f}", *faster, wanted]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
