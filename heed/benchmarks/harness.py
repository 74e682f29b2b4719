"""lm_eval: its tasks are loaded once, a model is asked all of them, and every number keeps the items it comes from."""

import contextlib
import functools
import hashlib
import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import evaluate
import lm_eval.tasks
import numpy as np
from lm_eval import evaluator
from lm_eval.tasks import TaskManager

from heed.benchmarks import compat
from heed.benchmarks.outcomes import Outcome, Score, write_numbers
from heed.benchmarks.suite import Benchmark
from heed.errors import UserError
from heed.files import run_folder

HUMANEVAL, IFEVAL, SQUAD = "humaneval", "ifeval", "squadv2"
SAMPLES_FILE = "samples.jsonl"
OFFLINE_HELP = (
    "give a folder that mirrors the Hub with data_root: FOLDER (docs/guide/benchmarks.md says how it looks), or run "
    "once with a connection"
)


PROBE = "A sentence. And another one."
"""An answer that is scored before any model is asked."""
PUNKT_HELP = (
    "some of its instructions are checked with nltk's punkt_tab, which is not here and could not be fetched; with a "
    "connection: `python -m nltk.downloader punkt_tab` (NLTK_DATA names a folder it was put into)"
)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How a benchmark is asked."""

    num_fewshot: int | None
    """None: as many examples as the task itself says."""
    chat_template: bool
    limit: int | None
    """Only the first items of each task."""


class Tasks:
    """The tasks of a benchmark, loaded and mended before a model is needed. For lm_eval it is a task manager."""

    def __init__(self, benchmark: Benchmark, *, data_root: Path | None) -> None:
        manager = task_manager(benchmark)
        self.task_index = manager.task_index
        self.benchmark = benchmark
        self.data_root = data_root
        compat.supply_squad_metrics()
        datasets.disable_progress_bars()
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        try:
            with in_folder(data_root), compat.without_execution():
                self.loaded = manager.load(list(benchmark.tasks))
        except (OSError, ValueError, LookupError, datasets.exceptions.DatasetsError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{benchmark.system}: its data could not be loaded ({reason}); {OFFLINE_HELP}") from error
        self.tasks: dict[str, Any] = self.loaded["tasks"]
        self.groups: dict[str, Any] = self.loaded["groups"]
        self.mended = compat.mend(self.tasks)
        if benchmark.name == HUMANEVAL:
            for task in self.tasks.values():
                compat.only_generate(task)
        self.rehearse_scoring()
        unsafe = [name for name, task in self.tasks.items() if getattr(task, "UNSAFE_CODE", False)]
        if unsafe:
            raise UserError(
                f"tasks: {unsafe[0]} would run programs that a model wrote in this very process; of these only "
                "humaneval has a sandbox here"
            )

    def rehearse_scoring(self) -> None:
        """What IFEval and SQuAD score with is looked for now, or it would be missed behind the last answer.

        Raises UserError where it is absent.
        """
        try:
            if IFEVAL in self.tasks:
                for doc in self.tasks[IFEVAL].eval_docs:
                    self.tasks[IFEVAL].process_results(doc, [PROBE])
        except LookupError as error:
            raise UserError(f"{self.benchmark.system}: {PUNKT_HELP}") from error
        if SQUAD in self.tasks:
            self.squad_scorer()

    def squad_scorer(self) -> Any:
        """The module of `evaluate` that lm_eval itself uses."""
        try:
            with compat.metrics_in(self.data_root):
                return evaluate.load("squad_v2")
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self.benchmark.system}: the module squad_v2 of evaluate, which scores it, could not be "
                f"loaded ({reason}); {OFFLINE_HELP}"
            ) from error

    def load(self, task_list: Any) -> Any:
        """What was loaded already, for lm_eval.evaluator."""
        return self.loaded

    def data(self) -> str:
        """Where the documents came from."""
        names = sorted({str(task.DATASET_PATH or type(task).__name__) for task in self.tasks.values()})
        return ", ".join(names) + (f" in {self.data_root}" if self.data_root else " on the Hub")

    def data_sha256(self, limit: int | None) -> str:
        """One hash over the documents that will be asked."""
        digest = hashlib.sha256()
        for name, task in sorted(self.tasks.items()):
            digest.update(name.encode())
            for _, doc in task.doc_iterator(limit=limit):
                digest.update(json.dumps(doc, sort_keys=True, default=str).encode())
        return digest.hexdigest()

    def versions(self) -> dict[str, str]:
        return {name: str(task.VERSION) for name, task in self.tasks.items()}

    def aggregation(self, task: str, metric: str) -> Callable[[Sequence[Any]], float]:
        """lm_eval's own function from items to the value."""
        return self.tasks[task].aggregation()[metric.partition(",")[0]]

    def parents(self) -> dict[str, str]:
        """Task or group -> the group it is in."""
        return {child: group for group, children in self.loaded["group_map"].items() for child in children}


def task_manager(benchmark: Benchmark) -> TaskManager:
    """The index that knows the benchmark's tasks: of its own folder in lm_eval, or of all 13,000 (10 seconds).

    Raises UserError for a task that lm_eval does not have.
    """
    tasks = Path(lm_eval.tasks.__file__).parent
    manager = indexed(tasks / benchmark.folder) if benchmark.folder else indexed(tasks)
    unknown = [name for name in benchmark.tasks if name not in manager.task_index]
    if unknown and benchmark.folder:
        return task_manager(replace(benchmark, folder=None))
    if unknown:
        raise UserError(
            f"tasks: {unknown[0]!r} is neither a benchmark of Heed nor a task of lm_eval; "
            "`eval_benchmarks.py list` shows the first, `lm-eval ls tasks` the second"
        )
    return manager


@functools.cache
def indexed(folder: Path) -> TaskManager:
    return TaskManager(include_defaults=False, include_path=folder)


@contextlib.contextmanager
def in_folder(folder: Path | None) -> Iterator[None]:
    """A relative path such as cais/mmlu means a folder here before it means the Hub."""
    with contextlib.chdir(folder) if folder else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def own_datasets_cache() -> Iterator[None]:
    """datasets 5.2 serves the rows of another folder of the same name, or of before an edit, from its cache."""
    before = datasets.config.HF_DATASETS_CACHE
    with tempfile.TemporaryDirectory(prefix="heed-datasets-") as folder:
        datasets.config.HF_DATASETS_CACHE = Path(folder)
        try:
            yield
        finally:
            datasets.config.HF_DATASETS_CACHE = before


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
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{tasks.benchmark.system}: it could not be scored ({reason}); {OFFLINE_HELP}") from error
    assert results is not None  # this is the only process
    return dict(results)


def read_scores(tasks: Tasks, results: dict[str, Any]) -> list[Score]:
    """Every metric of every task and group, with the items behind it."""
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
        part_of=part_of,
        note=tasks.mended.get(name),
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
    chances = [(part.chance, len(part.pooled)) for part in parts]
    known = [(level, n) for level, n in chances if level is not None]
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
        chance=sum(level * n for level, n in known) / sum(n for _, n in known) if len(known) == len(chances) else None,
        part_of=part_of,
    )


def chance(task: Any, metric: str, samples: Sequence[dict[str, Any]]) -> float | None:
    """What guessing scores on these very items: one over the number of choices, on the average. None where unknown."""
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


def write_outcome(folder: Path, outcome: Outcome, results: dict[str, Any]) -> None:
    """Keep the numbers with their items, and what the model was asked and answered."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = results["samples"]
    run_folder.write_lines(
        folder / SAMPLES_FILE, [sample_line(name, each) for name in samples for each in samples[name]]
    )
    write_numbers(folder, outcome)


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
