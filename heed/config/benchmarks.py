"""Keys of eval_benchmarks.py."""

from dataclasses import dataclass
from typing import Literal

from heed.config.conditions import WORD, either, when
from heed.config.keys import key

# `execute` runs programs that were written earlier, and asks no model.
ASKS = when(WORD, None, "run")
ANSWERED = ("alpaca_eval", "alpaca_method", "openai_evals", "helm")  # free answers, which their own systems grade
OF_LM_EVAL = (ASKS, when("tasks", is_not=ANSWERED))
JUDGED = (ASKS, when("tasks", "alpaca_eval", "alpaca_method", "openai_evals"))


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Keys of eval_benchmarks.py."""

    # what is asked
    model_name_or_path: str = key(help="a run folder, a checkpoint in it, or any model folder or Hub id")
    model_revision: str | None = key(None, help="branch, tag or commit of a Hub model", read_when=ASKS)
    dtype: Literal["float32", "bfloat16", "float16"] = key("float32", help="type of the weights", read_when=ASKS)
    load_in_4bit: bool | None = key(
        None, help="keep the base model in 4 bits; null: as the run was trained", read_when=ASKS
    )
    load_in_8bit: bool | None = key(
        None, help="keep the base model in 8 bits; null: as the run was trained", read_when=ASKS
    )
    prompt: str | None = key(None, help="only for a model that brings no prompt contract", read_when=ASKS)
    compare_with_base: bool | None = key(
        None,
        help="also ask the model the run started from, with the same contract; null: where a run knows it",
        read_when=ASKS,
    )
    tasks: list[str] = key(help="benchmarks by the names that `list` shows, or tasks of lm_eval")
    # how it is asked
    chat_template: Literal["with", "without", "both"] = key(
        "with", help="prompts in the model's own template, as plain text, or both in turn", read_when=OF_LM_EVAL
    )
    num_fewshot: int | None = key(
        None, help="worked examples before each question; null: as many as the task says", read_when=OF_LM_EVAL
    )
    limit: int | None = key(None, help="only the first items of each task; the rows then say `limit`", read_when=ASKS)
    batch_size: int = key(16, help="requests answered at once", read_when=ASKS)
    max_new_tokens: int = key(256, help="length limit of an answer", read_when=(ASKS, when("tasks", *ANSWERED)))
    # where things are
    data_root: str | None = key(None, help="folder that mirrors the Hub's data sets, for work offline", read_when=ASKS)
    output_dir: str | None = key(None, help="where benchmarks/ and rows.jsonl go; null: the model's own folder")
    # programs that a model wrote
    unsafe_code: bool = key(
        False,
        help="run what the model wrote for HumanEval, in a bubblewrap sandbox",
        read_when=either(when("tasks", "humaneval"), when(WORD, "execute")),
    )
    without_sandbox: bool = key(
        False,
        help="run it even where bubblewrap is absent, with your own permissions",
        read_when=(when("tasks", "humaneval"), when("unsafe_code", True)),
    )
    # a judge
    judge_model: str | None = key(None, help="model that judges, by the name its server knows", read_when=JUDGED)
    judge_base_url: str | None = key(
        None, help="OpenAI-compatible server of the judge; null: OpenAI", read_when=(*JUDGED, when("judge_model"))
    )
    judge_logprobs: bool = key(
        True,
        help="the server gives probabilities of tokens (transformers serve does not)",
        read_when=(*JUDGED, when("judge_model")),
    )
    # HELM
    helm_entries: list[str] = key(
        ["heed_test"],
        help="HELM's run entries; heed_test: the run's own test rows",
        read_when=(ASKS, when("tasks", "helm")),
    )
