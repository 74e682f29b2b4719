"""OpenAI Evals: the run's own test rows as a registry, graded by its match functions and by a model."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from heed.answers.responses import Answer
from heed.benchmarks.alpaca import Judge
from heed.benchmarks.answers import TEST_ROWS, answer
from heed.benchmarks.asking import FOLDER, Asking, Outcome, Score
from heed.benchmarks.loaded import Loaded, place_of
from heed.benchmarks.question import Question, graded_key
from heed.benchmarks.readiness import EVALS, installed_version
from heed.benchmarks.suite import Benchmark
from heed.data.records import Record
from heed.errors import UserError
from heed.files import run_folder

REPOSITORY = Path(__file__).parent.parent.parent
GRADERS = {
    "match": "evals.elsuite.basic.match:Match",
    "includes": "evals.elsuite.basic.includes:Includes",
    "fuzzy_match": "evals.elsuite.basic.fuzzy_match:FuzzyMatch",
}
FACT = "fact"
"""evals' own prompt that compares facts; of its choices only D says that the answer disagrees with the reference."""
AGREES, DISAGREES = ("A", "B", "C", "E"), "D"
MOST_FAILURES = 0.05
COMPLETIONS = "heed.benchmarks.completions"
PATIENCE = 3600


def question(
    asking: Asking, benchmark: Benchmark, judge: Judge | None, records: Sequence[Record], *, max_new_tokens: int
) -> Question:
    asked, library = records[: asking.limit], f"evals {installed_version('evals-*.dist-info', EVALS)}"
    given: dict[str, list[Answer]] = {}
    models: dict[str, str] = {}

    def ask(loaded: Loaded, key: dict[str, Any], folder: Path) -> Outcome:
        subject = loaded.subject
        given[subject.name] = answer(loaded, asked, name=TEST_ROWS, max_new_tokens=max_new_tokens)
        models[subject.name] = place_of(subject.model)
        shared = asking.folder / FOLDER / benchmark.name  # one registry has all models, for whoever runs it by hand
        registry = write_registry(
            shared,
            given,
            models,
            judge_model=judge.model if judge else None,
            judge_base_url=judge.base_url if judge else None,
        )
        return outcome(
            subject.name,
            registry,
            key,
            n=len(asked),
            n_full=len(records),
            judged=judge is not None,
            version=library.partition(" ")[2],
        )

    return Question(
        benchmark=benchmark,
        variant=benchmark.name,
        key=graded_key(
            asking,
            asked,
            max_new_tokens=max_new_tokens,
            data="the run's test rows",
            library=library,
            judge=asdict(judge) if judge else None,
        ),
        library=library,
        ask=ask,
    )


def write_registry(
    folder: Path,
    answers: Mapping[str, Sequence[Answer]],
    models: Mapping[str, str],
    *,
    judge_model: str | None,
    judge_base_url: str | None,
) -> Path:
    """A registry that evals reads: the rows, the evals, and for each model what answers for it. Its folder.

    heed-replay-NAME answers from the file of answers, heed-ask-NAME asks the model itself. Raises UserError where one
    question has two answers: evals is given the question alone, without earlier turns.
    """
    for given in answers.values():
        refuse_ambiguous(given)
    registry = (folder / "registry").resolve()
    for part in ("data/heed", "evals", "completion_fns"):
        (registry / part).mkdir(parents=True, exist_ok=True)
    rows = next(iter(answers.values()))
    samples = [{"input": [{"role": "user", "content": row.user_content}], "ideal": row.output} for row in rows]
    run_folder.write_lines(registry / "data" / "heed" / "samples.jsonl", samples)
    texts = [{"input": row.user_content, "ideal": row.output} for row in rows]
    run_folder.write_lines(registry / "data" / "heed" / "texts.jsonl", texts)
    evals: dict[str, Any] = {}
    for name, grader in GRADERS.items():
        evals[f"heed-{name}"] = {"id": f"heed-{name}.test.v0", "metrics": ["accuracy"]}
        evals[f"heed-{name}.test.v0"] = {"class": grader, "args": {"samples_jsonl": "heed/samples.jsonl"}}
    evals[f"heed-{FACT}"] = {"id": f"heed-{FACT}.test.v0", "metrics": ["accuracy"]}
    evals[f"heed-{FACT}.test.v0"] = {
        "class": "evals.elsuite.modelgraded.classify:ModelBasedClassify",
        "args": {"samples_jsonl": "heed/texts.jsonl", "eval_type": "cot_classify", "modelgraded_spec": FACT},
    }
    (registry / "evals" / "heed.yaml").write_text(yaml.safe_dump(evals))
    functions: dict[str, Any] = {}
    for name, given in answers.items():
        path = folder.resolve() / f"responses-{name}.json"
        run_folder.write_json(path, [asdict(answer) for answer in given])
        functions[f"heed-replay-{name}"] = {"class": f"{COMPLETIONS}:Replay", "args": {"path": str(path)}}
        functions[f"heed-ask-{name}"] = {"class": f"{COMPLETIONS}:Ask", "args": {"model": models[name]}}
    if judge_model is not None:
        arguments = {"model": judge_model, "api_base": judge_base_url}
        functions["heed-judge"] = {"class": f"{COMPLETIONS}:Judge", "args": arguments}
    (registry / "completion_fns" / "heed.yaml").write_text(yaml.safe_dump(functions))
    return registry


def refuse_ambiguous(answers: Sequence[Answer]) -> None:
    first: dict[str, Answer] = {}
    for given in answers:
        other = first.setdefault(given.user_content, given)
        if other.model_response != given.model_response:
            raise UserError(
                f"OpenAI Evals: rows {other.row_id} and {given.row_id} end in the same question, and it sees no "
                "earlier turns that would tell them apart; leave one of them out"
            )


def command(functions: str, evaluation: str, registry: Path, record: Path) -> list[str]:
    """What runs one eval; `functions` are names in the registry, the judge's last."""
    oaieval = [sys.executable, "-m", "evals.cli.oaieval", functions, evaluation]
    return [*oaieval, "--registry_path", str(registry), "--record_path", str(record)]


def environment() -> dict[str, str]:
    """Where evals and our completion functions are found; a local server needs no key, but the client wants one."""
    paths = os.pathsep.join([str(EVALS), str(REPOSITORY)])
    return {"OPENAI_API_KEY": "none", "EVALS_THREADS": "8", **os.environ, "PYTHONPATH": paths}


def run_eval(functions: str, evaluation: str, registry: Path, record: Path) -> list[dict[str, Any]]:
    """The events that evals records. Raises UserError when it fails."""
    record.unlink(missing_ok=True)
    try:
        done = subprocess.run(
            command(functions, evaluation, registry, record),
            env=environment(),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"OpenAI Evals: {evaluation} did not end within {PATIENCE // 60} minutes, nothing is scored; set a limit"
        ) from error
    if done.returncode or not record.is_file():
        raise UserError(f"OpenAI Evals: {evaluation} failed, nothing is scored: {done.stderr.strip()[-500:]}")
    return run_folder.read_lines(record)


def outcome(
    name: str, registry: Path, key: dict[str, Any], *, n_full: int, judged: bool, version: str, n: int
) -> Outcome:
    """Every grader's accuracy on one model's answers; with a judge also how many agree with the reference."""
    began = time.perf_counter()
    folder = registry.parent
    scores = []
    for grader in GRADERS:
        events = run_eval(f"heed-replay-{name}", f"heed-{grader}", registry, folder / f"{name}-{grader}.jsonl")
        right = {row: float(value) for row, value in by_row(events, "match", "correct").items()}
        scores.append(score(grader, "accuracy", final(events, "accuracy"), right, n_full=n_full, version=version))
    if judged:
        path = folder / f"{name}-{FACT}.jsonl"
        events = run_eval(f"heed-replay-{name},heed-judge", f"heed-{FACT}", registry, path)
        choices = by_row(events, "metrics", "choice")
        agreed = {row: float(choice in AGREES) for row, choice in choices.items() if choice in (*AGREES, DISAGREES)}
        unclear = n - len(agreed)
        if unclear > MOST_FAILURES * n:
            raise UserError(
                f"OpenAI Evals: the judge named no choice for {unclear} of {n} answers, so there is no score; "
                f"what it said is in {path}"
            )
        share = sum(agreed.values()) / len(agreed)
        counts = ", ".join(f"{choice} {count}" for choice, count in sorted(Counter(choices.values()).items()))
        graded = score(FACT, "agrees with the reference", share, agreed, n_full=n_full, version=version)
        scores.append(replace(graded, note=f"the judge chose {counts}; {unclear} unclear"))
    return Outcome(key=key, scores=scores, notes=[], seconds=time.perf_counter() - began)


def score(task: str, metric: str, value: float, items: Mapping[str, float], *, n_full: int, version: str) -> Score:
    return Score(
        task=f"heed-{task}",
        metric=metric,
        value=value,
        values={row: [item] for row, item in items.items()},
        n=len(items),
        n_full=n_full,
        fewshot=0,
        version=version,
        higher_is_better=True,
        chance=None,
        part_of=None,
    )


def by_row(events: Sequence[dict[str, Any]], kind: str, field: str) -> dict[str, Any]:
    """A field of all events of a kind, in the order of the rows: evals works on them in any order."""
    found = [event for event in events if event.get("type") == kind and field in event["data"]]
    found.sort(key=lambda event: int(event["sample_id"].rpartition(".")[2]))
    return {event["sample_id"].rpartition(".")[2]: event["data"][field] for event in found}


def final(events: Sequence[dict[str, Any]], metric: str) -> float:
    [report] = [event["final_report"] for event in events if "final_report" in event]
    return float(report[metric])
