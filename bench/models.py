"""The shapes that are measured: random weights from a fixed seed, no dropout."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from bench.rows import EOS

LLAMA_MLP = 1536  # of SmolLM2-135M


@dataclass(frozen=True, kw_only=True)
class Shape:
    family: Literal["gpt2", "gpt_neox", "llama"]
    layers: int
    width: int
    heads: int
    vocabulary: int

    @property
    def products(self) -> list[tuple[int, int]]:
        """Rows and columns of the matrices of a block that every token is multiplied with."""
        width = self.width
        if self.family == "llama":  # a third of the heads have keys and values of their own; three matrices in its MLP
            return [(width, width + 2 * width // 3), (width, width), *[(width, LLAMA_MLP)] * 2, (LLAMA_MLP, width)]
        return [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]

    @property
    def block_weights(self) -> int:
        """Weights of the blocks that every token is multiplied with."""
        return self.layers * sum(rows * columns for rows, columns in self.products)

    @property
    def head_weights(self) -> int:
        return self.vocabulary * self.width


SHAPES: Mapping[str, Shape] = {
    "tiny": Shape(family="gpt2", layers=2, width=32, heads=2, vocabulary=2000),
    "tiny_neox": Shape(family="gpt_neox", layers=2, width=32, heads=2, vocabulary=2048),
    "tiny_llama": Shape(family="llama", layers=2, width=48, heads=3, vocabulary=2000),
    "s384": Shape(family="gpt2", layers=6, width=384, heads=6, vocabulary=50257),
    "gpt2_small": Shape(family="gpt2", layers=12, width=768, heads=12, vocabulary=50257),
    "gpt2_medium": Shape(family="gpt2", layers=24, width=1024, heads=16, vocabulary=50257),
    "pythia_70m": Shape(family="gpt_neox", layers=6, width=512, heads=8, vocabulary=50304),
    # The model of `make demo-real`, with random weights.
    "smollm2_135m": Shape(family="llama", layers=30, width=576, heads=9, vocabulary=49152),
}


def build(name: str, *, device: str = "cpu", seed: int = 0) -> PreTrainedModel:
    """A model in float32; the same weights for the same shape and seed, whoever asks."""
    torch.manual_seed(seed)
    make = {"gpt2": gpt2, "gpt_neox": gpt_neox, "llama": llama}[SHAPES[name].family]
    model: Any = make(SHAPES[name])
    return model.to(device)


ENDS: Mapping[str, Any] = {"bos_token_id": EOS, "eos_token_id": EOS, "use_cache": False}


def gpt2(shape: Shape) -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=shape.vocabulary,
        n_layer=shape.layers,
        n_embd=shape.width,
        n_head=shape.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        **ENDS,
    )
    return GPT2LMHeadModel(config)


def gpt_neox(shape: Shape) -> PreTrainedModel:
    config = GPTNeoXConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.width,
        max_position_embeddings=2048,
        **ENDS,
    )
    return GPTNeoXForCausalLM(config)


def llama(shape: Shape) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads // 3,
        intermediate_size=LLAMA_MLP,
        tie_word_embeddings=True,
        **ENDS,
    )
    return LlamaForCausalLM(config)
