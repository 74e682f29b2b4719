"""lm_eval asks a model its tasks, and every number keeps the items it comes from."""

import functools
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval import evaluator

from heed.benchmarks import compat
from heed.benchmarks.asking import FOLDER, Asking, Outcome, Score, mean_of
from heed.benchmarks.loaded import Loaded
from heed.benchmarks.question import Question
from heed.benchmarks.suite import Benchmark
from heed.benchmarks.tasks import OFFLINE_HELP, SQUAD, Tasks
from heed.errors import UserError, reason_of
from heed.files import run_folder

REQUESTS = "requests"
SAMPLES_FILE = "samples.jsonl"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How a benchmark is asked."""

    num_fewshot: int | None
    """None: as many examples as the task itself says."""
    chat_template: bool
    limit: int | None
    """Only the first items of each task."""


def lm_eval_questions(
    asking: Asking, benchmark: Benchmark, templates: Sequence[bool], num_fewshot: int | None, data_root: Path | None
) -> list[Question]:
    tasks = Tasks(benchmark, data_root=data_root)
    return [
        question(tasks, Setup(num_fewshot=num_fewshot, chat_template=template, limit=asking.limit))
        for template in templates
    ]


def question(tasks: Tasks, setup: Setup) -> Question:
    words = [tasks.benchmark.name, "template" if setup.chat_template else "text"]
    words += [] if setup.num_fewshot is None else [f"{setup.num_fewshot}shot"]
    words += [] if setup.limit is None else [f"limit{setup.limit}"]
    return Question(
        benchmark=tasks.benchmark,
        variant="-".join(words),
        key={
            "library": library(),
            "tasks": tasks.versions(),
            "num_fewshot": setup.num_fewshot,
            "chat_template": setup.chat_template,
            "limit": setup.limit,
            "n_full": sum(len(task.eval_docs) for task in tasks.tasks.values()),
            "data": tasks.data(),
            "data_sha256": tasks.data_sha256(setup.limit),
        },
        library=library(),
        tasks=tasks,
        ask=functools.partial(ask_model, tasks, setup),
    )


def library() -> str:
    return f"lm_eval {metadata.version('lm_eval')}"


def ask_model(tasks: Tasks, setup: Setup, loaded: Loaded, key: dict[str, Any], folder: Path) -> Outcome:
    from heed.benchmarks.contract_lm import ContractLM

    asking, uses_template = loaded.asking, setup.chat_template
    lm = ContractLM(
        loaded.model(), asking.prompt, asking.contract, chat_template=uses_template, batch_size=asking.batch_size
    )
    requests = asking.folder / FOLDER / REQUESTS / requests_name(key, uses_template=uses_template)
    began = time.perf_counter()
    results = ask(lm, tasks, setup, requests=requests)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [sample_line(name, each) for name, samples in results["samples"].items() for each in samples]
    run_folder.write_lines(folder / SAMPLES_FILE, lines)
    return Outcome(
        key=key,
        scores=read_scores(tasks, results),
        notes=cut_notes(lm, results),
        seconds=time.perf_counter() - began,
    )


def requests_name(key: Mapping[str, Any], *, uses_template: bool) -> str:
    """Where a killed run finds its answers: the name says all that they depend on besides the request itself."""
    stops = "-".join(map(str, key["stop_token_ids"]))
    rounded = "".join(f"{bits}bit-" for bits in (4, 8) if key.get(f"load_in_{bits}bit"))
    weights = f"{key['model_sha256'][:16]}-{rounded}{key['dtype']}"
    return f"{weights}-{key['contract'][:16]}-stop{stops}-{'template' if uses_template else 'text'}"


def cut_notes(lm: Any, results: Mapping[str, Any]) -> list[str]:
    """What did not fit the model's context: prompts, which lm_eval cuts at their beginning, and room for answers."""
    samples = [sample for each in results["samples"].values() for sample in each]
    over = [tokens for sample in samples if (tokens := lm.tokens_over(sample))]
    cramped = sum(lm.is_cramped(sample) for sample in samples)
    lines = []
    if over:
        lines.append(
            f"{len(over)} of {len(samples)} prompts are longer than the model's {lm.max_length} positions and lost "
            f"their beginning, up to {max(over)} tokens"
        )
    if cramped:
        lines.append(f"{cramped} of {len(samples)} answers had less room in the model's positions than the task allows")
    return lines


def ask(lm: Any, tasks: Tasks, setup: Setup, *, requests: Path | None = None) -> dict[str, Any]:
    """lm_eval's results, samples included. Answers are kept in the file `requests` as they come in.

    Raises UserError when the metric that scores the answers cannot be loaded.
    """
    try:
        with compat.metrics_in(tasks.data_root):
            results = evaluator.simple_evaluate(
                model=lm,
                tasks=list(tasks.benchmark.tasks),
                task_manager=tasks,
                num_fewshot=setup.num_fewshot,
                limit=setup.limit,
                apply_chat_template=setup.chat_template,
                fewshot_as_multiturn=setup.chat_template,
                use_cache=str(requests.resolve()) if requests else None,
                bootstrap_iters=0,
                log_samples=True,
            )
    except (FileNotFoundError, LookupError) as error:
        system = tasks.benchmark.system
        raise UserError(f"{system}: it could not be scored ({reason_of(error)}); {OFFLINE_HELP}") from error
    assert results is not None  # this is the only process
    return dict(results)


def read_scores(tasks: Tasks, results: dict[str, Any]) -> list[Score]:
    """Every metric of every task and group, with the items it comes from."""
    parents = tasks.parents()
    leaves = {
        name: [
            leaf_score(tasks, results, name, metric, part_of=parents.get(name))
            for metric in metrics_of(results["results"][name])
        ]
        for name in tasks.tasks
    }
    scores = []
    for group, numbers in results.get("groups", {}).items():
        members = [leaf.task_name for leaf in tasks.groups[group].get_all_tasks()]
        for metric in metrics_of(numbers):
            parts = [score for name in members for score in leaves[name] if score.metric == short(metric)]
            scores.append(group_score(results, group, float(numbers[metric]), parts, part_of=parents.get(group)))
    return scores + [score for each in leaves.values() for score in each]


def metrics_of(numbers: dict[str, Any]) -> list[str]:
    """lm_eval's keys `metric,filter`, standard errors and labels left out."""
    return [
        key for key in numbers if "," in key and not key.partition(",")[0].endswith("_stderr") and "bypass" not in key
    ]


def short(metric: str) -> str:
    return metric.removesuffix(",none")


def leaf_score(tasks: Tasks, results: dict[str, Any], name: str, metric: str, *, part_of: str | None) -> Score:
    task = tasks.tasks[name]
    base, _, chosen = metric.partition(",")
    samples = [sample for sample in results["samples"][name] if sample["filter"] == chosen and base in sample]
    samples.sort(key=lambda sample: sample["doc_id"])
    scale = 100 if name == SQUAD else 1  # the only task that lm_eval reports in percent
    return Score(
        task=name,
        metric=short(metric),
        value=float(results["results"][name][metric]) / scale,
        values={name: item_values(tasks, name, base, samples)},
        n=int(results["n-samples"][name]["effective"]),
        n_full=int(results["n-samples"][name]["original"]),
        fewshot=int(results["n-shot"].get(name) or 0),
        version=str(results["versions"].get(name)),
        higher_is_better=bool(task.higher_is_better().get(base, True)),
        chance=chance(task, base, samples),
        commonest=commonest(base, samples),
        part_of=part_of,
        note=tasks.fixed.get(name),
    )


def item_values(tasks: Tasks, name: str, metric: str, samples: Sequence[dict[str, Any]]) -> list[Any]:
    """What the metric is aggregated from; for SQuAD, whose items are texts, what it is for each item alone."""
    values = [plain(sample[metric]) for sample in samples]
    if name != SQUAD:
        return values
    if metric not in ("exact", "f1"):  # the others cover a part of the items only
        return []
    scorer = tasks.squad_scorer()
    return [scorer.compute(predictions=[answer], references=[wanted])[metric] / 100 for answer, wanted in values]


def plain(value: Any) -> Any:
    """The value as JSON keeps it, so that it is the same when it is read again."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def group_score(
    results: dict[str, Any], group: str, value: float, parts: Sequence[Score], *, part_of: str | None
) -> Score:
    return Score(
        task=group,
        metric=parts[0].metric,
        value=value,
        values={name: values for part in parts for name, values in part.values.items()},
        n=sum(part.n for part in parts),
        n_full=sum(part.n_full for part in parts),
        fewshot=parts[0].fewshot,
        version=str(results["versions"].get(group)),
        higher_is_better=parts[0].higher_is_better,
        chance=mean_of([(part.chance, len(part.pooled)) for part in parts]),
        commonest=mean_of([(part.commonest, len(part.pooled)) for part in parts]),
        part_of=part_of,
    )


def chance(task: Any, metric: str, samples: Sequence[dict[str, Any]]) -> float | None:
    """What guessing scores on these very items: one over the number of choices, on average. None where unknown."""
    if task.OUTPUT_TYPE != "multiple_choice" or not samples:
        return None
    if metric == "mcc":
        return 0.0
    if metric in ("acc", "acc_norm"):
        return math.fsum(1 / len(sample["arguments"]) for sample in samples) / len(samples)
    if metric == "em":  # ReCoRD: every right entity counts
        return math.fsum(len(set(sample["doc"]["answers"])) / len(sample["arguments"]) for sample in samples) / len(
            samples
        )
    return None


def commonest(metric: str, samples: Sequence[dict[str, Any]]) -> float | None:
    """What always giving the commonest target scores on these items: a class, a choice's place, or a text."""
    if metric not in ("acc", "acc_norm", "exact_match") or not samples:
        return None
    [(_, times)] = Counter(str(sample["target"]) for sample in samples).most_common(1)
    return times / len(samples)


def sample_line(task: str, sample: dict[str, Any]) -> dict[str, Any]:
    prompt, wanted = sample["arguments"][0]
    return {
        "task": task,
        "doc_id": sample["doc_id"],
        "prompt": prompt,
        "choices": [continuation for _, continuation in sample["arguments"]] if isinstance(wanted, str) else None,
        "target": sample["target"],
        "responses": sample["filtered_resps"],
        "metrics": {name: sample[name] for name in sample["metrics"] if name in sample and task != SQUAD},
        "filter": sample["filter"],
        "doc": sample["doc"],
    }
