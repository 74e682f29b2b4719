"""The benchmarks by the names people know them by, and what each of them is in the library that owns it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from heed.errors import UserError

HUMANEVAL = "humaneval"
Runner = Literal["lm_eval", "alpaca_eval", "openai_evals", "helm"]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """`tasks` are lm_eval's names; `headline` the metric that papers quote, by lm_eval's name."""

    name: str
    system: str
    """What a row of rows.jsonl and the report call it."""
    runner: Runner
    tasks: tuple[str, ...] = ()
    folder: str | None = None
    """Where lm_eval keeps these tasks."""
    headline: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    """What it reads from the Hub: data sets, and modules of `evaluate` that score it."""
    measures: str


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            name="mmlu",
            system="MMLU",
            runner="lm_eval",
            tasks=("mmlu",),
            folder="mmlu",
            headline=("acc",),
            data=("cais/mmlu",),
            measures="knowledge in 57 subjects, four choices",
        ),
        Benchmark(
            name="glue",
            system="GLUE",
            runner="lm_eval",
            tasks=("glue",),
            folder="glue",
            headline=("mcc", "acc"),
            data=("nyu-mll/glue",),
            measures="nine tasks on sentences, asked zero-shot",
        ),
        Benchmark(
            name="superglue",
            system="SuperGLUE",
            runner="lm_eval",
            tasks=("super-glue-lm-eval-v1",),
            folder="super_glue",
            headline=("acc", "f1"),
            data=("aps/super_glue",),
            measures="eight harder tasks on passages",
        ),
        Benchmark(
            name="bbh",
            system="BIG-Bench Hard",
            runner="lm_eval",
            tasks=("bbh",),
            folder="bbh",
            headline=("exact_match",),
            data=("SaylorTwift/bbh",),
            measures="27 reasoning tasks, three worked examples each",
        ),
        Benchmark(
            name="bigbench",
            system="BIG-bench",
            runner="lm_eval",
            tasks=("bigbench_generate_until", "bigbench_multiple_choice_a"),
            folder="bigbench",
            headline=("exact_match", "acc"),
            data=("hails/bigbench",),
            measures="the full set: 167 tasks to write, 118 to choose",
        ),
        Benchmark(
            name="squad",
            system="SQuAD v2",
            runner="lm_eval",
            tasks=("squadv2",),
            folder="squadv2",
            headline=("f1",),
            data=("lighteval/squad_v2", "squad_v2"),
            measures="answers from a passage, or that there is none",
        ),
        Benchmark(
            name="triviaqa",
            system="TriviaQA",
            runner="lm_eval",
            tasks=("triviaqa",),
            folder="triviaqa",
            headline=("exact_match",),
            data=("mandarjoshi/trivia_qa",),
            measures="facts, without a text to look them up in",
        ),
        Benchmark(
            name=HUMANEVAL,
            system="HumanEval",
            runner="lm_eval",
            tasks=("humaneval_instruct",),
            folder="humaneval",
            headline=("pass@1",),
            data=("openai/openai_humaneval",),
            measures="164 Python functions, judged by their tests",
        ),
        Benchmark(
            name="ifeval",
            system="IFEval",
            runner="lm_eval",
            tasks=("ifeval",),
            folder="ifeval",
            headline=("prompt_level_strict_acc",),
            data=("google/IFEval",),
            measures="instructions a program can check",
        ),
        Benchmark(
            name="alpaca_eval",
            system="AlpacaEval",
            runner="alpaca_eval",
            headline=("length_controlled_winrate", "win_rate"),
            data=("tatsu-lab/alpaca_eval",),
            measures="805 instructions, a judge chooses between the model and GPT-4 Turbo",
        ),
        Benchmark(
            name="alpaca_method",
            system="win rate against reference, AlpacaEval method",
            runner="alpaca_eval",
            headline=("win_rate",),
            measures="the run's own test rows, a judge chooses between the model and the reference",
        ),
        Benchmark(
            name="openai_evals",
            system="OpenAI Evals",
            runner="openai_evals",
            headline=("accuracy", "agrees with the reference"),
            measures="the run's own test rows: match, includes, fuzzy_match, and graded by a model",
        ),
        Benchmark(
            name="helm",
            system="HELM",
            runner="helm",
            headline=("exact_match",),
            measures="the run's own test rows, and any of HELM's run entries",
        ),
    )
}


def find_benchmarks(names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks asked for. A name that is not ours is taken for a task of lm_eval.

    Raises UserError for no name, and for a name given twice.
    """
    if not names:
        raise UserError(f"tasks is empty; choose from {', '.join(BENCHMARKS)}, or name a task of lm_eval")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"tasks: {twice[0]} is given twice")
    return [BENCHMARKS.get(name) or task_of_lm_eval(name) for name in names]


def task_of_lm_eval(name: str) -> Benchmark:
    """A single task, such as mmlu_anatomy; it belongs to the system whose tasks begin with the same word."""
    first = name.split("_")[0]
    family = BENCHMARKS.get(first)
    return Benchmark(
        name=name,
        system=family.system if family else name,
        runner="lm_eval",
        tasks=(name,),
        folder=family.folder if family else None,
        headline=family.headline if family else (),
        measures="a task of lm_eval",
    )
