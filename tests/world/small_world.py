"""Models of a few thousand random parameters, and rows to train them on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    OlmoConfig,
    OlmoForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from heed.data.records import Record

ROOT = Path(__file__).parent.parent.parent
TINY = ROOT / "models" / "tiny-gpt2"


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(TINY)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def gpt2(**changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 2000, "n_positions": 256, "n_embd": 32, "n_layer": 2, "n_head": 4}
    dropouts = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(**(sizes | dropouts | {"bos_token_id": 0, "eos_token_id": 0} | changes)))


def gpt_neox(**changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 2000, "max_position_embeddings": 256, "hidden_size": 32, "num_hidden_layers": 2}
    rest = {"num_attention_heads": 4, "intermediate_size": 64, "bos_token_id": 0, "eos_token_id": 0}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**(sizes | rest | changes)))


def like_llama(
    model: type[PreTrainedModel], config: type[PreTrainedConfig], **own: Any
) -> Callable[..., PreTrainedModel]:
    """A family whose configuration has Llama's names, and `own`."""

    def make(**changes: Any) -> PreTrainedModel:
        torch.manual_seed(0)
        return model(config(**(LLAMA | own | changes)))

    return make


LLAMA: dict[str, Any] = {  # fewer heads for keys than for queries
    "vocab_size": 2000,
    "max_position_embeddings": 256,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
MODELS: dict[str, Callable[..., PreTrainedModel]] = {"gpt2": gpt2, "gpt_neox": gpt_neox}
llama = like_llama(LlamaForCausalLM, LlamaConfig)
qwen2 = like_llama(Qwen2ForCausalLM, Qwen2Config)
qwen3 = like_llama(Qwen3ForCausalLM, Qwen3Config, head_dim=8)
mistral = like_llama(MistralForCausalLM, MistralConfig, sliding_window=4)
# A score of Gemma 2 is bent: small caps and large weights let it be seen.
gemma2 = like_llama(
    Gemma2ForCausalLM,
    Gemma2Config,
    head_dim=8,
    sliding_window=4,
    attn_logit_softcapping=0.5,
    final_logit_softcapping=5.0,
    initializer_range=0.5,
    attn_implementation="eager",
)
WINDOWED: dict[str, Callable[..., PreTrainedModel]] = {
    "mistral": mistral,
    "qwen2 with windows": like_llama(
        Qwen2ForCausalLM, Qwen2Config, use_sliding_window=True, sliding_window=4, max_window_layers=1
    ),
    "gemma2": gemma2,
    "gemma3": like_llama(Gemma3ForCausalLM, Gemma3TextConfig, head_dim=8, sliding_window=4, sliding_window_pattern=2),
    "phi3": like_llama(Phi3ForCausalLM, Phi3Config, sliding_window=4, pad_token_id=0),
    "smollm3": like_llama(
        SmolLM3ForCausalLM,
        SmolLM3Config,
        pad_token_id=0,
        use_sliding_window=True,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
    ),
}
FAMILIES: dict[str, Callable[..., PreTrainedModel]] = (
    MODELS
    | {"llama": llama, "qwen2": qwen2, "qwen3": qwen3}
    | {"gemma": like_llama(GemmaForCausalLM, GemmaConfig, head_dim=8)}
    | {"olmo": like_llama(OlmoForCausalLM, OlmoConfig), "olmo2": like_llama(Olmo2ForCausalLM, Olmo2Config)}
    | WINDOWED
)


def save_model(folder: Path, model: PreTrainedModel) -> Path:
    """A model folder as a user would have it."""
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(folder)
    return folder


def example(prompt_ids: list[int], response_ids: list[int], **about: Any) -> dict[str, Any]:
    """An encoded example with one answer."""
    ids = [*prompt_ids, *response_ids]
    facts = {"tokens": len(ids), "response_tokens": len(response_ids)}
    return {"input_ids": ids, "spans": [[len(prompt_ids), len(ids)]], **facts, **about}


def records(*pairs: tuple[str, str]) -> list[Record]:
    return [
        Record(
            row_id=number,
            place=f"rows.json:{number + 1}",
            messages=({"role": "user", "content": question}, {"role": "assistant", "content": answer}),
        )
        for number, (question, answer) in enumerate(pairs)
    ]


def plain_varlen_attn(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_q: torch.Tensor,
    cu_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
) -> torch.Tensor:
    """What torch's varlen_attn computes, which needs CUDA: heads last, causal triangles aligned bottom right."""
    back, ahead = window_size
    assert ahead == 0 and q.dim() == 3
    assert max(cu_q.diff()) <= max_q and max(cu_k.diff()) <= max_k
    outputs = []
    for (a, b), (c, d) in zip(cu_q.unfold(0, 2, 1).tolist(), cu_k.unfold(0, 2, 1).tolist(), strict=True):
        scores = torch.einsum("qhd,khd->hqk", q[a:b], k[c:d]) * scale
        allowed = torch.ones(b - a, d - c, dtype=torch.bool).tril(d - c - (b - a))
        if back >= 0:
            allowed = allowed.triu(d - c - (b - a) - back)
        weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
        outputs.append(torch.einsum("hqk,khd->qhd", weights, v[c:d]))
    return torch.cat(outputs)


NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


COLOURS = ["red", "green", "blue", "white", "black", "yellow", "brown", "grey", "pink", "violet"]


# 40 questions that have little in common.
FINE = [
    (f"Say which {COLOURS[i % 10]} thing {NUMBERS[i % 12]} people of {i} saw.", f"They saw {NUMBERS[i // 4]} {i * i}.")
    for i in range(40)
]
