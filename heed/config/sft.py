"""Keys of train_sft.py besides those of TrainingArguments."""

from dataclasses import dataclass
from typing import Literal

from heed.config.conditions import when
from heed.config.keys import key
from heed.config.training import AdapterKeys, ModelKeys, RunKeys

NOT_PREPARED = when("prepared", None)
GROUPS = {
    "model_name_or_path": "model",
    "use_peft": "adapter",
    "prompt": "prompt and data",
    "loss_on": "what is learned",
    "audit": "what is refused",
    "batching": "how fast",
    "dropout": "while training",
    "seeds": "several runs by one command",
    "global_batch_size": "the run",
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
class RowKeys:
    """What is learned from which rows, and how fast."""

    prompt: str = key("alpaca", help="a file in prompts/, a path to a .jinja, or model for its own chat template")
    data: str | dict[str, str | dict[str, str]] = key(
        help="file, folder, URL or Hub id, or one of them for each split; for validation also several, with names"
    )
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
    dropout: float | None = key(None, help="replaces every dropout probability of the model; null keeps its own")
    sample_max_new_tokens: int = key(64, help="length limit of the sample answered after each epoch; 0: no sample")
    record_row_loss: bool = key(False, help="write the loss of every row in every step into flight.jsonl")
    preflight: Literal["full", "quick"] = key(
        "full", help="check everything before step 0; quick: do not rehearse a step with the longest rows"
    )
    seeds: list[int] = key([], help="a run for each seed, in output_dir/seed-N, and then compare them")
    learning_curve: int = key(
        0,
        help="runs on so many shares of the training rows, 6 to 100 %, which tell what more rows would bring",
        read_when=NOT_PREPARED,
    )


@dataclass(frozen=True, kw_only=True)
class SftConfig(RunKeys, RowKeys, AdapterKeys, ModelKeys):
    """Keys of train_sft.py besides those of TrainingArguments; --help shows them from the last base to the first."""
