"""What decides the numbers of a run, one value for each key."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

from transformers import TrainingArguments

from heed.config.training import AdapterKeys
from heed.models.identity import weights_sha256
from heed.prompts.hashes import digest, tokenizer_digest
from heed.prompts.template import Prompt
from heed.runs.sameness import Fingerprint
from heed.tokens.batches import FlatCollator
from heed.tokens.examples import column

if TYPE_CHECKING:
    from heed.training.plan import Plan

# Keys of TrainingArguments that the weights depend on, besides those that make up `global_batch`.
ARGUMENTS = (
    "seed",
    "data_seed",
    "optim",
    "optim_args",
    "learning_rate",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "num_train_epochs",
    "max_steps",
    "train_sampling_strategy",
    "dataloader_drop_last",
    "neftune_noise_alpha",
    "bf16",
    "fp16",
)
KEYS = ("dtype", "loss_on", "max_length", "on_long_row")
ADAPTER_KEYS = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "load_in_4bit")
# As LoraConfig calls them. They came later: None where they are at their defaults, as a run from before them has it.
LORA_CONFIG_KEYS = ("use_rslora", "use_dora", "init_lora_weights", "modules_to_save")
LATER_KEYS = (*LORA_CONFIG_KEYS, "load_in_8bit")
# Where a model was loaded from and with what, not what it is.
NOT_THE_MODEL = ("_name_or_path", "transformers_version", "dtype", "architectures", "quantization_config")


def fingerprint(plan: "Plan") -> Fingerprint:
    """One value for each key that the numbers of a run depend on, flat, so that two runs can be compared key by key."""
    sft, args = plan.sft, plan.args
    train = plan.encoded["train"].dataset
    found: Fingerprint = {
        "data": plan.reading.sha256,
        "train_rows": hashlib.sha256(column(train, "row_id").tobytes()).hexdigest()[:16],
        # None where none has a name, as a run from before there were several has it
        "validation_sets": list(plan.validation_sets) or None,
        # An adapter's frozen weights are in no checkpoint, so they can never change in a run.
        "model.frozen" if sft.use_peft else "base": weights_sha256(sft.model_name_or_path, sft.model_revision),
        "batching": "flat" if isinstance(plan.collator, FlatCollator) else "padded",
        "global_batch": global_batch(args, sft.tokens_per_batch),
    }
    found |= {name: getattr(sft, name) for name in KEYS}
    return of_any_training(found, sft, args, plan.prompt, plan.model)


def of_any_training(
    found: Fingerprint, adapter: AdapterKeys, args: TrainingArguments, prompt: Prompt, model: Any
) -> Fingerprint:
    """With what every training's numbers depend on."""
    settings = {name: value for name, value in model.config.to_diff_dict().items() if name not in NOT_THE_MODEL}
    found |= {"template": digest(prompt.template), "tokenizer": tokenizer_digest(prompt.tokenizer)}
    found |= {name: getattr(args, name) for name in ARGUMENTS}
    found["use_peft"] = adapter.use_peft
    if adapter.use_peft:
        found |= {name: getattr(adapter, name) for name in ADAPTER_KEYS}
        later = {name: getattr(adapter, name) for name in LATER_KEYS}
        found |= {name: None if value == getattr(type(adapter), name) else value for name, value in later.items()}
    found |= {f"model.{name}": value for name, value in settings.items()}
    plain: Fingerprint = json.loads(json.dumps(found, default=str))
    return plain


def global_batch(args: TrainingArguments, tokens_per_batch: int | None) -> str:
    """What an optimizer step learns from, whatever the number of processes."""
    parts = args.gradient_accumulation_steps * args.world_size
    if tokens_per_batch is not None:
        return f"at most {tokens_per_batch * parts} tokens"
    return f"{args.train_batch_size * parts} rows"
