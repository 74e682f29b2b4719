"""Keys of train_sft.py besides those of TrainingArguments."""

from dataclasses import dataclass
from typing import Literal

from heed.config.conditions import when
from heed.config.keys import key

NOT_PREPARED = when("prepared", None)
GROUPS = {
    "model_name_or_path": "model and prompt",
    "use_peft": "adapter",
    "data": "data",
    "loss_on": "what is learned",
    "audit": "what is refused",
    "batching": "how fast",
    "early_stopping_patience": "while training",
    "preflight": "starting and starting again",
    "seeds": "several runs by one command",
    "push_to_hub": "the Hub",
}
"""The first key of each group, as --help shows them."""
BEGINNERS = {
    "model_name_or_path": "",
    "prompt": "",
    "data": "",
    "columns": "",
    "output_dir": "folder of the run",
    "num_train_epochs": "how often each row is learned from (default 3)",
    "learning_rate": "how far a step goes (default 5e-5; 1e-4 to 3e-4 for adapters and tiny models)",
    "per_device_train_batch_size": "rows at once; lower it when memory runs out (default 8)",
    "max_length": "",
    "compare_with_base": "",
}
"""The keys to begin with; help for those of TrainingArguments."""


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """Keys of train_sft.py besides those of TrainingArguments."""

    model_name_or_path: str = key(help="folder or Hub id of the model to fine-tune, or a .gguf file")
    model_revision: str | None = key(None, help="branch, tag or commit of a Hub model")
    dtype: Literal["float32", "bfloat16", "float16"] = key(
        "float32", help="type of the weights; keep float32 and set bf16: true for mixed precision"
    )
    attn_implementation: str | None = key(None, help="transformers' attention: sdpa, eager, ...")
    dropout: float | None = key(None, help="replaces every dropout probability of the model; null keeps its own")
    prompt: str = key("alpaca", help="a file in prompts/, a path to a .jinja, or model for its own chat template")
    use_peft: bool = key(False, help="train a LoRA adapter instead of all weights")
    lora_r: int = key(16, help="rank of the adapter", read_when=when("use_peft", True))
    lora_alpha: int = key(32, help="scale of the adapter, as alpha / r", read_when=when("use_peft", True))
    lora_dropout: float = key(0.05, help="dropout before the adapter", read_when=when("use_peft", True))
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
    data: str | dict[str, str] = key(help="file, folder, URL or Hub id, or one of them for each split")
    data_config: str | None = key(None, help="named configuration of a Hub data set")
    data_revision: str | None = key(None, help="branch, tag or commit of a Hub data set")
    columns: dict[str, str] = key({}, help="our field names -> your columns, as {instruction: task}")
    split: Literal["shuffled", "position", "hash", "source"] | None = key(
        None,
        help="split rows shuffled by their content, by position, by content hash alone (a row never moves, shares are "
        "approximate), or as the source does; null: source if it names splits, else shuffled",
    )
    split_shares: list[float] = key(
        [0.85, 0.10, 0.05],
        help="shares of train, test, validation",
        read_when=when("split", None, "shuffled", "position", "hash"),
    )
    source_splits: dict[str, str] = key(
        {}, help="our split names -> the source's, as {validation: test}", read_when=when("split", None, "source")
    )
    on_bad_row: Literal["stop", "drop"] = key("stop", help="a malformed row: stop, or drop and list it")
    prepared: str | None = key(
        None, help="folder of a data set that is already tokenized (see --prepare); its rows need not fit into memory"
    )
    train_share: float = key(
        1.0, help="learn from this share of the training rows only, chosen by content hash", read_when=NOT_PREPARED
    )
    mixture: dict[str, float] = key(
        {}, help="file name -> how often its training rows count, as {web.jsonl: 0.5}", read_when=when("prepared")
    )
    loss_on: Literal["response", "all"] = key("response", help="learn the response only, or the prompt too")
    max_length: int | None = key(None, help="tokens a row may have; null: the model's own context length")
    on_long_row: Literal["error", "drop", "cut_prompt", "cut_response"] = key(
        "error", help="what happens to a row over max_length"
    )
    global_batch_size: int | None = key(
        None, help="rows in an optimizer step, over all processes; gradient_accumulation_steps follows from it"
    )
    processes: int | None = key(None, help="refuse to start with any other number of processes, over all machines")
    audit: dict[str, float] = key(
        {},
        help="highest share of rows that a finding may have, as {near_duplicate: 0.1}; the table lists the names",
        read_when=NOT_PREPARED,
    )
    audit_allow: list[str] = key([], help="findings that do not stop training, by name", read_when=NOT_PREPARED)
    audit_against: list[str] = key(
        [], help="evaluation files whose questions must not be in the training rows", read_when=NOT_PREPARED
    )
    batching: Literal["auto", "flat", "padded"] = key(
        "auto",
        help="examples end to end in one row, or padded to the longest; the loss is the same. auto: flat where the "
        "model is proven to keep them apart",
    )
    tokens_per_batch: int | None = key(
        None, help="fill each micro-batch with rows up to this many tokens, instead of per_device_train_batch_size"
    )
    speed: Literal["auto", "eager", "graph", "compile"] = key(
        "auto",
        help="steps run eagerly, from CUDA graphs, or compiled; auto: eagerly, since nothing else was found to pay off",
    )
    num_proc: int | None = key(None, help="processes that tokenize; null: by the CPUs and the number of rows")
    early_stopping_patience: int | None = key(
        None,
        help="stop after this many evaluations without a better eval_loss",
        read_when=when("eval_strategy", is_not="no"),
    )
    sample_max_new_tokens: int = key(64, help="length limit of the sample answered after each epoch; 0: no sample")
    record_row_loss: bool = key(False, help="write the loss of every row in every step into flight.jsonl")
    preflight: Literal["full", "quick"] = key(
        "full", help="check everything before step 0; quick: do not rehearse a step with the longest rows"
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
    seeds: list[int] = key([], help="a run for each seed, in output_dir/seed-N, and then compare them")
    learning_curve: int = key(
        0,
        help="runs on so many shares of the training rows, 6 to 100 %, which tell what more rows would bring",
        read_when=NOT_PREPARED,
    )
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
