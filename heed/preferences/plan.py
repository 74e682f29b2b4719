"""Everything that is known before the first step of a preference training: pairs, model, reference, and ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, set_seed

from heed.answers.subjects import find_prompt
from heed.config.dpo import DpoConfig
from heed.data.records import Record, asked
from heed.data.sources import Source
from heed.data.splits import SplitName, Splits, split_records
from heed.errors import UserError
from heed.files import run_folder
from heed.models import adapters, loading
from heed.preferences.encoding import encode_splits
from heed.preferences.pairs import Pairs, read_pairs
from heed.prompts.template import Contract, Prompt
from heed.runs.finished import find_run, weight_bits
from heed.runs.held_out import held_out
from heed.saying import Say, count
from heed.tokens.batches import Batch, PaddingCollator
from heed.training.choices import try_choices
from heed.training.proof import RELOAD_ROWS, reloaded
from heed.workers import what_is_here_stays

if TYPE_CHECKING:
    from trl import DPOConfig

PREVIEW_PAIRS = 3


@dataclass(frozen=True, kw_only=True)
class PreferencePlan:
    """A preference training that only needs to be started."""

    dpo: DpoConfig
    args: "DPOConfig"
    run: Path | None
    """Of the model that is tuned further, where it is one of ours."""
    pairs: Pairs
    splits: Splits
    """The pairs' questions with the chosen answers, to train on and to measure on."""
    tokenizer: PreTrainedTokenizerBase
    prompt: Prompt
    contract: Contract
    """That of the model which is tuned further."""
    model: Any
    reference: Any
    """The same model, never trained; None where it is the model without its adapter, or is asked before step 1."""
    encoded: dict[SplitName, Dataset]
    counts: dict[SplitName, dict[str, int]]

    @property
    def fresh_adapter(self) -> bool:
        return self.dpo.use_peft and not run_folder.is_adapter(Path(self.dpo.model_name_or_path))

    @property
    def proof(self) -> Batch:
        rows = [self.encoded["train"][place] for place in range(min(RELOAD_ROWS, len(self.encoded["train"])))]
        examples = [
            {
                "row_id": row["row_id"],
                "input_ids": row["prompt_ids"] + row["chosen_ids"],
                "spans": [(len(row["prompt_ids"]), len(row["prompt_ids"]) + len(row["chosen_ids"]))],
            }
            for row in rows
        ]
        return PaddingCollator(pad_token_id=self.prompt.eos_token_id, loss_on="response")(examples)

    def reload(self, folder: Path, device: torch.device) -> Any:
        return reloaded(self.dpo, self.dpo, folder, device)

    @property
    def preview(self) -> str:
        """The first pairs as they are learned: what the model is given, and both answers to it."""
        lines = []
        for place in range(min(PREVIEW_PAIRS, len(self.encoded["train"]))):
            row = self.encoded["train"][place]
            pair = self.pairs.pairs[row["row_id"]]
            lines += [f"{pair.place}", repr(self.tokenizer.decode(row["prompt_ids"]))]
            for name in ("chosen", "rejected"):
                ids = row[f"{name}_ids"]
                lines.append(f"  {name:<8} {count(len(ids), 'token')}: {self.tokenizer.decode(ids)!r}")
        return "\n".join(lines)


def make_plan(dpo: DpoConfig, args: "DPOConfig", say: Say) -> PreferencePlan:
    """Read the pairs, load the model and its reference, tokenize; `say` what was found.

    Raises UserError for pairs, models and lengths that cannot work together.
    """
    try_choices(args)
    run = find_run(dpo.model_name_or_path) if Path(dpo.model_name_or_path).is_dir() else None
    prompt, contract = find_prompt(dpo.model_name_or_path, dpo.model_revision, dpo.prompt)
    pairs = read_pairs(Source(data=dpo.pairs, columns=dpo.columns, on_bad_row=dpo.on_bad_row))
    what_is_here_stays()
    say(f"pairs     {dpo.pairs}: {count(len(pairs.pairs), 'pair')}")
    for note in pairs.notes:
        say(f"          {note}")
    if run is None:
        say("          the model has no run folder here, so whether pairs are about its held-out rows is not known")
    else:
        questions = ((pair.row_id, asked(pair.prompt)) for pair in pairs.pairs)
        held_out(run).refuse(questions, dpo.allow_held_out, "pairs", say)
    splits = split_pairs(pairs.records, dpo.validation_share, evaluates=args.eval_strategy != "no")
    say(f"splits    train {len(splits['train'])}, validation {len(splits['validation'])} (shuffled by content)")
    tokenizer = prompt.tokenizer
    tokenizer.chat_template = prompt.template
    say(f"prompt    {prompt.name}, as the model was trained with")
    set_seed(args.seed)
    model = load(dpo, run, say)
    max_length = dpo.max_length or loading.context_length(model)
    if max_length > loading.context_length(model):
        raise UserError(f"max_length: {max_length}, but the model has {loading.context_length(model)} positions")
    encoded, counts = encode_splits(pairs, splits, prompt, max_length, dpo.on_long_row, say)
    return PreferencePlan(
        dpo=dpo,
        args=args,
        run=run,
        pairs=pairs,
        splits=splits,
        tokenizer=tokenizer,
        prompt=prompt,
        contract=contract,
        model=model,
        reference=load_reference(dpo, args, model),
        encoded=encoded,
        counts=counts,
    )


def split_pairs(records: Sequence[Record], share: float, *, evaluates: bool) -> Splits:
    if not 0 <= share < 1:
        raise UserError(f"validation_share: {share:g} is not a share; give 0 or more, and less than 1")
    splits = split_records(records, how="shuffled", shares=(1 - share, 0.0, share), source_splits={})
    if evaluates and not splits["validation"]:
        raise UserError(
            f"validation_share: {share:g} of {count(len(records), 'pair')} is none; raise it, or set eval_strategy: no"
        )
    return splits


def load(dpo: DpoConfig, run: Path | None, say: Say) -> Any:
    """The model that is tuned further: whole, with a fresh adapter, or the adapter that it is."""
    tuned_further = run_folder.is_adapter(Path(dpo.model_name_or_path))
    if tuned_further and not dpo.use_peft:
        raise UserError(
            f"model_name_or_path: {dpo.model_name_or_path} is an adapter; use_peft: true tunes it further, or merge it "
            f"first: python -m heed.merge {dpo.model_name_or_path} FOLDER"
        )
    if tuned_further:
        if dpo.bits != (then := weight_bits(run)):
            before, now = (f"{bits} bits" if bits else "whole" for bits in (then, dpo.bits))
            raise UserError(
                f"the base of {dpo.model_name_or_path} was {before} in training and would be {now}; change it"
            )
        model = loading.load_finished(
            dpo.model_name_or_path,
            revision=dpo.model_revision,
            dtype=dpo.dtype,
            bits=dpo.bits,
            attn_implementation=dpo.attn_implementation,
        )
        model.set_adapter("default")  # which makes it one that learns
    else:
        model = whole_model(dpo)
        if dpo.use_peft:
            model = adapters.add_adapter(model, adapters.adapter_of(dpo))
    total, trained = loading.parameter_counts(model)
    say(f"model     {dpo.model_name_or_path}: {total / 1e6:.1f} M parameters, {trained / 1e6:.1f} M of them trained")
    return model


def whole_model(dpo: DpoConfig) -> Any:
    return loading.load_model(
        dpo.model_name_or_path,
        revision=dpo.model_revision,
        dtype=dpo.dtype,
        attn_implementation=dpo.attn_implementation,
        bits=dpo.bits,
    )


def load_reference(dpo: DpoConfig, args: "DPOConfig", model: Any) -> Any:
    """None where the model itself can be asked: without its adapter, or before it is trained."""
    if dpo.use_peft or args.precompute_ref_log_probs:
        return None
    reference = whole_model(dpo)
    reference.config.pad_token_id = reference.generation_config.pad_token_id = model.config.pad_token_id
    return reference.requires_grad_(False).eval()
