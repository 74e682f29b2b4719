"""lm_eval's tasks, loaded and fixed before a model is needed."""

import contextlib
import functools
import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import evaluate
import lm_eval.tasks
from lm_eval.tasks import TaskManager

from heed.benchmarks import compat
from heed.benchmarks.suite import HUMANEVAL, Benchmark
from heed.errors import UserError, reason_of

IFEVAL, SQUAD = "ifeval", "squadv2"
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


class Tasks:
    """The tasks of a benchmark, loaded and fixed before a model is needed. For lm_eval it is a task manager."""

    def __init__(self, benchmark: Benchmark, *, data_root: Path | None) -> None:
        manager = task_manager(benchmark)
        self.task_index = manager.task_index
        self.benchmark = benchmark
        self.data_root = data_root
        compat.supply_squad_metrics()
        datasets.disable_progress_bars()
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        try:
            # IFEval's module fetches nltk's data when it is imported, and prints that it has, whether or not it could.
            with in_folder(data_root), compat.without_execution(), contextlib.redirect_stdout(io.StringIO()):
                self.loaded = manager.load(list(benchmark.tasks))
        except (OSError, ValueError, LookupError, datasets.exceptions.DatasetsError) as error:
            reason = reason_of(error)
            raise UserError(f"{benchmark.system}: its data could not be loaded ({reason}); {OFFLINE_HELP}") from error
        self.tasks: dict[str, Any] = self.loaded["tasks"]
        self.groups: dict[str, Any] = self.loaded["groups"]
        self.fixed = compat.fix(self.tasks)
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
        """Look now for what IFEval and SQuAD score with; it would be missed only after the last answer.

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
            raise UserError(
                f"{self.benchmark.system}: the module squad_v2 of evaluate, which scores it, could not be "
                f"loaded ({reason_of(error)}); {OFFLINE_HELP}"
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
