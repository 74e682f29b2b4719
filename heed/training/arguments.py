"""The keys of a training, as arguments of transformers' Trainer."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from heed import config
from heed.config import Settings, SftConfig
from heed.errors import UserError, reason_of

if TYPE_CHECKING:  # heavy: imported below, once the command line is known to be good
    from transformers import TrainingArguments

Keys = TypeVar("Keys")


@dataclass(frozen=True, kw_only=True)
class Told(Generic[Keys]):
    """What a training was told: `ours` are Heed's own keys, `training` the TrainingArguments that the user or Heed
    set, `settings` all keys with the source of each value, `precision` the arithmetic and the reason for it."""

    ours: Keys
    arguments: "type[TrainingArguments]"
    training: Settings
    settings: Settings
    precision: str


def read_config(command_line: config.CommandLine) -> Told[SftConfig]:
    """What train_sft.py was told. Raises UserError for keys that are unknown, wrong, or at odds with each other."""
    from transformers import TrainingArguments

    told = read_keys(command_line, SftConfig, TrainingArguments)
    config.refuse_both(told.settings, "tokens_per_batch", "per_device_train_batch_size")
    return told


def read_keys(
    command_line: config.CommandLine,
    schema: type[Keys],
    arguments: "type[TrainingArguments]",
    *,
    defaults: Mapping[str, Any] = config.TRAINING_DEFAULTS,
    refused: Mapping[str, str] = config.REFUSED,
) -> Told[Keys]:
    """Heed's own keys by `schema`, and those of the trainer by its `arguments`.

    Raises UserError for keys that are unknown, wrong, or at odds with each other.
    """
    import torch

    from heed.training.speed import choose_precision

    own = config.field_types(schema)  # some replace a TrainingArguments key of the same name
    training_types = {name: kind for name, kind in config.field_types(arguments).items() if name not in own}
    settings = config.read_settings(command_line, own | training_types)
    ours: Any = config.script_config(schema, settings)
    if "output_dir" not in settings:
        raise UserError("output_dir is missing (the folder of this run); set it in --config or as --output_dir")
    training = config.training_settings(settings, training_types, defaults=defaults, refused=refused)
    if not torch.accelerator.is_available():
        for name, value in (("dataloader_pin_memory", False), ("use_cpu", True)):
            training.setdefault(name, config.Setting(value=value, source="follows the device: no accelerator"))
    config.derive_accumulation(ours.global_batch_size, settings, training, int(os.environ.get("WORLD_SIZE", "1")))
    if ours.bits == 8:
        keep_biases(training)
    precision = choose_precision(training, weights=ours.dtype)
    training.setdefault("bf16", config.Setting(value=False, source="default"))  # TRL's own default is true
    config.check_launcher(training)
    theirs = {
        item.name: config.Setting(value=item.default, source="default")
        for item in dataclasses.fields(arguments)
        if item.name in training_types and item.default is not dataclasses.MISSING
    }
    resolved = config.resolved_values(ours, settings) | theirs | training
    return Told(ours=ours, arguments=arguments, training=training, settings=resolved, precision=precision)


def keep_biases(training: Settings) -> None:
    """In autocast bitsandbytes would round the frozen biases for good (Linear8bitLt), and the adapter learn on others.

    Raises UserError for autocast that was asked for.
    """
    why = "load_in_8bit computes in the type of the weights"
    for name in ("bf16", "fp16"):
        if name in training and training[name].value:
            raise UserError(f"{training[name].source}: {name}: true, but {why}; set dtype: bfloat16 for speed")
    training["bf16"] = config.Setting(value=False, source=why)


def training_arguments(told: Told[Any]) -> "TrainingArguments":
    """The trainer's own arguments. Raises UserError for values they refuse and for a launch other than asked for."""
    from torch.distributed import DistError
    from transformers.utils.logging import set_verbosity_error

    from heed.processes import meet_on_cpu, not_found_message

    values = {name: setting.value for name, setting in told.training.items()}
    keep_best = values.pop("load_best_model_at_end")
    try:
        if values.get("use_cpu") and not values.get("ddp_backend"):
            meet_on_cpu(values["ddp_timeout"])
        args = told.arguments(**values)
        if args.process_index > 0:  # asking for it makes the processes find each other
            set_verbosity_error()
    except (ValueError, ImportError) as error:
        raise UserError(f"{told.arguments.__name__}: {reason_of(error)}") from error
    except DistError as error:
        raise UserError(not_found_message(error, values["ddp_timeout"])) from error
    # Set here, since __post_init__ would want save_steps to be a multiple of eval_steps. We evaluate wherever a
    # checkpoint is written (ScoreCheckpoints), so the two need not match.
    args.load_best_model_at_end = keep_best
    if args.n_gpu > 1:
        raise UserError(
            f"{args.n_gpu} GPUs are visible to one process; start with `accelerate launch`, "
            "or show it one with CUDA_VISIBLE_DEVICES=0"
        )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != args.world_size:
        raise UserError(
            f"the launcher started {launched} processes, but each of them sees {args.world_size}; "
            "on CPUs set use_cpu: true"
        )
    return args
