"""Keys of eval_benchmarks.py."""

from dataclasses import dataclass
from typing import Literal

from heed.config.keys import ReadRecorder, key


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(ReadRecorder):
    """Keys of eval_benchmarks.py."""

    # what is asked
    model_name_or_path: str = key(help="a run folder, a checkpoint in it, or any model folder or Hub id")
    model_revision: str | None = key(None, help="branch, tag or commit of a Hub model")
    dtype: Literal["float32", "bfloat16", "float16"] = key("float32", help="type of the weights")
    load_in_4bit: bool | None = key(None, help="keep the base model in 4 bits; null: as the run was trained")
    prompt: str | None = key(None, help="only for a model that brings no prompt contract")
    compare_with_base: bool | None = key(
        None, help="also ask the model the run started from, with the same contract; null: where a run knows it"
    )
    tasks: list[str] = key(help="benchmarks by the names that `list` shows, or tasks of lm_eval")
    # how it is asked
    chat_template: Literal["with", "without", "both"] = key(
        "with", help="prompts in the model's own template, as plain text, or one after the other"
    )
    num_fewshot: int | None = key(None, help="worked examples before each question; null: as many as the task says")
    limit: int | None = key(None, help="only the first items of each task; the rows then say `limit`")
    batch_size: int = key(16, help="requests answered at once")
    max_new_tokens: int = key(
        256, help="length limit of an answer", read_when="tasks: alpaca_eval, alpaca_method, openai_evals or helm"
    )
    # where things are
    data_root: str | None = key(None, help="folder that mirrors the Hub's data sets, for work without a connection")
    output_dir: str | None = key(None, help="where benchmarks/ and rows.jsonl go; null: the model's own folder")
    # programs that a model wrote
    unsafe_code: bool = key(False, help="run what the model wrote for HumanEval, in a bubblewrap sandbox")
    without_sandbox: bool = key(
        False, help="run it even where bubblewrap is absent, with your rights", read_when="unsafe_code: true"
    )
    # a judge
    judge_model: str | None = key(None, help="model that judges, by the name its server knows")
    judge_base_url: str | None = key(
        None, help="OpenAI-compatible server of the judge; null: OpenAI", read_when="judge_model"
    )
    judge_logprobs: bool = key(
        True, help="the server gives probabilities of tokens (transformers serve does not)", read_when="judge_model"
    )
    # HELM
    helm_entries: list[str] = key(
        ["heed_test"], help="HELM's run entries; heed_test: the run's own test rows", read_when="tasks: helm"
    )
