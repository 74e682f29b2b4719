"""Everything that is known before the first step: rows, splits, tokenizer, prompt, model and token ids."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, TrainingArguments, set_seed

from heed import modeling, prepared, processes, run_folder
from heed.attention import check_flat, varlen_refusal
from heed.batches import FlatCollator, PaddingCollator
from heed.config import SftConfig
from heed.encoding import EncodedSplit, Policy, encode_split
from heed.errors import UserError
from heed.order import row_batches
from heed.preview import preview_rows
from heed.prompts import Contract, Prompt, load_prompt
from heed.records import Record, Rows
from heed.sources import Reading, Source, read
from heed.speed import GRAPH_MULTIPLE, SpeedChoice, choose_speed, graph_refusal
from heed.splits import SPLITS, SplitName, Splits, split_records

PREVIEW_ROWS = 3
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run that only needs to be started."""

    sft: SftConfig
    args: TrainingArguments
    reading: Reading
    splits: Splits
    tokenizer: PreTrainedTokenizerBase
    prompt: Prompt
    model: Any
    """A PreTrainedModel, or a PeftModel around one."""
    encoded: dict[SplitName, EncodedSplit]
    """train, and validation when there is one."""
    collator: FlatCollator | PaddingCollator
    """Makes the batches that are trained on."""
    speed: SpeedChoice

    @cached_property
    def contract(self) -> Contract:
        """What is saved with every checkpoint."""
        return self.prompt.contract()

    @property
    def samples(self) -> int:
        """The length limit of the answers that are looked at while training; 0 for none."""
        return self.sft.sample_max_new_tokens if self.splits["validation"] else 0

    @property
    def longest_prompt(self) -> Record:
        """The validation row whose question is the longest."""
        return max(self.splits["validation"], key=lambda record: sum(len(each["content"]) for each in record.messages))

    @property
    def padding(self) -> PaddingCollator:
        """The same examples as any model takes them, for looking at and comparing."""
        return PaddingCollator(pad_token_id=self.prompt.eos_token_id, loss_on=self.sft.loss_on)

    @property
    def preview(self) -> str:
        """The first training rows, token by token."""
        dataset = self.encoded["train"].dataset
        examples = [dataset[number] for number in range(min(PREVIEW_ROWS, len(dataset)))]
        return preview_rows(self.tokenizer, examples, self.padding)


def make_plan(sft: SftConfig, args: TrainingArguments, say: Say) -> Plan:
    """Read and split the rows, load the model, tokenize; `say` what was found.

    Raises UserError for rows, templates, models and lengths that cannot work together.
    """
    reading, splits = read_rows(sft, say) if sft.prepared is None else read_held_out(sft, Path(sft.prepared), say)
    if args.eval_strategy != "no" and not splits["validation"]:
        raise UserError("the validation split is empty; set eval_strategy: no, or give it a share (split_shares)")
    tokenizer = modeling.load_tokenizer(sft.model_name_or_path, sft.model_revision)
    prompt = load_prompt(sft.prompt, tokenizer)
    tokenizer.chat_template = prompt.template  # saved with the model, so that every server renders the same prompt
    say(f"prompt    {sft.prompt}" + ("" if prompt.shows_input else "; `input` is put behind the instruction"))
    model = load(sft, args, say)
    for settings in (model.config, model.generation_config):
        settings.pad_token_id = tokenizer.pad_token_id
    encoded = encode(sft, args, splits, prompt, modeling.context_length(model), say)
    lengths = encoded["train"].lengths
    row_batches(
        args, lengths, sft.tokens_per_batch, padded=sft.batching == "padded"
    )  # refuses what cannot be dealt out
    collator, speed = hot_path(sft, args, model, prompt.eos_token_id, float(lengths.mean()), say)
    return Plan(
        sft=sft,
        args=args,
        reading=reading,
        splits=splits,
        tokenizer=tokenizer,
        prompt=prompt,
        model=model,
        encoded=encoded,
        collator=collator,
        speed=speed,
    )


def prepare(sft: SftConfig, say: Say) -> None:
    """Read, check, split and tokenize the rows into the folder `prepared`; no model is loaded.

    Raises UserError for rows and keys that cannot work together.
    """
    assert sft.prepared is not None
    tokenizer = modeling.load_tokenizer(sft.model_name_or_path, sft.model_revision)
    prompt = load_prompt(sft.prompt, tokenizer)
    if sft.max_length is None:
        raise UserError("max_length is missing; a set is prepared without the model that would know it")
    policy = Policy(max_length=sft.max_length, on_long_row=sft.on_long_row, loss_on=sft.loss_on)
    prepared.prepare(
        source_of(sft), partial(recipe, sft, prompt, policy), Path(sft.prepared), num_proc=sft.num_proc, say=say
    )


def recipe(sft: SftConfig, prompt: Prompt, policy: Policy, row_format: str) -> prepared.Recipe:
    return prepared.recipe(
        prompt,
        policy,
        row_format=row_format,
        columns=sft.columns,
        split=sft.split,
        shares=sft.split_shares if sft.split == "hash" else (),
        mixture=sft.mixture,
    )


def read_held_out(sft: SftConfig, folder: Path, say: Say) -> tuple[Reading, Splits]:
    """Of a prepared set only the validation rows are read; `data` and its keys were used when it was made."""
    facts, validation = prepared.read_facts(folder), prepared.read_held_out(folder, "validation")
    source_of(sft)  # which counts as reading its keys
    rows = Rows(records=validation, rejected=[], row_format=facts["row_format"], ignored_fields=facts["ignored_fields"])
    counts = facts["counts"]
    say(f"data      {folder}: {counts['read']:,} rows prepared, sha256 {facts['rows_sha256'][:12]}")
    say("splits    " + ", ".join(f"{name} {counts.get(f'in {name}', 0):,}" for name in SPLITS))
    splits: Splits = {"train": [], "test": [], "validation": validation}
    return Reading(rows=rows, files=facts["files"], prepared=facts["rows_sha256"]), splits


def source_of(sft: SftConfig) -> Source:
    return Source(
        data=sft.data,
        columns=sft.columns,
        on_bad_row=sft.on_bad_row,
        data_config=sft.data_config,
        data_revision=sft.data_revision,
    )


def read_rows(sft: SftConfig, say: Say) -> tuple[Reading, Splits]:
    """The rows of the run's source and their splits; the same every time for the same bytes and keys."""
    reading = read(source_of(sft))
    rows = reading.rows
    say(f"data      {sft.data}: {len(rows.records)} rows ({rows.row_format}), sha256 {rows.sha256[:12]}")
    if rows.rejected:
        say(f"          {len(rows.rejected)} bad rows left out, listed in {run_folder.REJECTED_FILE}")
    if rows.ignored_fields:
        say(f"          columns not used: {', '.join(rows.ignored_fields)}")
    named = {record.source_split for record in rows.records} - {None}
    how = sft.split or ("source" if isinstance(sft.data, dict) or len(named) > 1 else "position")
    if isinstance(sft.data, dict) and how != "source":
        raise UserError(f"split: {how}, but data names a file for each split; leave split out, or give data as one")
    splits = split_records(
        rows.records,
        how=how,
        shares=sft.split_shares if how != "source" else (),
        source_splits=sft.source_splits if how == "source" else {},
    )
    say("splits    " + ", ".join(f"{name} {len(splits[name])}" for name in SPLITS) + f" (by {how})")
    unused = len(rows.records) - len({record.row_id for name in SPLITS for record in splits[name]})
    if unused:
        say(f"          {unused} rows are in a split of the source that is not used")
    return reading, splits


def load(sft: SftConfig, args: TrainingArguments, say: Say) -> Any:
    """The model, with a fresh adapter if asked for."""
    set_seed(args.seed)  # an adapter begins with random numbers
    load_in_4bit = sft.use_peft and sft.load_in_4bit
    model: Any = modeling.load_model(
        sft.model_name_or_path,
        revision=sft.model_revision,
        dtype=sft.dtype,
        attn_implementation=sft.attn_implementation,
        dropout=sft.dropout,
        load_in_4bit=load_in_4bit,
    )
    if sft.use_peft:
        adapter = modeling.Adapter(
            rank=sft.lora_r,
            alpha=sft.lora_alpha,
            dropout=sft.lora_dropout,
            target_modules=sft.lora_target_modules,
        )
        model = modeling.add_adapter(model, adapter)
    total, trained = modeling.parameter_counts(model)
    say(
        f"model     {sft.model_name_or_path}: {total / 1e6:.1f} M parameters, {trained / 1e6:.1f} M of them trained"
        + (", the frozen ones in 4 bits" if load_in_4bit else "")
    )
    return model


def hot_path(
    sft: SftConfig, args: TrainingArguments, model: Any, pad_token_id: int, mean_length: float, say: Say
) -> tuple[FlatCollator | PaddingCollator, SpeedChoice]:
    """How batches look and how steps are made, each with its reason. `mean_length` is that of the rows, in tokens.

    Raises UserError for a model that is not known to keep the examples of a flat row apart.
    """
    base = model.get_base_model() if sft.use_peft else model
    flat = sft.batching == "flat"
    if not flat and sft.tokens_per_batch is not None:
        raise UserError(
            f"tokens_per_batch: {sft.tokens_per_batch} counts tokens, and with batching: padded most of a batch may be "
            "padding; set batching: flat, or per_device_train_batch_size"
        )
    if flat and sft.attn_implementation is not None:
        raise UserError(
            f"attn_implementation: {sft.attn_implementation} has no say over flat rows; leave it out, or set "
            "batching: padded"
        )
    dropout = modeling.dropout_in_use(model)
    noise = args.neftune_noise_alpha is not None
    varlen = varlen_refusal(
        args.device, compute_dtype(sft, args), modeling.head_size(base), modeling.attention_dropout(base)
    )
    refusal = graph_refusal(
        args,
        flat=flat,
        varlen=varlen,
        dropout=dropout,
        four_bit=sft.use_peft and sft.load_in_4bit,
        row_losses=sft.record_row_loss,
        tokens=sft.tokens_per_batch or round(mean_length * args.train_batch_size),
    )
    speed = choose_speed(sft.speed, graph_refusal=refusal, device=args.device)
    if not flat:
        say(f"speed     padded rows; {speed.mode} ({speed.reason})")
        return PaddingCollator(pad_token_id=pad_token_id, loss_on=sft.loss_on), speed
    check_flat(base, max_length=sft.max_length or modeling.context_length(base))
    against_sharing = dropout or ("neftune_noise_alpha" if noise else "")
    shared = f"no shared prefix ({against_sharing})" if against_sharing else "their common prefix once"
    attention = f"segment by segment ({varlen})" if varlen else "by torch's varlen_attn"
    say(f"speed     flat rows, {shared}; attention {attention}; {speed.mode} ({speed.reason})")
    collator = FlatCollator(
        pad_token_id=pad_token_id,
        loss_on=sft.loss_on,
        share_prefix=not against_sharing,
        varlen=not varlen,
        multiple=GRAPH_MULTIPLE if speed.mode == "graph" else 1,
        by_row=sft.record_row_loss,
    )
    return collator, speed


def compute_dtype(sft: SftConfig, args: TrainingArguments) -> torch.dtype:
    return torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else getattr(torch, sft.dtype)


def encode(
    sft: SftConfig, args: TrainingArguments, splits: Splits, prompt: Prompt, positions: int, say: Say
) -> dict[SplitName, EncodedSplit]:
    """Tokenize what training reads. `positions` is the longest row the model can take."""
    max_length = sft.max_length or positions
    if max_length > positions:
        raise UserError(f"max_length: {max_length}, but the model has {positions} positions")
    policy = Policy(max_length=max_length, on_long_row=sft.on_long_row, loss_on=sft.loss_on)
    encoded: dict[SplitName, EncodedSplit] = {}
    names: tuple[SplitName, ...] = ("train", "validation")
    for name in names:
        if sft.prepared is not None and name == "train":
            encoded[name] = prepared.load(Path(sft.prepared), recipe(sft, prompt, policy, ""))
        elif not splits[name]:
            continue
        else:
            with processes.in_turns():
                encoded[name] = encode_split(splits[name], prompt, policy, num_proc=sft.num_proc)
        counts = encoded[name].counts
        learned, prompt_share = (counts["response_tokens"], 0) if sft.loss_on == "response" else (counts["tokens"], 100)
        say(
            f"tokens    {name}: {counts['tokens']:,} in {counts['examples']:,} examples, {learned:,} of them learned "
            f"(response 100 %, prompt {prompt_share} %)"
        )
        told = [f"{counts[reason]} {text}" for reason, text in OUTCOMES.items() if counts[reason]]
        if told:
            say(f"          longer than max_length {max_length}: {', '.join(told)}")
        if not counts["examples"]:
            raise UserError(f"no {name} row is left within max_length {max_length}")
    return encoded


OUTCOMES = {
    "cut_prompt": "with the beginning of the prompt cut off",
    "cut_response": "with the end of the response and EOS cut off",
    "too_long": "dropped",
}
