"""Everything that is known before the first step: rows, splits, tokenizer, prompt, model and token ids."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainingArguments, set_seed

from heed import processes
from heed.audit.cache import cached_scan, check_cache, scan_key, store_scan
from heed.audit.findings import BAD_ROWS, Audit, judge, refuse
from heed.audit.scan import RowSource, scan
from heed.config import SftConfig
from heed.data.reading import data_source, read_rows, splitting
from heed.data.records import Record, Rejected
from heed.data.rows import Rows
from heed.data.sources import Reading, named_splits, validation_sets
from heed.data.splits import SPLITS, SplitName, Splits, split_numbers
from heed.errors import UserError
from heed.models import adapters, loading
from heed.prompts.dates import DAY
from heed.prompts.template import Contract, Prompt, load_prompt
from heed.saying import Say, count
from heed.tokens import prepared
from heed.tokens.batches import Batch, FlatCollator, PaddingCollator
from heed.tokens.encoding import EncodedSplit, Policy, accounted, cache_file, encode_split, take_split
from heed.tokens.examples import column
from heed.tokens.order import row_batches
from heed.tokens.preview import measure_learned, preview_rows
from heed.tokens.recipe import Recipe, make_recipe
from heed.tokens.shards import read_whole
from heed.training.batching import hot_path, why_padded
from heed.training.choices import try_choices
from heed.training.proof import RELOAD_ROWS, reloaded
from heed.training.speed import SpeedChoice
from heed.workers import what_is_here_stays

PREVIEW_ROWS = 3
LEARNED_ROWS = 256  # spread evenly over the training rows; their targets are counted before step 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run that only needs to be started."""

    sft: SftConfig
    args: TrainingArguments
    reading: Reading
    splits: Splits
    validation_sets: dict[str, list[int]]
    """Row ids of the validation sets that have names."""
    audit: Audit | None
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
        return self.prompt.contract(loading.stops_of(self.model.generation_config))

    def evaluated(self) -> dict[str, Dataset]:
        """The examples of each validation set, the one that steers first; one without a name where none has one."""
        dataset = self.encoded["validation"].dataset
        if not self.validation_sets:
            return {"": dataset}
        found = {}
        for name, rows in self.validation_sets.items():
            places = np.flatnonzero(np.isin(column(dataset, "row_id"), rows))
            if not len(places):
                raise UserError(f"data: validation: no row of {name} is left within max_length; leave the set out")
            found[name] = dataset.select(places)
        return found

    @property
    def proof(self) -> Batch:
        """Rows on which the saved model must compute what the trained one does."""
        dataset = self.encoded["train"].dataset
        return self.padding([dataset[number] for number in range(min(RELOAD_ROWS, len(dataset)))])

    def reload(self, folder: Path, device: torch.device) -> Any:
        """The saved model, loaded as a user would."""
        return reloaded(self.sft, self.sft, folder, device)

    @property
    def samples(self) -> int:
        """The length limit of the sample answers shown while training; 0 for none."""
        return self.sft.sample_max_new_tokens if self.splits["validation"] else 0

    @property
    def longest_prompt(self) -> Record:
        """The validation row with the longest question; there is one when `samples` is not 0."""
        return max(self.splits["validation"], key=lambda record: sum(len(each["content"]) for each in record.messages))

    @property
    def padding(self) -> PaddingCollator:
        """Makes batches that any model takes, for inspection and comparison."""
        return PaddingCollator(pad_token_id=self.prompt.eos_token_id, loss_on=self.sft.loss_on)

    @property
    def preview(self) -> str:
        """The first training rows, token by token."""
        dataset = self.encoded["train"].dataset
        examples = [dataset[number] for number in range(min(PREVIEW_ROWS, len(dataset)))]
        rows = {example["row_id"] for example in examples}
        places = {record.row_id: record.place for record in self.splits["train"] if record.row_id in rows}
        return preview_rows(self.tokenizer, examples, self.collator, places)


def make_plan(sft: SftConfig, args: TrainingArguments, say: Say) -> Plan:
    """Read and split the rows, load the model, tokenize; `say` what was found.

    Raises UserError for rows, templates, models and lengths that cannot work together.
    """
    check_cache()
    try_choices(args)
    tokenizer = loading.load_tokenizer(sft.model_name_or_path, sft.model_revision)
    prompt = load_prompt(sft.prompt, tokenizer)
    if sft.prepared is None:
        reading, splits = read_rows(sft, say, prompt.refusal)
    else:
        reading, splits = read_held_out(sft, Path(sft.prepared), say)
    what_is_here_stays()
    if args.eval_strategy != "no" and not splits["validation"]:
        raise UserError(
            "the validation split is empty; set eval_strategy: no, or give it a share (split_shares); rows of one "
            "prompt stay together unless split: position"
        )
    sets = validation_sets(data_source(sft), splits["validation"])
    for name, rows in sets.items():
        steers = " (eval_loss, which steers)" if name == next(iter(sets)) else f" (eval_{name}_loss)"
        say(f"          validation set {name}: {count(len(rows), 'row')}{steers}")
    tokenizer.chat_template = prompt.template  # saved with the model, so that every server renders the same prompt
    say(f"prompt    {sft.prompt}" + ("" if prompt.shows_input else "; `input` is put after the instruction"))
    if prompt.dated:
        say(f"          its template asks for today's date; here every day is {DAY:%d %B %Y}")
    policy = encoding_policy(sft, check_model(sft, tokenizer))

    def every_row() -> Iterable[Record | Rejected]:
        return chain(reading.rows.records, reading.rows.rejected)

    audit = tokens = None
    if sft.prepared is None:
        with processes.in_turns():  # the others take it from the cache
            audit, tokens = audit_rows(sft, prompt, policy, every_row, reading.files, len(reading.rows.records))
        say(f"audit     {audit.summary()}")
        for sentence in audit.scan.likeness:
            say(f"          {sentence}")
        refuse(audit.findings)
    else:
        say("audit     none of a prepared set; inspect_data.py with the same config looks at its rows")
    model = load(sft, args, say)
    for settings in (model.config, model.generation_config):
        settings.pad_token_id = tokenizer.pad_token_id
    encoded = encode(sft, splits, prompt, policy, tokens, say)
    lengths = encoded["train"].lengths
    padded = why_padded(sft, model)
    # Called only to refuse what cannot be dealt out.
    row_batches(args, encoded["train"].dataset, sft.tokens_per_batch, padded=bool(padded))
    collator, speed = hot_path(sft, args, model, prompt.eos_token_id, float(lengths.mean()), say, padded=padded)
    some = encoded["train"].dataset.select(np.linspace(0, len(lengths) - 1, min(LEARNED_ROWS, len(lengths)), dtype=int))
    say(f"learned   {measure_learned(list(some), collator, prompt.eos_token_id)}")
    return Plan(
        sft=sft,
        args=args,
        reading=reading,
        splits=splits,
        validation_sets=sets,
        audit=audit,
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
    tokenizer = loading.load_tokenizer(sft.model_name_or_path, sft.model_revision)
    prompt = load_prompt(sft.prompt, tokenizer)
    if sft.max_length is None:
        raise UserError("max_length is missing; a set is prepared without a model to take it from")
    policy = encoding_policy(sft, sft.max_length)
    planned = recipe(sft, prompt, policy)
    splitting(sft, named_splits(planned.source))  # refuses to train on what the source calls a test
    prepared.prepare(planned, Path(sft.prepared), num_proc=sft.num_proc, say=say)
    say("audit     none of a prepared set; inspect_data.py with the same config looks at its rows")


def recipe(sft: SftConfig, prompt: Prompt, policy: Policy) -> Recipe:
    return make_recipe(
        data_source(sft),
        prompt,
        policy,
        split=sft.split,
        shares=sft.split_shares if sft.split == "hash" else (),
        source_splits=sft.source_splits if sft.split == "source" else {},
        mixture=sft.mixture,
    )


def read_held_out(sft: SftConfig, folder: Path, say: Say) -> tuple[Reading, Splits]:
    """Of a prepared set only the held-out rows are read; `data` and its keys say what it was made of."""
    source = data_source(sft)
    processes.from_first(lambda: prepared.check_source(folder, source))
    facts, validation = prepared.read_facts(folder), prepared.read_held_out(folder, "validation")
    rows = Rows(records=validation, rejected=[], row_format=facts["row_format"], ignored_fields=facts["ignored_fields"])
    counts = facts["counts"]
    say(f"data      {folder}: {count(counts['read'], 'row')} prepared, sha256 {facts['rows_sha256'][:12]}")
    say("splits    " + ", ".join(f"{name} {counts.get(f'in {name}', 0):,}" for name in SPLITS))
    splits: Splits = {"train": [], "test": prepared.read_held_out(folder, "test"), "validation": validation}
    return Reading(rows=rows, files=facts["files"], prepared=facts["rows_sha256"]), splits


def audit_rows(
    sft: SftConfig, prompt: Prompt, policy: Policy, rows: RowSource, files: Mapping[str, str], total: int | None
) -> tuple[Audit, Path]:
    """Audit every row, or take what an earlier audit of the same rows found; and where their examples are kept."""
    keys = ("data", "columns", "on_bad_row", "split", "split_shares", "source_splits")
    key = scan_key(files, {name: getattr(sft, name) for name in keys}, prompt, policy, sft.audit_against)
    tokens = cache_file(key)
    scanned = cached_scan(key) if read_whole(tokens) is not None else None
    if scanned is None:

        def split_rule(points: np.ndarray, sources: np.ndarray, names: list[str | None]) -> np.ndarray:
            return split_numbers(points, sources, names, **splitting(sft, set(names) - {None}))

        scanned = scan(
            rows,
            prompt,
            policy,
            split_rule,
            against=sft.audit_against,
            num_proc=sft.num_proc,
            total=total,
            tokens=tokens,
        )
        store_scan(key, scanned)
    # A run that says what becomes of bad and long rows accepts some; one that does not accepts none.
    strict = {BAD_ROWS: 0.0} if sft.on_bad_row == "stop" else {}
    strict |= {"too_long": 0.0} if sft.on_long_row == "error" else {}
    return judge(scanned, strict | sft.audit, sft.audit_allow), tokens


def load(sft: SftConfig, args: TrainingArguments, say: Say) -> Any:
    """The model, with a fresh adapter if asked for."""
    set_seed(args.seed)  # an adapter begins with random numbers
    model: Any = loading.load_model(
        sft.model_name_or_path,
        revision=sft.model_revision,
        dtype=sft.dtype,
        attn_implementation=sft.attn_implementation,
        dropout=sft.dropout,
        bits=sft.bits,
    )
    if sft.use_peft:
        model = adapters.add_adapter(model, adapters.adapter_of(sft))
    total, trained = loading.parameter_counts(model)
    say(
        f"model     {sft.model_name_or_path}: {total / 1e6:.1f} M parameters, {trained / 1e6:.1f} M of them trained"
        + (f", the frozen ones in {sft.bits} bits" if sft.bits else "")
    )
    return model


def check_model(sft: SftConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """The longest row the model can take. Raises UserError for a model that cannot be trained with this tokenizer."""
    config = loading.load_config(sft.model_name_or_path, sft.model_revision)
    loading.check_vocabulary(tokenizer, config, sft.model_name_or_path)
    return loading.positions(config)


def encoding_policy(sft: SftConfig, positions: int) -> Policy:
    """`positions` is the longest row the model can take."""
    max_length = sft.max_length or positions
    if max_length > positions:
        raise UserError(f"max_length: {max_length}, but the model has {positions} positions")
    return Policy(max_length=max_length, on_long_row=sft.on_long_row, loss_on=sft.loss_on)


def encode(
    sft: SftConfig, splits: Splits, prompt: Prompt, policy: Policy, tokens: Path | None, say: Say
) -> dict[SplitName, EncodedSplit]:
    """What training reads: the examples that the audit kept in `tokens`, or those of a prepared set, of which only the
    held-out rows are tokenized here."""
    max_length = policy.max_length
    encoded: dict[SplitName, EncodedSplit] = {}
    names: tuple[SplitName, ...] = ("train", "validation")
    for name in names:
        if sft.prepared is not None and name == "train":
            encoded[name] = prepared.load(Path(sft.prepared), recipe(sft, prompt, policy))
        elif not splits[name]:
            continue
        elif tokens is not None:
            encoded[name] = take_split(tokens, splits[name], policy)
        else:
            with processes.in_turns():
                encoded[name] = encode_split(splits[name], prompt, policy, num_proc=sft.num_proc)
        counts = encoded[name].counts
        say(
            f"tokens    {name}: {counts['tokens']:,} in {count(counts['examples'], 'example')}, "
            f"{counts['response_tokens']:,} of them in responses"
        )
        for line in accounted(counts, max_length):
            say(line)
        if not counts["examples"]:
            raise UserError(f"no {name} row is left within max_length {max_length}")
    return encoded
