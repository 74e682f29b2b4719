"""Keys of train_dpo.py besides those of TRL's DPOConfig, and what becomes of those."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from heed.config.keys import key
from heed.config.training import AdapterKeys, ModelKeys, RunKeys
from heed.config.training_arguments import REFUSED, TRAINING_DEFAULTS

DPO_DEFAULTS: Mapping[str, Any] = {
    **TRAINING_DEFAULTS,
    "gradient_checkpointing": None,  # as transformers has it: TRL turns it on, which is slower and saves memory
    "dataloader_drop_last": True,  # TRL gathers its metrics from processes that have equally many pairs
}

LIKE_TRL = "the loss is TRL's, computed as it stands"
DPO_REFUSED: Mapping[str, str] = {
    **REFUSED,
    "label_smoothing_factor": "label_smoothing is that of the losses that know one",
    "label_names": "there are no labels but the answers themselves",
    "average_tokens_across_devices": "the loss is a mean over pairs",
    "torch_compile": LIKE_TRL,
    "torch_compile_mode": LIKE_TRL,
    "torch_compile_backend": LIKE_TRL,
    "use_liger_kernel": LIKE_TRL,
    "do_train": "train_dpo.py trains",
    "dataloader_drop_last": "every step has as many pairs as the next, whatever is left of an epoch is left out",
    "model_init_kwargs": "model_name_or_path, dtype and attn_implementation say what is loaded",
    "trust_remote_code": "no code of a model's folder is run",
    "dataset_num_proc": "pairs are tokenized by one process, in seconds",
    "truncation_mode": "no answer is cut: on_long_row says what becomes of a pair that is too long",
    "padding_free": "TRL 1.16 has switched it off",
    "pad_token": "padding is masked, whichever token it is",
    "sync_ref_model": "a reference that changes is in no checkpoint, so such a run could not continue exactly",
    "ref_model_mixup_alpha": "the reference model does not change",
    "ref_model_sync_steps": "the reference model does not change",
}


@dataclass(frozen=True, kw_only=True)
class PairKeys:
    """What is learned from which pairs."""

    prompt: str | None = key(None, help="only for a model that brings no prompt contract")
    pairs: str = key(
        help="file of pairs, as arena.py pairs writes them and TRL reads them: prompt, chosen and rejected"
    )
    columns: dict[str, str] = key({}, help="our field names -> your columns, as {chosen: better}")
    on_bad_row: Literal["stop", "drop"] = key("stop", help="a malformed pair: stop, or drop and list it")
    validation_share: float = key(
        0.1, help="share of the pairs that eval_loss is measured on; pairs with one prompt stay together"
    )
    allow_held_out: list[Literal["test", "validation"]] = key(
        [], help="splits of the model's run whose questions may be among the pairs; they then test nothing any more"
    )
    max_length: int | None = key(
        None, help="tokens that prompt and answer may have together; null: the model's own context length"
    )
    on_long_row: Literal["error", "drop"] = key("error", help="what happens to a pair over max_length")


@dataclass(frozen=True, kw_only=True)
class DpoConfig(RunKeys, PairKeys, AdapterKeys, ModelKeys):
    """Keys of train_dpo.py besides those of DPOConfig; --help shows them from the last base to the first."""


DPO_GROUPS = {
    "model_name_or_path": "model",
    "use_peft": "adapter",
    "prompt": "pairs",
    "global_batch_size": "the run",
    "push_to_hub": "the Hub",
}
DPO_BEGINNERS = {
    "model_name_or_path": "",
    "pairs": "",
    "output_dir": "folder of the run",
    "beta": "how much the answers may move away from the reference model's; more is less (default 0.1)",
    "loss_type": "sigmoid, ipo, hinge, ... as TRL has them (default [sigmoid])",
    "num_train_epochs": "how often each pair is learned from (default 3)",
    "learning_rate": "how far a step goes (TRL's default 1e-6)",
    "per_device_train_batch_size": "pairs at once; lower it when memory runs out (default 8)",
    "compare_with_base": "",
}
