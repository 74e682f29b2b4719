"""Every benchmark asked of base and tuned model, each loaded once; what was measured before is not measured again."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import datasets

from heed.benchmarks import alpaca, helm, openai_evals
from heed.benchmarks.asking import FOLDER, Asking, Outcome, read_outcome, write_outcome
from heed.benchmarks.loaded import Loaded
from heed.benchmarks.question import Question
from heed.benchmarks.scores import score_rows
from heed.benchmarks.suite import Benchmark
from heed.data.records import Record
from heed.measure.rows import Row
from heed.runs.finished import Subject


@dataclass(frozen=True, kw_only=True)
class Options:
    """How benchmarks are asked; each option is for those that know it."""

    templates: Sequence[bool]
    """Of lm_eval's: with the chat template, without, or one after the other."""
    num_fewshot: int | None
    max_new_tokens: int
    """Of an answer that is graded."""
    judge: alpaca.Judge | None
    helm_entries: Sequence[str]
    data_root: Path | None


def questions(
    asking: Asking, benchmarks: Sequence[Benchmark], options: Options, records: Sequence[Record]
) -> list[Question]:
    """Tasks, data and judge are looked for here, before a model is loaded. `records` are the run's test rows.

    Raises UserError for what is missing.
    """
    found: list[Question] = []
    if options.judge is not None:
        alpaca.refuse_silent(options.judge)
    for benchmark in benchmarks:
        match benchmark.runner:
            case "lm_eval":
                from heed.benchmarks.harness import lm_eval_questions

                found += lm_eval_questions(asking, benchmark, options.templates, options.num_fewshot, options.data_root)
            case "alpaca_eval":
                assert options.judge is not None  # nothing else could stand in for it
                own = benchmark.name == "alpaca_method"
                found.append(
                    alpaca.question(
                        asking,
                        benchmark,
                        options.judge,
                        records if own else None,
                        max_new_tokens=options.max_new_tokens,
                        data_root=options.data_root,
                    )
                )
            case "openai_evals":
                found.append(
                    openai_evals.question(
                        asking, benchmark, options.judge, records, max_new_tokens=options.max_new_tokens
                    )
                )
            case "helm":
                found += [
                    helm.question(asking, benchmark, entry, records, max_new_tokens=options.max_new_tokens)
                    for entry in options.helm_entries
                ]
    return found


def measure(
    asking: Asking,
    subjects: Sequence[Subject],
    benchmarks: Sequence[Benchmark],
    options: Options,
    records: Sequence[Record],
) -> Iterator[list[Row]]:
    """The rows of every model and question, as soon as they are known; the base model comes first."""
    base: dict[str, Outcome] = {}
    with own_datasets_cache():
        asked = questions(asking, benchmarks, options, records)
        for subject in subjects:
            with Loaded(asking, subject) as loaded:
                for question in asked:
                    outcome = outcome_of(loaded, question)
                    yield outcome_rows(asking, question, subject.name, outcome, base.get(question.variant))
                    if subject.name == "base":
                        base[question.variant] = outcome


@contextmanager
def own_datasets_cache() -> Iterator[None]:
    """datasets 5.2 serves the rows of another folder of the same name, or from before an edit, from its cache."""
    before = datasets.config.HF_DATASETS_CACHE
    with tempfile.TemporaryDirectory(prefix="heed-datasets-") as folder:
        datasets.config.HF_DATASETS_CACHE = Path(folder)
        try:
            yield
        finally:
            datasets.config.HF_DATASETS_CACHE = before


def outcome_of(loaded: Loaded, question: Question) -> Outcome:
    """What the model scores, or has scored before."""
    asking, name = loaded.asking, loaded.subject.name
    folder = asking.folder / FOLDER / name / question.variant
    key = loaded.key | question.key
    kept = read_outcome(folder, key)
    if kept is not None:
        asking.say(f"{name}  {question.benchmark.system}: measured before, {folder}")
        return kept
    asking.say(f"{name}  {question.benchmark.system}: {question.variant}")
    outcome = question.ask(loaded, key, folder)
    write_outcome(folder, outcome)
    return outcome


def outcome_rows(asking: Asking, question: Question, name: str, outcome: Outcome, base: Outcome | None) -> list[Row]:
    """Rows for rows.jsonl. HumanEval has none before its programs are run (heed.benchmarks.execution)."""
    return score_rows(
        question.benchmark,
        outcome,
        name=name,
        base=base,
        tasks=question.tasks,
        library=question.library,
        command=asking.command,
    )
