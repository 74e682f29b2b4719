"""Keys of every training, on examples or on preferences: its model, its adapter, and the run itself."""

from dataclasses import dataclass
from typing import Literal

from heed.config.conditions import when
from heed.config.keys import key
from heed.errors import UserError

Bits = Literal[4, 8] | None
"""How the weights beside an adapter are kept; None: as they are."""


def bits_of(in_4bit: bool, in_8bit: bool) -> Bits:
    if in_4bit and in_8bit:
        raise UserError("load_in_4bit: true and load_in_8bit: true contradict each other; keep one of them")
    return 4 if in_4bit else 8 if in_8bit else None


@dataclass(frozen=True, kw_only=True)
class ModelKeys:
    """What is trained."""

    model_name_or_path: str = key(help="folder or Hub id of the model to fine-tune, or a .gguf file")
    model_revision: str | None = key(None, help="branch, tag or commit of a Hub model")
    dtype: Literal["float32", "bfloat16", "float16"] = key(
        "float32", help="type of the weights; keep float32 and set bf16: true for mixed precision"
    )
    attn_implementation: str | None = key(None, help="transformers' attention: sdpa, eager, ...")


@dataclass(frozen=True, kw_only=True)
class AdapterKeys:
    """What is trained beside it, instead of it."""

    use_peft: bool = key(False, help="train a LoRA adapter instead of all weights")
    lora_r: int = key(16, help="rank of the adapter", read_when=when("use_peft", True))
    lora_alpha: int = key(32, help="scale of the adapter, as alpha / r", read_when=when("use_peft", True))
    lora_dropout: float = key(
        0.0,
        help="dropout before the adapter; with any, rows share nothing and training is slower",
        read_when=when("use_peft", True),
    )
    lora_target_modules: list[str] | None = key(
        None,
        help="layers that get an adapter; null: the right ones for the architecture",
        read_when=when("use_peft", True),
    )
    use_rslora: bool = key(
        False, help="scale the adapter by alpha / sqrt(r) instead, for high ranks", read_when=when("use_peft", True)
    )
    use_dora: bool = key(
        False, help="DoRA: learn the length of each weight apart from its direction", read_when=when("use_peft", True)
    )
    init_lora_weights: bool | Literal["gaussian", "orthogonal"] = key(
        True, help="how the adapter begins, as LoraConfig has it", read_when=when("use_peft", True)
    )
    modules_to_save: list[str] | None = key(
        None,
        help="modules that are trained whole and saved with the adapter, as [lm_head]",
        read_when=when("use_peft", True),
    )
    load_in_4bit: bool = key(False, help="QLoRA: keep the frozen weights in 4 bits", read_when=when("use_peft", True))
    load_in_8bit: bool = key(False, help="keep the frozen weights in 8 bits", read_when=when("use_peft", True))

    @property
    def bits(self) -> Bits:
        """Of the frozen weights beside an adapter. Raises UserError for both keys at once."""
        return bits_of(self.use_peft and self.load_in_4bit, self.use_peft and self.load_in_8bit)


@dataclass(frozen=True, kw_only=True)
class RunKeys:
    """How a run is watched, continued, compared and pushed."""

    global_batch_size: int | None = key(
        None, help="rows in an optimizer step, over all processes; gradient_accumulation_steps follows from it"
    )
    processes: int | None = key(None, help="refuse to start with any other number of processes, over all machines")
    early_stopping_patience: int | None = key(
        None,
        help="stop after this many evaluations without a better eval_loss",
        read_when=when("eval_strategy", is_not="no"),
    )
    resume: str = key(
        "auto", help="auto: continue the run in output_dir; never; or a checkpoint or run to continue from"
    )
    allow_changed: list[str] = key([], help="keys that may differ from the run that is continued")
    compare_with_base: bool = key(
        False, help="after training, answer the test rows before and after, and write report.html"
    )
    compare_max_new_tokens: int = key(
        256, help="length limit of those answers", read_when=when("compare_with_base", True)
    )
    forgetting: str | None = key(
        None,
        help="plain text, one text per line, that is read before and after, to show losses; null: data/plain_text.txt",
        read_when=when("compare_with_base", True),
    )
    overwrite_output_dir: bool = key(False, help="delete the earlier Heed run in output_dir first")
    # these are TrainingArguments' names, and Trainer itself is told to push nothing
    push_to_hub: bool = key(
        False, help="send the model to the Hub without waiting for it; needs HF_TOKEN or `hf auth login`"
    )
    hub_model_id: str | None = key(
        None, help="the repository, such as me/my-model", read_when=when("push_to_hub", True)
    )
    hub_strategy: Literal["end", "checkpoints", "best"] = key(
        "end",
        help="send the final model; every checkpoint too; or each one that is the best so far",
        read_when=when("push_to_hub", True),
    )
    hub_revision: str | None = key(
        None, help="branch for this run, created if need be; null: main", read_when=when("push_to_hub", True)
    )
    hub_private_repo: bool | None = key(
        None,
        help="whether a new repository is private; null: as the account is set",
        read_when=when("push_to_hub", True),
    )
    hub_license: str | None = key(
        None,
        help="the model's licence, such as apache-2.0; null: its base's, if known",
        read_when=when("push_to_hub", True),
    )
    hub_wait: float = key(
        120.0, help="seconds to wait at the end for uploads that have not arrived", read_when=when("push_to_hub", True)
    )
