"""How a step is computed: precision, and replayed or compiled steps, each choice with its reason."""

import os
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import TrainingArguments

from heed.config import Setting, Settings
from heed.config.training import Bits
from heed.tokens.batches import MOST_FILLED

Speed = Literal["auto", "eager", "graph", "compile"]
Mode = Literal["eager", "graph", "compile"]


# ---- precision


def choose_precision(training: Settings, *, weights: str) -> str:
    """Settle bf16, and tf32 where float32 is left, in `training`; returns the precision with its reason.

    What the user, the launcher or half-precision weights say is kept. Otherwise bf16 where the hardware multiplies it:
    the weights stay in float32, and products are computed in bfloat16 (autocast).
    """
    on_cpu = runs_on_cpu(training)
    for name in ("bf16", "fp16"):
        if name in training and training[name].value:
            return f"computing in {name} ({training[name].source})"
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if "bf16" in training:
        reason = training["bf16"].source
    elif weights != "float32":
        return f"computing in {weights}, the type of the weights"
    elif launched in ("bf16", "fp16"):
        training[launched] = Setting(value=True, source="the launcher's mixed_precision")
        return f"computing in {launched} (the launcher says so)"
    else:
        fast, reason = fast_bf16(on_cpu)
        if fast:
            training["bf16"] = Setting(value=True, source=f"follows the device: {reason}")
            return f"computing in bf16 ({reason}; bf16: false for float32)"
    if not on_cpu and torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0):
        training.setdefault("tf32", Setting(value=True, source="follows the device: float32 on tensor cores"))
        return f"computing in float32, products in {'TF32' if training['tf32'].value else 'float32'} ({reason})"
    return f"computing in float32 ({reason})"


def runs_on_cpu(training: Settings) -> bool:
    asked = training.get("use_cpu")
    return bool(asked and asked.value) or not torch.accelerator.is_available()


def fast_bf16(on_cpu: bool) -> tuple[bool, str]:
    """Whether bfloat16 products are fast here, and why or why not."""
    if on_cpu:
        fast = torch.cpu._is_avx512_bf16_supported()
        return fast, "the CPU has AVX512_BF16" if fast else "the CPU has no AVX512_BF16"
    if torch.cuda.is_available():
        fast = torch.cuda.get_device_capability() >= (8, 0)
        return fast, f"{torch.cuda.get_device_name()} has bfloat16" if fast else "the GPU has no bfloat16"
    return False, "not tried on this kind of device"


# ---- eager, graph or compile

GRAPH_MULTIPLE = 64  # row lengths are rounded up to this, so that few graphs serve all batches


@dataclass(frozen=True)
class SpeedChoice:
    mode: Mode
    reason: str


def choose_speed(asked: Speed, *, graph_refusal: str) -> SpeedChoice:
    """`graph_refusal` says why a step cannot be a CUDA graph here; empty when it can."""
    if asked == "graph" and graph_refusal:
        return SpeedChoice("eager", f"WARNING: speed: graph does not work here: {graph_refusal}")
    if asked == "graph":
        return SpeedChoice("graph", "a CUDA graph for each shape of batch")
    if asked == "auto":
        return SpeedChoice("eager", "nothing else was seen to be faster")
    return SpeedChoice(asked, "asked for")


def graph_refusal(
    args: TrainingArguments, *, flat: bool, varlen: str, dropout: str, bits: Bits, row_losses: bool, tokens: int
) -> str:
    """Why a training step cannot, or need not, be captured; `varlen` and `dropout` are reasons against, or empty.

    `tokens` are those of a usual micro-batch.
    """
    if args.device.type != "cuda":
        return f"it needs CUDA, this is a {args.device.type}"
    reasons = {
        "several processes": args.world_size > 1,
        "batching: padded": not flat,
        varlen: bool(varlen),
        dropout: bool(dropout),
        "fp16's loss scaling": args.fp16,
        f"{bits}-bit weights": bits is not None,
        "record_row_loss": row_losses,
        "gradient_checkpointing": args.gradient_checkpointing,
        f"rows of {tokens:,} tokens, whose kernels take longer than launching them": tokens > MOST_FILLED,
        "DeepSpeed or FSDP": bool(args.deepspeed or args.fsdp),
    }
    return ", ".join(reason for reason, holds in reasons.items() if holds)
