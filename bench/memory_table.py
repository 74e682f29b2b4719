"""How much memory a training takes on each GPU, before one is rented.

    python -m bench.memory_table                                                  the table of docs/scaling.md
    python -m bench.memory_table --model_name_or_path gpt2-medium --tokens 8192   one model (a folder or a Hub id)

A training step of the model is run on tensors without contents (torch's FakeTensorMode), while torch's own MemTracker
adds up what would be allocated. Three and four layers are enough: each further one costs the same.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig

from heed.errors import UserError, exit_code
from heed.models.faster import fused_gelu
from heed.models.likelihood import target_nll
from heed.models.loading import load_message, set_dropout
from heed.tokens.batches import FlatCollator

Engine = Literal["single", "ddp", "zero2", "fsdp2", "zero3", "fsdp2_offload"]
GB = 1e9
# What a process holds besides tensors: the CUDA context, NCCL's buffers, cuBLAS workspaces. An estimate.
OVERHEAD = 1.5 * GB
# The allocator cannot use every byte it holds. An estimate.
FRAGMENTATION = 1.1


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of tensors on one device at the worst moment of a training step."""

    weights: float
    gradients: float
    """All of them, since an earlier micro-batch of the same step has left its own."""
    optimizer: float
    """AdamW: two numbers for each trained weight."""
    activations: float
    """What the forward pass keeps, and what is needed briefly where it keeps most."""
    gathered: float = 0.0
    """Copies of weights or gradients that an engine makes to send them: buckets, or blocks put together."""

    @property
    def tensors(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations + self.gathered

    @property
    def needed(self) -> float:
        """What a GPU should have, in bytes."""
        return self.tensors * FRAGMENTATION + OVERHEAD


def one_device(
    config: Any,
    *,
    tokens: int,
    supervised: int,
    example_tokens: int = 256,
    bf16: bool = True,
    gradient_checkpointing: bool = False,
) -> Memory:
    """Training all weights on one device: float32 weights, AdamW, flat rows of `tokens`, `supervised` of them learned.

    For any number of layers: two small models are measured, and the rest follows.
    """
    layers = int(config.num_hidden_layers)
    few, more = min(layers, 3), min(layers, 4)
    found = [
        step_memory(
            config,
            layers=each,
            tokens=tokens,
            supervised=supervised,
            example_tokens=example_tokens,
            bf16=bf16,
            gradient_checkpointing=gradient_checkpointing,
        )
        for each in (few, more)
    ]
    first, second = found
    return Memory(
        **{
            name: getattr(first, name) + (layers - few) * (getattr(second, name) - getattr(first, name))
            for name in ("weights", "gradients", "optimizer", "activations")
        }
    )


def step_memory(
    config: Any,
    *,
    layers: int,
    tokens: int,
    supervised: int,
    example_tokens: int,
    bf16: bool,
    gradient_checkpointing: bool,
    fake: bool = True,
) -> Memory:
    """The peak of two steps of a model cut down to `layers`; with `fake=False` on real tensors, to compare."""
    config = deepcopy(config)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    set_dropout(config, 0.0)
    batch = flat_batch(tokens, supervised, example_tokens)
    with FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext():
        model = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
        if gradient_checkpointing:
            # Its new name since transformers 5.20 or so; the old one warns there.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        tracker = MemTracker()
        tracker.track_external(model, optimizer)
        with tracker, fused_gelu(model):
            for micro_batch in range(4):
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    loss = (target_nll(model, batch) * batch["weights"]).sum()
                loss.backward()
                if micro_batch % 2:  # the optimizer's state is there from the second step on
                    optimizer.step()
                    optimizer.zero_grad()
                tracker.reset_mod_stats()
        peak = next(iter(tracker.get_tracker_snapshot("peak").values()))
    weights = sum(each.nbytes for each in model.parameters())
    return Memory(weights=weights, gradients=weights, optimizer=2 * weights, activations=peak["Total"] - 4 * weights)


def flat_batch(tokens: int, supervised: int, example_tokens: int) -> dict[str, Any]:
    """Examples of equal length that share no prefix, laid end to end as in training."""
    count = max(1, tokens // example_tokens)
    length, learned = tokens // count, max(1, supervised // count)
    examples = [
        {"input_ids": [number % 7 + 1] * (length - learned) + [1] * learned, "spans": [(length - learned, length)]}
        for number in range(count)
    ]
    return FlatCollator(pad_token_id=0, loss_on="response", share_prefix=False)(examples)


ATTENTION = "heed_scaling"


def gpu_like_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    segment_lengths: Sequence[int],
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Flat attention as it is on a GPU: in half precision under autocast, nothing kept but inputs, output and sums."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    q, k, v = (each.to(value.dtype).split(list(segment_lengths), dim=2) for each in (query, key, value))
    outputs = [scaled_dot_product_attention(*each, is_causal=True, scale=scaling) for each in zip(q, k, v, strict=True)]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


AttentionInterface.register(ATTENTION, gpu_like_attention)


def on_each_gpu(memory: Memory, engine: Engine, gpus: int, *, layers: int) -> Memory:
    """The same training shared by `gpus` under one of the engines of configs/accelerate."""
    weights, gradients, optimizer = memory.weights, memory.gradients, memory.optimizer
    whole_block = weights / 2 / layers  # in bf16
    if engine == "single":
        return memory
    if engine == "ddp":  # gradients are copied into buckets, which live as long as the training
        return replace(memory, gathered=gradients)
    if engine == "zero2":  # bf16 weights on every GPU; a float32 copy of them is cut up with the optimizer's states
        return replace(
            memory,
            weights=weights / 2,
            gradients=gradients / 2 / gpus,
            optimizer=(weights + optimizer) / gpus,
            gathered=gradients / 2,
        )
    # The block that computes, the one being fetched meanwhile, and their gradients before they are sharded.
    gathered = 4 * whole_block
    if engine == "fsdp2_offload":
        return replace(memory, weights=0.0, gradients=0.0, optimizer=0.0, gathered=gathered)
    return replace(
        memory, weights=weights / gpus, gradients=gradients / gpus, optimizer=optimizer / gpus, gathered=gathered
    )


def adapter_only(memory: Memory) -> Memory:
    """The same with LoRA on frozen bf16 weights (dtype: bfloat16). The adapter's own share, under 2 %, is left out."""
    return replace(memory, weights=memory.weights / 2, gradients=0.0, optimizer=0.0)


def gpt2(hidden_size: int, layers: int, heads: int) -> GPT2Config:
    return GPT2Config(n_embd=hidden_size, n_layer=layers, n_head=heads)


def pythia(hidden_size: int, layers: int, heads: int) -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=50304,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden_size,
    )


SHAPES: dict[str, Callable[[], Any]] = {
    "gpt2-medium": lambda: gpt2(1024, 24, 16),
    "gpt2-large": lambda: gpt2(1280, 36, 20),
    "gpt2-xl": lambda: gpt2(1600, 48, 25),
    "pythia-1.4b": lambda: pythia(2048, 24, 16),
    "pythia-2.8b": lambda: pythia(2560, 32, 32),
    "llama-7b": LlamaConfig,
}
TOKENS = 4096
LEARNED = 4  # one in so many tokens is a response's
COLUMNS: tuple[tuple[str, Engine, int], ...] = (
    ("1 GPU", "single", 1),
    ("ddp", "ddp", 8),
    ("zero2 x 8", "zero2", 8),
    ("fsdp2 x 8", "fsdp2", 8),
    ("fsdp2 x 64", "fsdp2", 64),
    ("fsdp2_offload x 8", "fsdp2_offload", 8),
)


def table(configs: Mapping[str, Any], tokens: int) -> str:
    """Markdown: GB that a GPU should have, for each model, with and without recomputed activations."""
    names = ["model", "weights", "activations", *(name for name, _, _ in COLUMNS), "LoRA, 1 GPU"]
    lines = ["| " + " | ".join(names) + " |", "|---|---|" + "--:|" * (len(names) - 2)]
    for model, config in configs.items():
        for recomputed in (False, True):
            memory = one_device(config, tokens=tokens, supervised=tokens // LEARNED, gradient_checkpointing=recomputed)
            layers = int(config.num_hidden_layers)
            needs = [on_each_gpu(memory, engine, gpus, layers=layers).needed for _, engine, gpus in COLUMNS]
            cells = [f"{each / GB:.0f}" for each in (*needs, adapter_only(memory).needed)]
            kept = "recomputed" if recomputed else "kept"
            lines.append("| " + " | ".join([model, f"{memory.weights / 4e6:,.0f} M", kept, *cells]) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.memory_table", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model_name_or_path", help="a folder or Hub id instead of the table's own models")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="tokens of a micro-batch (default %(default)s)")
    words = parser.parse_args(arguments)
    if words.tokens < LEARNED:
        raise UserError(f"--tokens: {words.tokens} is too few for a micro-batch; give {LEARNED} or more")
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    chosen = words.model_name_or_path
    configs = {chosen: read_config(chosen)} if chosen else {name: make() for name, make in SHAPES.items()}
    print(
        f"GB a GPU should have; micro-batches of {words.tokens} tokens, bf16, AdamW\n\n{table(configs, words.tokens)}"
    )


def read_config(name: str) -> Any:
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(load_message("model", name, error)) from error


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
