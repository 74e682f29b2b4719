"""What a run is told: one flat YAML file and the command line, checked strictly, every value with its source.

Two kinds of keys: those of a script (a dataclass below) and, for training, every name of
`transformers.TrainingArguments`. An unknown key is an error that names the nearest right one; so is a key that is
set and never read, and two keys that contradict each other.
"""

import dataclasses
import difflib
import enum
import json
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from heed.errors import UserError


class ReadRecorder:
    """Remembers which of its fields were read, so that a key that nobody reads can be refused."""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            reads = object.__getattribute__(self, "__dict__").setdefault("_reads", set())
            reads.add(name)
        return object.__getattribute__(self, name)


def key(default: Any = dataclasses.MISSING, *, help: str, read_when: str = "") -> Any:
    """A configuration key. `read_when` tells what must be set for the key to have an effect."""
    metadata = {"help": help, "read_when": read_when}
    if isinstance(default, dict | list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class SftConfig(ReadRecorder):
    """Keys of train_sft.py beside those of TrainingArguments."""

    # model and prompt
    model_name_or_path: str = key(help="folder or Hub id of the model to fine-tune")
    model_revision: str | None = key(None, help="branch, tag or commit of a Hub model")
    dtype: Literal["float32", "bfloat16", "float16"] = key(
        "float32", help="type of the weights; keep float32 and set bf16: true for mixed precision"
    )
    attn_implementation: str | None = key(None, help="transformers' attention: sdpa, eager, ...")
    dropout: float | None = key(None, help="replaces every dropout probability of the model; null keeps its own")
    prompt: str = key("alpaca", help="a file in prompts/, a path to a .jinja, or model for its own chat template")
    # adapter
    use_peft: bool = key(False, help="train a LoRA adapter instead of all weights")
    lora_r: int = key(16, help="rank of the adapter", read_when="use_peft: true")
    lora_alpha: int = key(32, help="scale of the adapter, as alpha / r", read_when="use_peft: true")
    lora_dropout: float = key(0.05, help="dropout in front of the adapter", read_when="use_peft: true")
    lora_target_modules: list[str] | None = key(
        None, help="layers that carry an adapter; null: the right ones", read_when="use_peft: true"
    )
    load_in_4bit: bool = key(False, help="QLoRA: keep the frozen weights in 4 bits", read_when="use_peft: true")
    # data
    data: str | dict[str, str] = key(help="file, folder, URL or Hub id, or one of them for each split")
    data_config: str | None = key(None, help="named configuration of a Hub data set")
    data_revision: str | None = key(None, help="branch, tag or commit of a Hub data set")
    columns: dict[str, str] = key({}, help="our field names -> your columns, as {instruction: task}")
    split: Literal["position", "hash", "source"] | None = key(
        None, help="part rows by position, content hash, or as the source says; null: source if it names splits"
    )
    split_shares: list[float] = key(
        [0.85, 0.10, 0.05], help="shares of train, test, validation", read_when="split: position or hash"
    )
    source_splits: dict[str, str] = key(
        {}, help="our split names -> the source's, as {validation: test}", read_when="split: source"
    )
    on_bad_row: Literal["stop", "drop"] = key("stop", help="a malformed row: stop, or drop and list it")
    prepared: str | None = key(
        None, help="folder of a set that is tokenized already (see --prepare); its rows need not fit into memory"
    )
    mixture: dict[str, float] = key(
        {}, help="file name -> how often its training rows count, as {web.jsonl: 0.5}", read_when="prepared"
    )
    # what is learned
    loss_on: Literal["response", "all"] = key("response", help="learn the response only, or the prompt too")
    max_length: int | None = key(None, help="tokens a row may have; null: the model's own context length")
    on_long_row: Literal["error", "drop", "cut_prompt", "cut_response"] = key(
        "error", help="what happens to a row over max_length"
    )
    global_batch_size: int | None = key(
        None, help="rows of an optimizer step over all processes; gradient_accumulation_steps follows from it"
    )
    processes: int | None = key(None, help="refuse to start with another number of processes, over all machines")
    # what is refused
    audit: dict[str, float] = key(
        {}, help="highest share of rows that a finding may have, as {near_duplicate: 0.1}; the table lists the names"
    )
    audit_allow: list[str] = key([], help="findings that stop nothing, by name")
    audit_against: list[str] = key([], help="evaluation files whose questions must not be in the training rows")
    # how fast
    batching: Literal["flat", "padded"] = key(
        "flat", help="examples end to end in one row, or padded to the longest; the loss is the same"
    )
    tokens_per_batch: int | None = key(
        None, help="as many rows in a micro-batch as have that many tokens, instead of per_device_train_batch_size"
    )
    speed: Literal["auto", "eager", "graph", "compile"] = key(
        "auto", help="steps run eagerly, from CUDA graphs, or compiled; auto: what pays here, and says why"
    )
    num_proc: int | None = key(None, help="processes that tokenize; null: by the CPUs and the number of rows")
    # while training
    early_stopping_patience: int | None = key(
        None,
        help="stop after this many evaluations without a better eval_loss",
        read_when="eval_strategy is not no",
    )
    sample_max_new_tokens: int = key(64, help="length limit of the sample answered after each epoch; 0: no sample")
    record_row_loss: bool = key(False, help="write the loss of every row in every step into flight.jsonl")
    # starting and starting again
    preflight: Literal["full", "quick"] = key(
        "full", help="check everything before step 0; quick: do not rehearse a step with the longest rows"
    )
    resume: str = key(
        "auto", help="auto: go on with the run in output_dir; never; or a checkpoint or run to go on from"
    )
    allow_changed: list[str] = key([], help="keys that may differ from the run that is gone on with")
    compare_with_base: bool = key(
        False, help="after training, answer the test rows before and after, and write report.html"
    )
    compare_max_new_tokens: int = key(256, help="length limit of those answers", read_when="compare_with_base: true")
    overwrite_output_dir: bool = key(False, help="delete the earlier Heed run in output_dir first")
    # the Hub; these are TrainingArguments' names, and Trainer itself is told to push nothing
    push_to_hub: bool = key(
        False, help="send the model to the Hub, never waiting for it; a token: HF_TOKEN or `hf auth login`"
    )
    hub_model_id: str | None = key(None, help="the repository, as me/my-model", read_when="push_to_hub: true")
    hub_strategy: Literal["end", "checkpoints", "best"] = key(
        "end",
        help="send the final model; every checkpoint too; or each that is the best so far",
        read_when="push_to_hub: true",
    )
    hub_revision: str | None = key(
        None, help="branch for this run, made if need be; null: main", read_when="push_to_hub: true"
    )
    hub_private_repo: bool | None = key(
        None, help="whether a new repository is private; null: as the account has it", read_when="push_to_hub: true"
    )
    hub_license: str | None = key(
        None, help="the model's licence, as apache-2.0; null: its base's, if known", read_when="push_to_hub: true"
    )
    hub_wait: float = key(
        120.0, help="seconds to wait at the end for what has not arrived yet", read_when="push_to_hub: true"
    )


@dataclass(frozen=True, kw_only=True)
class InspectConfig(ReadRecorder):
    """Keys of inspect_data.py beside those of train_sft.py."""

    html: str | None = key(None, help="write a page to look through the rows, 2,000 at most, flagged ones first")
    export: str | None = key(
        None,
        help="write cleaned rows to this .jsonl or, split by split, folder; the others to NAME.rejected.jsonl",
    )
    pairs: str | None = key(None, help="write rendered prompts and answers here (JSONL)")
    flags: str | None = key(None, help="a run folder that gets row_flags.json, for eval_responses.py")
    against: list[str] = key([], help="more evaluation files, beside audit_against")
    preview_rows: int = key(3, help="rows shown token by token")
    run: str | None = key(None, help="a run folder: show the rows that one of its steps learned from, and nothing else")
    step: int | None = key(None, help="the step", read_when="run")


@dataclass(frozen=True, kw_only=True)
class EvalConfig(ReadRecorder):
    """Keys of eval_responses.py."""

    # what is asked
    model_name_or_path: str | None = key(None, help="a run folder, a checkpoint in it, or any model folder or Hub id")
    model_revision: str | None = key(None, help="branch, tag or commit of a Hub model")
    dtype: Literal["float32", "bfloat16", "float16"] = key("float32", help="type of the weights")
    load_in_4bit: bool | None = key(None, help="keep the base model in 4 bits; null: as the run was trained")
    prompt: str | None = key(None, help="only for a model that brings no prompt contract")
    data: str | None = key(None, help="file, folder, URL or Hub id; null: the rows the run set aside")
    columns: dict[str, str] = key({}, help="our field names -> your columns", read_when="data")
    on_bad_row: Literal["stop", "drop"] = key("stop", help="a malformed row: stop, or drop it", read_when="data")
    split: Literal["test", "validation", "train"] = key(
        "test", help="which rows of the run to answer", read_when="data is null"
    )
    limit: int | None = key(None, help="answer only the first rows")
    responses: str | None = key(None, help="a responses.json to evaluate instead of asking a model")
    output_dir: str | None = key(None, help="where responses.json and all else goes; null: the model's own folder")
    # what it is compared with
    compare_with_base: bool = key(False, help="also answer with the model the run started from")
    compare_with: str | None = key(None, help="another model to answer the same rows, or its responses.json")
    # how it answers
    engine: Literal["auto", "batch", "continuous", "one", "endpoint"] = key(
        "auto", help="who writes the answers; the text is the same. endpoint: an OpenAI-compatible server"
    )
    batch_size: int | None = key(
        None, help="prompts answered at once; null: as many as half of the free memory holds, 64 at most"
    )
    max_new_tokens: int = key(256, help="length limit of an answer")
    base_url: str | None = key(None, help="address of the server, mostly ending in /v1", read_when="engine: endpoint")
    endpoint_model: str | None = key(
        None, help="the server's name for the model; null: model_name_or_path", read_when="engine: endpoint"
    )
    concurrency: int = key(4, help="requests under way at once", read_when="engine: endpoint")
    timeout: float = key(120.0, help="seconds for one answer", read_when="engine: endpoint")
    # numbers
    metrics: list[str] = key(
        ["exact_match", "normalized_exact_match", "contains", "token_f1", "rougeL", "chrf", "bleu"],
        help="what is measured; also bertscore, and evaluate:NAME_OR_FOLDER",
    )
    bertscore_model: str | None = key(None, help="folder of an encoder such as BERT", read_when="metrics: bertscore")
    bertscore_num_layers: int | None = key(
        None, help="the layer that BERTScore compares", read_when="metrics: bertscore"
    )
    # a judge
    judge_backend: Literal["openai", "ollama", "decision"] | None = key(
        None, help="who judges: an OpenAI-compatible server, Ollama, or a local model; null: nobody"
    )
    judge_model: str | None = key(None, help="its model", read_when="judge_backend")
    judge_base_url: str | None = key(None, help="address of the judge's server", read_when="judge_backend")
    judge_mode: Literal["score", "pair", "both"] = key(
        "score", help="0 to 100 against the reference, or the two systems side by side", read_when="judge_backend"
    )
    judge_prompt: str = key(
        "rubric", help="rubric, classic, or a .jinja of your own", read_when="judge_backend, judge_mode: score or both"
    )
    judge_pair_prompt: str = key(
        "pair", help="pair, or a .jinja of your own", read_when="judge_backend, judge_mode: pair or both"
    )
    judge_concurrency: int | None = key(
        None, help="requests at once; null: 4, or 8 off this machine", read_when="judge_backend"
    )
    judge_timeout: float = key(120.0, help="seconds for one reply", read_when="judge_backend")
    judge_retries: int = key(4, help="after 429, 5xx and time-outs", read_when="judge_backend")
    judge_max_tokens: int = key(512, help="length limit of a reply", read_when="judge_backend")
    judge_control_rows: int = key(5, help="rows whose controls are judged too", read_when="judge_backend")
    judge_prices: list[float] | None = key(
        None, help="[prompt, completion], for a million tokens each", read_when="judge_backend"
    )
    judge_max_cost: float | None = key(None, help="stop before more is spent", read_when="judge_backend, judge_prices")
    judge_seed: int = key(0, help="which rows are controls", read_when="judge_backend")
    people: str | None = key(
        None, help="a JSONL of people's scores or votes that the judge is compared with", read_when="judge_backend"
    )


@dataclass(frozen=True, kw_only=True)
class ArenaConfig(ReadRecorder):
    """Keys of arena.py. Answers are recorded (run, responses) or live (run with live, models, endpoints)."""

    run: str | None = key(None, help="a run folder: the answers of its base and tuned model, or the models themselves")
    live: bool = key(False, help="ask the run's two models instead of showing their answers", read_when="run")
    responses: dict[str, str] = key({}, help="recorded answers to compare: a name -> its responses.json")
    models: dict[str, str] = key({}, help="models to ask: a name -> run folder, checkpoint, model folder or Hub id")
    endpoints: dict[str, dict[str, str]] = key(
        {}, help="servers to ask: a name -> {base_url: http://.../v1, model: ..., key_variable: environment variable}"
    )
    prompt: str | None = key(
        None,
        help="prompt of models that bring no contract; null: the contract of the first model that does",
        read_when="a live model without a contract",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = key(
        "float32", help="type of the weights", read_when="live models"
    )
    max_new_tokens: int = key(256, help="length limit of a live answer", read_when="live models or endpoints")
    data: str | None = key(
        None,
        help="file, folder, URL or Hub id with rows to step through; null: the run's test rows, if there is a run",
        read_when="live models or endpoints",
    )
    limit: int | None = key(None, help="only the first rows")
    votes: str | None = key(None, help="file that votes are appended to; null: votes.jsonl in the run folder")
    judge: str | None = key(None, help="a judge.jsonl whose pair verdicts stand on the leaderboard beside people's")
    host: str = key("127.0.0.1", help="address to listen on; others than this machine's need HEED_ARENA_PASSWORD")
    port: int = key(7860, help="port to listen on")


@dataclass(frozen=True, kw_only=True)
class RateConfig(ReadRecorder):
    """Keys of `arena.py rate`."""

    votes: str = key(help="file with the votes")
    judge: str | None = key(None, help="a judge.jsonl whose pair verdicts are rated beside people's votes")
    json: str | None = key(None, help="file to write leaderboards, win rates and agreement to")
    csv: str | None = key(None, help="file to write the votes to, in arena-rank's columns model_a, model_b, winner")
    seed: int = key(0, help="seed of the bootstrap intervals")


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


@dataclass(frozen=True, kw_only=True)
class ChatConfig(ReadRecorder):
    """Keys of chat.py."""

    model: str = key(help="a run folder, a checkpoint in it, or any model folder or Hub id")
    model_revision: str | None = key(None, help="branch, tag or commit of a Hub model")
    base: str | None = key(None, help="what /base asks; null: the model it started from, where that is known")
    prompt: str | None = key(None, help="only for a model that brings no prompt contract")
    system: str | None = key(None, help="a system message to begin with")
    max_new_tokens: int = key(256, help="length limit of an answer")
    dtype: Literal["float32", "bfloat16", "float16"] = key("float32", help="type of the weights")
    load_in_4bit: bool | None = key(None, help="keep the base model in 4 bits; null: as the run was trained")


# What Heed sets when the user does not, and why.
TRAINING_DEFAULTS: Mapping[str, Any] = {
    "remove_unused_columns": False,  # the collator owns the columns
    "logging_nan_inf_filter": False,  # a NaN must be seen, not averaged away
    "restore_callback_states_from_checkpoint": True,  # a resumed run keeps its patience
    "eval_strategy": "steps",
    "eval_steps": 50,
    "eval_on_start": True,  # loss before the first step
    "save_strategy": "steps",
    "save_steps": 500,
    "save_total_limit": 2,  # the best and the newest
    "per_device_eval_batch_size": 32,  # halved when memory runs out; the loss does not depend on it
    "logging_steps": 10,
    "logging_first_step": True,
    "report_to": "none",
    "ddp_timeout": 300,  # a node that is gone is noticed in minutes, not in half an hour
    "ddp_find_unused_parameters": False,  # every trained parameter takes part in every step
}
# TrainingArguments that would do nothing here, or harm.
REFUSED: Mapping[str, str] = {
    "hub_token": "a token in a file leaks; use `hf auth login` or HF_TOKEN",
    "hub_always_push": "the newest state is always sent, as soon as the last one has arrived",
    "remove_unused_columns": "the collator needs its columns",
    "label_names": "labels come from the collator",
    "length_column_name": "lengths come from the rows",
    "label_smoothing_factor": "the loss is the plain mean over supervised tokens",
    "accelerator_config": "batches are dealt out by Heed; see gradient_accumulation_steps and dataloader_*",
    "dataloader_in_order": "only batches in order resume exactly",
    "resume_from_checkpoint": "resume: auto | never | PATH does it, and auto is the default",
    "save_on_each_node": "a checkpoint is one folder, which all nodes must share",
    "enable_jit_checkpoint": "SIGTERM, SIGINT and SIGUSR1 always end a run with a checkpoint",
    "ignore_data_skip": "a resumed run goes on with the rows it has not seen",
    "include_num_input_tokens_seen": "the tokens of the rows are counted always, padding never",
    "torch_compile": "speed: compile compiles what pays",
    "torch_compile_mode": "speed: compile compiles what pays",
    "torch_compile_backend": "speed: compile compiles what pays",
    "use_liger_kernel": "it has no kernels for GPT-2 and Pythia, and the head is computed at labels only already",
    "average_tokens_across_devices": "the loss is always divided by the tokens of the global batch",
    "logging_nan_inf_filter": "a NaN must be seen",
    "prediction_loss_only": "evaluation computes the loss only",
    "batch_eval_metrics": "evaluation computes the loss only",
    "include_for_metrics": "evaluation computes the loss only",
    "eval_do_concat_batches": "evaluation computes the loss only",
    "eval_accumulation_steps": "evaluation keeps no logits",
    "eval_use_gather_object": "evaluation gathers numbers only",
    "bf16_full_eval": "evaluation runs in the precision of training",
    "fp16_full_eval": "evaluation runs in the precision of training",
    "load_best_model_at_end": "the best checkpoint is kept whenever there are evaluations and checkpoints",
    "metric_for_best_model": "the best model is the one with the lowest eval_loss",
    "greater_is_better": "the best model is the one with the lowest eval_loss",
    "do_train": "train_sft.py trains",
    "do_eval": "evaluation is set by eval_strategy",
    "do_predict": "eval_responses.py generates",
    "auto_find_batch_size": "it changes the recipe behind your back; set per_device_train_batch_size",
    "local_rank": "the launcher sets it",
}
# What TRL, axolotl, LLaMA-Factory and litgpt call it -> what it is called here.
ELSEWHERE: Mapping[str, str] = {
    "streaming": "prepared: FOLDER, written once with --prepare, is for sets that do not fit into memory",
    "packing": "batching: flat lays examples end to end without padding, and keeps them apart",
    "sample_packing": "batching: flat lays examples end to end without padding, and keeps them apart",
    "padding_free": "batching: flat lays examples end to end without padding, and keeps them apart",
    "completion_only_loss": "loss_on: response | all",
    "assistant_only_loss": "loss_on: response | all",
    "train_on_inputs": "loss_on: response | all",
    "train_on_prompt": "loss_on: response | all",
    "dataset_name": "data: a file, folder, URL or Hub id",
    "datasets": "data: a file, folder, URL or Hub id",
    "dataset": "data: a file, folder, URL or Hub id",
    "base_model": "model_name_or_path: a folder or Hub id",
    "cutoff_len": "max_length, and on_long_row for what is longer",
    "sequence_len": "max_length, and on_long_row for what is longer",
    "val_set_size": "split_shares: [train, test, validation]",
    "interleave_probs": "mixture: {FILE: how often its rows count}, with --prepare",
    "finetuning_type": "use_peft: true for LoRA",
}
STRATEGIES = ("random", "group_by_length", "sequential")  # orders that are functions of seed and epoch
# key -> the key that must not be "no", or it would do nothing
IDLE_WITHOUT: Mapping[str, str] = {
    "eval_on_start": "eval_strategy",
    "eval_delay": "eval_strategy",
    "save_total_limit": "save_strategy",
    "save_only_model": "save_strategy",
}
# key -> (the key it depends on, the value that one must have)
DEPENDS: Mapping[str, tuple[str, str]] = {
    "eval_steps": ("eval_strategy", "steps"),
    "save_steps": ("save_strategy", "steps"),
    "logging_steps": ("logging_strategy", "steps"),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value and where it came from: "default", "Heed's default", "configs/tiny.yaml:7" or "command line"."""

    value: Any
    source: str
    set_by_user: bool = False

    @property
    def rank(self) -> int:
        return 2 if self.source == "command line" else 1


Settings = dict[str, Setting]
Script = TypeVar("Script", SftConfig, InspectConfig, EvalConfig, BenchmarkConfig, ArenaConfig, RateConfig, ChatConfig)


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    config: str | None
    overrides: dict[str, str]
    dry_run: bool
    explain: bool
    column_map: bool
    prepare: bool


def parse_command_line(arguments: Sequence[str], *, flags: Sequence[str]) -> CommandLine:
    """`--config FILE --key value --key=value --flag`; a key without a value means true, as for argparse's flags.

    Raises UserError for a stray word or a key given twice.
    """
    config: str | None = None
    overrides: dict[str, str] = {}
    found = dict.fromkeys(("dry_run", "explain", "column_map", "prepare"), False)
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UserError(f"{word!r} on the command line belongs to no --key")
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name in flags and not equals:
            found[name] = True
            continue
        if not equals:
            value = words.pop(0) if words and not words[0].startswith("--") else "true"
        if name == "config":
            config = value
        elif name in overrides:
            raise UserError(f"--{name} is given twice on the command line")
        else:
            overrides[name] = value
    return CommandLine(config=config, overrides=overrides, **found)


def field_types(schema: type) -> dict[str, Any]:
    hints = typing.get_type_hints(schema)
    return {item.name: hints[item.name] for item in dataclasses.fields(schema) if item.init}


AT_LEAST_ONE = (
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "tokens_per_batch",
    "max_length",
)


def read_settings(command_line: CommandLine, keys: Mapping[str, Any]) -> Settings:
    """The values of the YAML file and then of the command line, each turned into the type its key has.

    Raises UserError for unknown keys, values of the wrong type, counts below 1, and YAML that is not one flat mapping.
    """
    settings: Settings = {}
    if command_line.config is not None:
        settings |= read_yaml(Path(command_line.config), keys)
    for name, text in command_line.overrides.items():
        check_known(name, keys, "command line")
        value = convert(text, keys[name], f"--{name}")
        settings[name] = Setting(value=value, source="command line", set_by_user=True)
    for name in AT_LEAST_ONE:
        if name in settings and settings[name].value is not None and settings[name].value < 1:
            raise UserError(f"{settings[name].source}: {name}: {settings[name].value}, but it must be at least 1")
    return settings


def read_yaml(path: Path, keys: Mapping[str, Any]) -> Settings:
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except FileNotFoundError as error:
        raise UserError(f"--config {path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: expected lines of `key: value`")
    settings: Settings = {}
    for name_node, value_node in root.value:
        place = f"{path}:{name_node.start_mark.line + 1}"
        name = str(name_node.value)
        check_known(name, keys, place)
        if name in settings:
            raise UserError(f"{place}: {name} is given twice")
        value = convert(plain_value(value_node), keys[name], f"{place}: {name}")
        settings[name] = Setting(value=value, source=place, set_by_user=True)
    return settings


def plain_value(node: yaml.Node) -> Any:
    """A YAML value with its scalars as the text they were written in: the key's type decides what they are.

    (YAML 1.1 reads `no` as false and 2e-5 as text.)
    """
    if isinstance(node, yaml.MappingNode):
        return {str(name.value): plain_value(value) for name, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [plain_value(value) for value in node.value]
    return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)


def check_known(name: str, keys: Mapping[str, Any], place: str) -> None:
    if name in ELSEWHERE and name not in keys:
        raise UserError(f"{place}: unknown key {name!r}; here it is {ELSEWHERE[name]}")
    if name not in keys:
        nearest = difflib.get_close_matches(name, keys, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else "; --help lists the keys"
        raise UserError(f"{place}: unknown key {name!r}{hint}")


def convert(value: Any, wanted: Any, place: str) -> Any:
    """`value` (text, list, mapping or None) as the type `wanted`. Raises UserError naming the place and the value."""
    options = options_of(wanted)
    if value is None or value == "null":
        if type(None) in options or Any in options:
            return None
        raise UserError(f"{place}: may not be null; expected {type_text(wanted)}")
    options = meant_options(options, value)
    # Text fits `str` always, so it is tried last.
    for option in sorted(options, key=lambda option: option is str):
        try:
            return convert_to(value, option, place)
        except UserError:
            raise
        except (ValueError, TypeError):
            continue
    if choices := all_choices(wanted):
        nearest = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise UserError(f"{place}: {value!r} is not one of {', '.join(choices)}{hint}")
    raise UserError(f"{place}: {value!r} is not {type_text(wanted)}")


def meant_options(options: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    """transformers types its choices `SchedulerType | str`; and plain text is text before it is a list of one."""
    if any(is_enum(option) for option in options):
        return tuple(option for option in options if option is not str)
    if str in options and isinstance(value, str) and not value.startswith(("[", "{")):
        return tuple(option for option in options if (typing.get_origin(option) or option) not in (list, dict))
    return options


def is_enum(option: Any) -> bool:
    return isinstance(option, type) and issubclass(option, enum.Enum)


def options_of(wanted: Any) -> tuple[Any, ...]:
    return typing.get_args(wanted) if is_union(wanted) else (wanted,)


def all_choices(wanted: Any) -> list[str]:
    """The values that a key of few values may have, null aside."""
    return [choice for option in options_of(wanted) for choice in choices_of(option)]


def choices_of(option: Any) -> list[str]:
    if is_enum(option):
        return [str(member.value) for member in option]
    return [str(choice) for choice in typing.get_args(option)] if typing.get_origin(option) is Literal else []


def is_union(wanted: Any) -> bool:
    return typing.get_origin(wanted) in (typing.Union, types.UnionType)


TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def convert_to(value: Any, wanted: Any, place: str) -> Any:
    """`value` as exactly `wanted`, or ValueError."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is type(None):
        raise ValueError
    if origin in (list, tuple) or wanted in (list, tuple):
        items = value if isinstance(value, list) else split_list(value)
        if not isinstance(items, list):
            raise ValueError
        return [convert(item, arguments[0] if arguments else str, place) for item in items]
    if origin is dict or wanted is dict:
        mapping = value if isinstance(value, dict) else parse_yaml(value)
        if not isinstance(mapping, dict):
            raise ValueError
        item_type = arguments[1] if arguments else Any
        return {str(name): convert(item, item_type, f"{place}.{name}") for name, item in mapping.items()}
    if wanted is Any:
        return yaml.safe_load(value) if isinstance(value, str) else value
    if not isinstance(value, str):
        raise ValueError
    if origin is Literal:
        return next(choice for choice in arguments if str(choice) == value) if value in map(str, arguments) else fail()
    if is_enum(wanted):
        return wanted(value).value
    if wanted is bool:
        return True if value.lower() in TRUE else False if value.lower() in FALSE else fail()
    if wanted is int:
        number = float(value)
        return int(number) if number.is_integer() else fail()
    if wanted is float:
        return float(value)
    if wanted is str:
        return value
    raise ValueError


def fail() -> Any:
    raise ValueError


def parse_yaml(text: str) -> Any:
    """`{a: 1}`, `["a", b]` and the like from the command line, scalars as text, as they come from a file."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError from error
    return plain_value(node) if node is not None else None


def split_list(text: str) -> list[Any]:
    return parse_yaml(text) if text.startswith("[") else [item.strip() for item in text.split(",")]


def type_text(wanted: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    if is_union(wanted):
        return " or ".join(type_text(option) for option in typing.get_args(wanted))
    if typing.get_origin(wanted) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(wanted)))
    origin = typing.get_origin(wanted) or wanted
    return names.get(origin) or {list: "a list", dict: "a mapping {key: value}"}.get(origin, str(wanted))


def script_config(schema: type[Script], settings: Settings) -> Script:
    """The script's own keys as its dataclass. Raises UserError naming a required key that is missing."""
    values = {name: setting.value for name, setting in settings.items() if name in field_types(schema)}
    for item in dataclasses.fields(schema):
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and item.name not in values:
            raise UserError(f"{item.name} is missing ({item.metadata['help']}); set it in --config or as --{item.name}")
    return schema(**values)


def training_settings(settings: Settings, types: Mapping[str, Any]) -> Settings:
    """TrainingArguments as set by the user and then by Heed; contradictions are refused.

    `types` are the fields of TrainingArguments. The rest keeps transformers' own defaults.
    """
    mine = {name: setting for name, setting in settings.items() if name in types}
    for name, setting in mine.items():
        if name in REFUSED:
            raise UserError(f"{setting.source}: {name} has no place here: {REFUSED[name]}")
    resolved = dict(mine)
    for name, value in TRAINING_DEFAULTS.items():
        resolved.setdefault(name, Setting(value=value, source="Heed's default"))
    refuse_contradictions(resolved)
    strategy = resolved.get("train_sampling_strategy")
    if strategy and str(strategy.value) not in STRATEGIES:
        raise UserError(
            f"{strategy.source}: train_sampling_strategy: {strategy.value} does not resume exactly; "
            f"choose from {', '.join(STRATEGIES)}"
        )
    if str(resolved["eval_strategy"].value) == "no":
        resolved["eval_on_start"] = Setting(value=False, source="follows eval_strategy: no")
    else:
        source = "follows eval_strategy: the best checkpoint is the one with the lowest eval_loss"
        resolved["metric_for_best_model"] = Setting(value="eval_loss", source=source)
        resolved["greater_is_better"] = Setting(value=False, source=source)
    keep_best = "no" not in (str(resolved["eval_strategy"].value), str(resolved["save_strategy"].value))
    source = "follows eval_strategy and save_strategy"
    resolved["load_best_model_at_end"] = Setting(value=keep_best, source=source)
    return resolved


def refuse_contradictions(settings: Settings) -> None:
    """Keys of one source that cannot both hold. (The command line may override what the file says.)"""
    for name, (other, needed) in DEPENDS.items():
        setting, on = settings[name], settings.get(other)
        value = str(on.value) if on else needed
        if setting.set_by_user and value != needed and (on is None or setting.rank >= on.rank):
            raise UserError(f"{setting.source}: {name} has no effect with {other}: {value}; it needs {other}: {needed}")
    for name, other in IDLE_WITHOUT.items():
        idle, strategy = settings.get(name), settings[other]
        if idle and idle.set_by_user and idle.value and strategy.value == "no" and idle.rank >= strategy.rank:
            raise UserError(f"{idle.source}: {name} has no effect with {other}: no")
    steps = settings.get("max_steps")
    if steps and steps.value > 0:
        refuse_both(settings, "max_steps", "num_train_epochs")


def refuse_both(settings: Settings, first: str, second: str) -> None:
    """Two keys that say the same thing differently; the command line's word counts more than the file's."""
    one, other = settings.get(first), settings.get(second)
    if one and other and one.set_by_user and other.set_by_user and one.rank == other.rank:
        raise UserError(f"{one.source}: {first} and {second} contradict each other; keep one of them")


def derive_accumulation(rows: int | None, settings: Settings, training: Settings, processes: int) -> None:
    """Settle gradient_accumulation_steps, and if need be smaller micro-batches, by `rows` (global_batch_size).

    So a run can go on with another number of processes: the rows of each step stay the same. Raises UserError when
    the rows cannot be shared evenly.
    """
    if rows is None:
        return
    refuse_both(settings, "global_batch_size", "gradient_accumulation_steps")
    refuse_both(settings, "global_batch_size", "tokens_per_batch")
    own, left = divmod(rows, processes)
    if rows < 1 or left:
        raise UserError(f"global_batch_size: {rows} rows cannot be shared evenly by {processes} processes")
    most = training.get("per_device_train_batch_size", Setting(value=8, source="default")).value
    size = next(size for size in range(min(most, own), 0, -1) if own % size == 0)
    source = f"follows global_batch_size: {rows} with {processes} process(es)"
    if size != most:
        training["per_device_train_batch_size"] = Setting(value=size, source=source)
    training["gradient_accumulation_steps"] = Setting(value=own // size, source=source)


def check_launcher(settings: Settings) -> None:
    """`accelerate launch` has a say in precision: its yaml would override ours silently, so they must agree."""
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    for name in ("bf16", "fp16"):
        wanted = bool(settings[name].value) if name in settings else False
        if launched == name and not wanted:
            raise UserError(
                f"the launcher says mixed_precision: {launched}, the run says {name}: false; set {name}: true here "
                "or mixed_precision: no there"
            )


def refuse_unread(config: ReadRecorder, settings: Settings) -> None:
    """Every key that the user set must have been read by now, else it would silently do nothing.

    Save a key of the file whose condition the command line has just changed (`--use_peft false`): that was meant.
    """
    schema = type(config)
    reads: set[str] = vars(config).get("_reads", set())
    for item in dataclasses.fields(schema):  # type: ignore[arg-type]
        setting = settings.get(item.name)
        if setting and setting.set_by_user and item.name not in reads:
            needs = item.metadata["read_when"]
            conditions = [settings[name] for name in re.findall(r"\w+", needs) if name in settings]
            if any(each.set_by_user and each.rank > setting.rank for each in conditions):
                continue
            raise UserError(
                f"{setting.source}: {item.name} is set, but nothing in this run reads it"
                + (f"; it works with {needs}" if needs else "")
            )


def resolved_values(config: ReadRecorder, settings: Settings) -> Settings:
    """Every key of the script with its value and source, without counting as reading it."""
    values = {name: value for name, value in vars(config).items() if not name.startswith("_")}
    return {name: settings.get(name) or Setting(value=value, source="default") for name, value in values.items()}


def explain(settings: Settings) -> str:
    """A table of every value and its source: what the user set first, then Heed's defaults, then the rest."""
    order = {"Heed's default": 1, "default": 2}
    rows = sorted(settings.items(), key=lambda item: order.get(item[1].source, 0))
    width = max(len(name) for name in settings)
    values = {name: json.dumps(setting.value, default=str) for name, setting in rows}
    column = min(40, max(len(text) for text in values.values()))
    return "\n".join(f"{name:<{width}}  {values[name]:<{column}}  {setting.source}" for name, setting in rows)


def help_text(schema: type, script_doc: str, *, more: str = "") -> str:
    """What --help prints: the script's own words, then each key with its help, the values it may have, and default."""
    lines = [script_doc.strip(), "", "Keys (in the YAML file, or as --key value):"]
    wanted = field_types(schema)
    for item in dataclasses.fields(schema):
        factory = item.default_factory
        default = item.default if factory is dataclasses.MISSING else factory()
        shown = "required" if default is dataclasses.MISSING else f"default {json.dumps(default)}"
        if choices := all_choices(wanted[item.name]):
            shown = f"{' | '.join(choices)}; {shown}"
        lines.append(f"  --{item.name:<26} {item.metadata['help']} ({shown})")
    return "\n".join(lines + ([more] if more else []))
