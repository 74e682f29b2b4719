"""Where lm_eval 0.4.13 measures wrong, crashes, or would run code too early; a test tells when it is fixed there."""

import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import evaluate

from heed.measure.metrics import squad_words, words_f1

SQUAD_METRICS = "transformers.data.metrics.squad_metrics"
MULTIRC_NOTE = "choices put in the order of the labels: lm_eval has them the wrong way round and reports 1 - accuracy"


def multirc_is_inverted(task: Any) -> bool:
    """Whether the choice for label 1, which means that the answer is correct, is not the one that says yes."""
    return "yes" not in task.doc_to_choice({"answer": "it"})[1]


def fix(tasks: dict[str, Any]) -> dict[str, str]:
    """Put right what the loaded tasks get wrong; what was done, by task."""
    multirc = tasks.get("multirc")
    if multirc is None or not multirc_is_inverted(multirc):
        return {}
    inverted = multirc.config.doc_to_choice

    def in_label_order(doc: dict[str, Any]) -> list[str]:
        return multirc.doc_to_choice(doc, inverted)[::-1]

    multirc.set_config("doc_to_choice", in_label_order)
    multirc.fewshot_cfg.doc_to_choice = in_label_order
    return {"multirc": MULTIRC_NOTE}


def squad_metrics_are_missing() -> bool:
    """transformers 5 has dropped the module that ReCoRD's task imports."""
    try:
        return importlib.util.find_spec(SQUAD_METRICS) is None
    except ModuleNotFoundError:
        return True


def supply_squad_metrics() -> None:
    """Put the two functions that ReCoRD's task needs where it looks for them, unless transformers still has them."""
    if SQUAD_METRICS in sys.modules or not squad_metrics_are_missing():
        return
    package, name = SQUAD_METRICS.rsplit(".", 1)
    module: Any = types.ModuleType(SQUAD_METRICS)
    module.compute_exact, module.compute_f1 = compute_exact, compute_f1
    parent = types.ModuleType(package)
    parent.__path__ = []
    setattr(parent, name, module)
    sys.modules.update({package: parent, SQUAD_METRICS: module})


def compute_exact(gold: str, predicted: str) -> int:
    return int(squad_words(gold) == squad_words(predicted))


def compute_f1(gold: str, predicted: str) -> float:
    return words_f1(squad_words(predicted), squad_words(gold))


def only_generate(task: Any) -> None:
    """Ask HumanEval for its answers and for no score: what scores them runs them in this very process."""
    task.override_metric("bypass")
    task.UNSAFE_CODE = False


class NoExecution:
    """In place of evaluate's code_eval while HumanEval's task loads: its module runs a program when imported."""

    def compute(self, **arguments: Any) -> None:
        return None


def without_execution() -> AbstractContextManager[None]:
    """While in here, no task gets hold of what executes programs; what asks it for a score gets none."""
    return replaced_load(lambda load, path: NoExecution() if path == "code_eval" else load(path))


def metrics_in(folder: Path | None) -> AbstractContextManager[None]:
    """While in here, a module of `evaluate` that is in the folder is taken from there and not from the Hub."""
    return replaced_load(lambda load, path: load(str(folder / path) if folder and (folder / path).is_dir() else path))


@contextmanager
def replaced_load(replacement: Callable[[Callable[[str], Any], str], Any]) -> Iterator[None]:
    load = evaluate.load
    evaluate.load = lambda path, *_, **__: replacement(load, path)
    try:
        yield
    finally:
        evaluate.load = load
