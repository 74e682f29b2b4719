"""What Heed makes of TrainingArguments: its own defaults, names that have no place here, and contradictions."""

import os
from collections.abc import Mapping
from typing import Any

from heed.config.settings import Setting, Settings
from heed.errors import UserError

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
    "ignore_data_skip": "a resumed run continues with the rows it has not seen",
    "include_num_input_tokens_seen": "the rows' tokens are always counted, padding never",
    "torch_compile": "speed: compile compiles what pays off",
    "torch_compile_mode": "speed: compile compiles what pays off",
    "torch_compile_backend": "speed: compile compiles what pays off",
    "use_liger_kernel": "it has no kernels for GPT-2 and Pythia, and the head is already computed only at labels",
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


STRATEGIES = (
    "random",
    "group_by_length",
    "group_by_prefix",
    "sequential",
)  # orders that are functions of seed and epoch


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


def training_settings(
    settings: Settings,
    types: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] = TRAINING_DEFAULTS,
    refused: Mapping[str, str] = REFUSED,
) -> Settings:
    """TrainingArguments as set by the user and then by Heed; contradictions are refused.

    `types` are the fields of TrainingArguments. The rest keeps transformers' own defaults.
    """
    mine = {name: setting for name, setting in settings.items() if name in types}
    for name, setting in mine.items():
        if name in refused:
            raise UserError(f"{setting.source}: {name} has no place here: {refused[name]}")
    resolved = dict(mine)
    for name, value in defaults.items():
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
    """Keys of one source that contradict each other. (The command line may override what the file says.)"""
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

    So a run can continue with another number of processes: the rows of each step stay the same. Raises UserError when
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
