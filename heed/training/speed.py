"""What a step is computed with and how: precision, replayed or compiled steps, each choice with its reason."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from heed.config import Setting, Settings
from heed.saying import Say
from heed.tokens.batches import MOST_FILLED

Speed = Literal["auto", "eager", "graph", "compile"]
Mode = Literal["eager", "graph", "compile"]


# ---- precision


def choose_precision(training: Settings, *, weights: str) -> str:
    """Settle bf16, and tf32 where float32 is left, in `training`; returns the precision with its reason.

    What the user, the launcher or half-precision weights say is kept. Else bf16 where the device multiplies it in
    hardware: the weights stay in float32, and products are computed in bfloat16 (autocast).
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
    watch: bool = False
    """Whether to compile later, once steps have been timed and compiling is seen to pay."""


def choose_speed(asked: Speed, *, graph_refusal: str, device: torch.device) -> SpeedChoice:
    """`graph_refusal` says why a step cannot be a CUDA graph here; empty when it can."""
    if asked in ("graph", "auto") and not graph_refusal:
        return SpeedChoice("graph", "a CUDA graph for each shape of batch")
    if asked == "graph":
        return SpeedChoice("eager", f"WARNING: speed: graph cannot be had: {graph_refusal}")
    if asked == "compile":
        return SpeedChoice("compile", "asked for")
    if asked == "eager":
        return SpeedChoice("eager", "asked for")
    if device.type in COMPILE_GAIN:
        return SpeedChoice("eager", f"no CUDA graphs: {graph_refusal}", watch=True)
    return SpeedChoice("eager", f"graphs need CUDA, and compiling was not seen to pay on a {device.type}")


def graph_refusal(
    args: TrainingArguments, *, flat: bool, varlen: str, dropout: str, four_bit: bool, row_losses: bool, tokens: int
) -> str:
    """Why a training step cannot, or need not, be captured; `varlen` and `dropout` are reasons against, or empty.

    `tokens` are those of a usual micro-batch.
    """
    if args.device.type != "cuda":
        return f"they need CUDA, this is a {args.device.type}"
    reasons = {
        "several processes": args.world_size > 1,
        "batching: padded": not flat,
        varlen: bool(varlen),
        dropout: bool(dropout),
        "fp16's loss scaling": args.fp16,
        "4-bit weights": four_bit,
        "record_row_loss": row_losses,
        "gradient_checkpointing": args.gradient_checkpointing,
        f"rows of {tokens:,} tokens, whose kernels take longer than launching them": tokens > MOST_FILLED,
        "DeepSpeed or FSDP": bool(args.deepspeed or args.fsdp),
    }
    return ", ".join(reason for reason, holds in reasons.items() if holds)


# Share of a step that compiled blocks save, and the seconds that compiling takes. Of public reports, not measured here.
# CPUs are left out: nothing was saved there (docs/performance.md).
COMPILE_GAIN = {"cuda": 0.15}
COMPILE_SECONDS = {"cuda": 40.0}
TIMED_STEPS = (5, 15)  # first and last of the steps that are timed before compiling is thought about


class CompileWhenItPays(TrainerCallback):
    """Times a few steps, then compiles the blocks if that is expected to save more time than it takes."""

    def __init__(self, compile_blocks: Callable[[], None], say: Say) -> None:
        self.compile_blocks, self.say = compile_blocks, say
        self.steps = 0
        self.began = 0.0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.steps += 1
        if self.steps == TIMED_STEPS[0]:
            self.began = now(args.device)
        if self.steps == TIMED_STEPS[1]:
            seconds = (now(args.device) - self.began) / (TIMED_STEPS[1] - TIMED_STEPS[0])
            self.decide(args.device.type, seconds * (state.max_steps - state.global_step))

    def decide(self, device: str, left: float) -> None:
        """`left`: seconds that the rest of the training takes without compiling."""
        saved, cost = left * COMPILE_GAIN[device], COMPILE_SECONDS[device]
        expected = f"compiling would take about {cost:.0f} s and save about {saved:.0f} s of the {left:.0f} s left"
        if saved <= cost:
            self.say(f"speed     eager from here on: {expected}")
            return
        self.say(f"speed     compiling the blocks: {expected}")
        self.compile_blocks()


def now(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter()


# ---- small things that are the same function, faster
