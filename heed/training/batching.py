"""How batches look and how steps run, each with its reason."""

from typing import Any

import torch
from transformers import TrainingArguments

from heed.config import SftConfig
from heed.errors import UserError
from heed.models import loading
from heed.models.attention import flat_refusal, varlen_refusal
from heed.saying import Detail, Say
from heed.tokens.batches import FlatCollator, PaddingCollator
from heed.training.speed import GRAPH_MULTIPLE, SpeedChoice, choose_speed, graph_refusal


def why_padded(sft: SftConfig, model: Any) -> str:
    """Why rows are padded; empty for flat rows.

    Raises UserError when flat rows are asked for but not possible, or tokens_per_batch with padded ones.
    """
    base = model.get_base_model() if sft.use_peft else model
    if sft.batching == "padded":
        reason, asked = "asked for", ""
    elif sft.attn_implementation is not None:
        reason = f"attn_implementation: {sft.attn_implementation} does not apply to flat rows"
        asked = f"{reason}; leave it out, or set batching: padded"
    else:
        reason = flat_refusal(base, sft.max_length or loading.context_length(base))
        asked = f"batching: flat is not proved for this {base.config.model_type} model ({reason}); set batching: padded"
        reason = f"flat ones are not proved for {base.config.model_type}: {reason}" if reason else ""
    if reason and sft.batching == "flat":
        raise UserError(asked)
    if reason and sft.tokens_per_batch is not None:
        raise UserError(
            f"tokens_per_batch: {sft.tokens_per_batch} counts tokens, and in padded rows ({reason}) most of a batch "
            "may be padding; set batching: flat where it is possible, or per_device_train_batch_size"
        )
    return reason


def hot_path(
    sft: SftConfig, args: TrainingArguments, model: Any, pad_token_id: int, mean_length: float, say: Say, *, padded: str
) -> tuple[FlatCollator | PaddingCollator, SpeedChoice]:
    """How batches look and how steps run, each with its reason; `padded` comes from `why_padded`.

    `mean_length` is that of the rows, in tokens.
    """
    base = model.get_base_model() if sft.use_peft else model
    dropout = loading.dropout_in_use(model)
    varlen = varlen_refusal(
        args.device,
        compute_dtype(sft, args),
        head_size=loading.head_size(base),
        attention_dropout=loading.attention_dropout(base),
        softcap=bool(getattr(base.config, "attn_logit_softcapping", None)),
    )
    refusal = graph_refusal(
        args,
        flat=not padded,
        varlen=varlen,
        dropout=dropout,
        bits=sft.bits,
        row_losses=sft.record_row_loss,
        tokens=sft.tokens_per_batch or round(mean_length * args.train_batch_size),
    )
    speed = choose_speed(sft.speed, graph_refusal=refusal)
    kind = str if sft.speed == "graph" and refusal else Detail  # what was asked for and does not work is not a detail
    if padded:
        say(kind(f"speed     padded rows ({padded}); {speed.mode} ({speed.reason})"))
        return PaddingCollator(pad_token_id=pad_token_id, loss_on=sft.loss_on), speed
    against_sharing = dropout or ("neftune_noise_alpha" if args.neftune_noise_alpha is not None else "")
    shared = f"nothing shared ({against_sharing})" if against_sharing else "shared beginnings once"
    attention = f"segment by segment ({varlen})" if varlen else "by torch's varlen_attn"
    say(kind(f"speed     flat rows, {shared}; attention {attention}; {speed.mode} ({speed.reason})"))
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
