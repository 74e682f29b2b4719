"""Benchmarks of free answers: the models answer once, and AlpacaEval, OpenAI Evals and HELM grade."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heed.answers.subjects import load_subject
from heed.benchmarks import alpaca, helm, openai_evals, scores
from heed.benchmarks.answers import answer, answers_key
from heed.benchmarks.asking import FOLDER, Asking
from heed.benchmarks.outcomes import Outcome, read_outcome, write_numbers
from heed.benchmarks.readiness import EVALS, HELM
from heed.benchmarks.suite import Benchmark
from heed.data.records import Record
from heed.measure.rows import Row
from heed.models.loading import context_length
from heed.runs.finished import Subject

TEST_ROWS = "test"


def measure(
    asking: Asking,
    subjects: Sequence[Subject],
    benchmarks: Sequence[Benchmark],
    *,
    records: Sequence[Record],
    max_new_tokens: int,
    judge_model: str | None,
    judge_base_url: str | None,
    judge_logprobs: bool,
    helm_entries: Sequence[str],
    data_root: Path | None,
) -> list[Row]:
    """The rows of every benchmark; `records` are the run's test rows, for those that ask them."""
    rows: list[Row] = []
    judge = alpaca.Judge(model=judge_model or "", base_url=judge_base_url, logprobs=judge_logprobs)
    if judge_model is not None:
        alpaca.refuse_silent(judge)
    for benchmark in benchmarks:
        asking.say(f"{benchmark.name}: {', '.join(subject.name for subject in subjects)}")
        match benchmark.runner:
            case "alpaca_eval":
                outcomes = with_alpaca(
                    benchmark, asking, subjects, records, judge, max_new_tokens=max_new_tokens, data_root=data_root
                )
                library = alpaca.library()
            case "openai_evals":
                outcomes = with_evals(
                    asking,
                    subjects,
                    records,
                    max_new_tokens=max_new_tokens,
                    judge_model=judge_model,
                    judge_base_url=judge_base_url,
                )
                library = f"evals {evals_version()}"
            case _:
                outcomes = with_helm(asking, subjects, records, helm_entries, max_new_tokens=max_new_tokens)
                library = f"crfm-helm {helm_version()}"
        rows += outcome_rows(benchmark, asking, outcomes, library)
    return rows


def outcome_rows(
    benchmark: Benchmark, asking: Asking, outcomes: Mapping[str, Sequence[Outcome]], library: str
) -> list[Row]:
    base = outcomes.get("base", [])
    return [
        row
        for name, measured in outcomes.items()
        for number, outcome in enumerate(measured)
        for row in scores.score_rows(
            benchmark,
            outcome,
            name=name,
            base=base[number] if name != "base" and base else None,
            tasks=None,
            library=library,
            command=asking.command,
        )
    ]


def graded_key(asking: Asking, answered: Mapping[str, Any], data: str) -> dict[str, Any]:
    return {**answered, "data": data, "chat_template": True, "limit": asking.limit}


def with_alpaca(
    benchmark: Benchmark,
    asking: Asking,
    subjects: Sequence[Subject],
    records: Sequence[Record],
    judge: alpaca.Judge,
    *,
    max_new_tokens: int,
    data_root: Path | None,
) -> dict[str, list[Outcome]]:
    """Against GPT-4 Turbo on AlpacaEval's instructions, or against the references of the run's own rows."""
    own = benchmark.name == "alpaca_method"
    theirs = [] if own else alpaca.read_reference(data_root)
    asked = list(records) if own else alpaca.instruction_records(theirs)
    name = TEST_ROWS if own else benchmark.name
    outcomes = {}
    for subject in subjects:
        answers, key = answer(asking, subject, asked[: asking.limit], name=name, max_new_tokens=max_new_tokens)
        outcomes[subject.name] = [
            alpaca.win_rates(
                answers,
                alpaca.references(answers) if own else theirs[: asking.limit],
                graded_key(asking, key, "the run's test rows" if own else alpaca.REPOSITORY),
                judge=judge,
                name=subject.name,
                task=benchmark.name,
                n_full=len(asked),
                folder=asking.folder / FOLDER / subject.name / benchmark.name,
                data_root=data_root,
            )
        ]
    return outcomes


def with_evals(
    asking: Asking,
    subjects: Sequence[Subject],
    records: Sequence[Record],
    *,
    max_new_tokens: int,
    judge_model: str | None,
    judge_base_url: str | None,
) -> dict[str, list[Outcome]]:
    asked = records[: asking.limit]
    given = {
        subject.name: answer(asking, subject, asked, name=TEST_ROWS, max_new_tokens=max_new_tokens)
        for subject in subjects
    }
    folder = asking.folder / FOLDER / "openai_evals"
    folder.mkdir(parents=True, exist_ok=True)
    registry = openai_evals.write_registry(
        folder,
        {name: answers for name, (answers, _) in given.items()},
        {subject.name: helm.place_of(subject.model) for subject in subjects},
        judge_model=judge_model,
        judge_base_url=judge_base_url,
    )
    return {
        name: [
            openai_evals.outcome(
                name,
                registry,
                graded_key(asking, key, "the run's test rows"),
                n=len(answers),
                n_full=len(records),
                judged=judge_model is not None,
                version=evals_version(),
            )
        ]
        for name, (answers, key) in given.items()
    }


def with_helm(
    asking: Asking,
    subjects: Sequence[Subject],
    records: Sequence[Record],
    entries: Sequence[str],
    *,
    max_new_tokens: int,
) -> dict[str, list[Outcome]]:
    asked = records[: asking.limit]
    rows = helm.rendered_rows(asked, asking.prompt)
    outcomes = {}
    for subject in subjects:
        key = graded_key(asking, answers_key(asking, subject, asked, max_new_tokens), "HELM")
        folder = asking.folder / FOLDER / subject.name / "helm"
        places = {entry: folder / re.sub(r"\W+", "-", entry) for entry in entries}
        kept = {entry: read_outcome(place, {**key, "data": entry}) for entry, place in places.items()}
        missing = [entry for entry, outcome in kept.items() if outcome is None]
        if missing:
            model = load_subject(subject, dtype=asking.dtype, load_in_4bit=asking.load_in_4bit)
            positions = context_length(model)
            with helm.whole_model(model, asking.prompt, subject.model, revision=subject.revision) as path:
                del model  # it is on its disk now
                folder.mkdir(parents=True, exist_ok=True)
                models = {subject.name: helm.told_model(path, asking.prompt, folder, positions=positions)}
                told = helm.write_told(folder, rows, models, max_new_tokens=max_new_tokens)
                limit = asking.limit or helm.MOST_INSTANCES
                kept |= helm.measure(missing, subject.name, told, folder, key, limit=limit, n_full=len(records))
        for entry, outcome in kept.items():
            assert outcome is not None
            write_numbers(places[entry], outcome)
        outcomes[subject.name] = [outcome for outcome in kept.values() if outcome is not None]
    return outcomes


def installed_version(pattern: str, folder: Path) -> str:
    """The version of a library that lies apart from what is imported here, by the name of its metadata."""
    return next(folder.glob(pattern)).name.removesuffix(".dist-info").partition("-")[2]


def evals_version() -> str:
    return installed_version("evals-*.dist-info", EVALS)


def helm_version() -> str:
    return installed_version("lib/python*/site-packages/crfm_helm-*.dist-info", HELM)
