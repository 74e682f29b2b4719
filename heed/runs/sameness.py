"""What decides the numbers of a run: a run may only be gone on with where all of it is the same."""

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transformers import TrainingArguments

from heed.tokens.encoding import column
from heed.errors import UserError

if TYPE_CHECKING:
    from heed.training.plan import Plan

Fingerprint = dict[str, Any]

# Keys of TrainingArguments that the weights depend on, beside those that `global_batch` and `steps` stand for.
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
KEYS = ("dtype", "batching", "loss_on", "max_length", "on_long_row")
ADAPTER_KEYS = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "load_in_4bit")
# Where a model was loaded from, and with what: no part of what it is.
NOT_THE_MODEL = (
    "_name_or_path",
    "transformers_version",
    "dtype",
    "architectures",
    "quantization_config",
)
# A checkpoint's tensors have the shapes and the meaning that these give them.
UNCHANGEABLE = ("model.", "optim", "use_peft", "lora_r", "lora_target_modules", "load_in_4bit", "dtype")


def fingerprint(plan: "Plan") -> Fingerprint:
    """One value for each key that the numbers of a run depend on, flat, so that two runs can be compared key by key."""
    sft, args = vars(plan.sft), plan.args
    train = plan.encoded["train"].dataset
    model = {name: value for name, value in plan.model.config.to_diff_dict().items() if name not in NOT_THE_MODEL}
    found: Fingerprint = {
        "data": plan.reading.sha256,
        "train_rows": hashlib.sha256(column(train, "row_id").tobytes()).hexdigest()[:16],
        "template": digest(plan.prompt.template),
        "tokenizer": tokenizer_digest(plan.tokenizer),
        "global_batch": global_batch(args, sft["tokens_per_batch"]),
    }
    found |= {name: getattr(args, name) for name in ARGUMENTS}
    found |= {name: sft[name] for name in KEYS}
    found["use_peft"] = sft["use_peft"]
    if sft["use_peft"]:  # the frozen weights are in no checkpoint
        found |= {name: sft[name] for name in (*ADAPTER_KEYS, "model_name_or_path", "model_revision")}
    found |= {f"model.{name}": value for name, value in model.items()}
    plain: Fingerprint = json.loads(json.dumps(found, default=str))
    return plain


def global_batch(args: TrainingArguments, tokens_per_batch: int | None) -> str:
    """What an optimizer step learns from, whatever the number of processes."""
    parts = args.gradient_accumulation_steps * args.world_size
    if tokens_per_batch is not None:
        return f"at most {tokens_per_batch * parts} tokens"
    return f"{args.train_batch_size * parts} rows"


def tokenizer_digest(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return digest(backend.to_str() if backend is not None else tokenizer.get_vocab())


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def refuse_unknown(allowed: Sequence[str], known: Mapping[str, Any]) -> None:
    """Raises UserError for a key of allow_changed that no run is compared by."""
    for name in allowed:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else f": {', '.join(known)}"
            raise UserError(f"allow_changed: {name!r} is not a key that runs are compared by{hint}")


def check_same(then: Mapping[str, Any], now: Mapping[str, Any], *, allowed: Sequence[str], place: str) -> list[str]:
    """The keys that differ and may. Raises UserError with all that differ and may not, and with `allowed` that cannot.

    `place` is what the first was read from.
    """
    fixed = [name for name in allowed if name.startswith(UNCHANGEABLE) and then.get(name) != now.get(name)]
    if fixed:
        raise UserError(
            f"allow_changed: {fixed[0]} cannot be changed in a run: the tensors of {place} are made for it; "
            "choose another output_dir"
        )
    differ = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    refused = [name for name in differ if name not in allowed]
    if refused:
        lines = [f"\n  {name}: {text(then.get(name))} then, {text(now.get(name))} now" for name in refused]
        raise UserError(
            f"{place} belongs to a run that differs from this one:{''.join(lines)}\n"
            f"Set them back, choose another output_dir, start over with overwrite_output_dir: true, or go on with the "
            f"changes by allow_changed: {','.join(refused)}"
        )
    return differ


def text(value: Any) -> str:
    return "not set" if value is None else json.dumps(value)
