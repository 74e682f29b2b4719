"""Adapters (LoRA): which layers of an architecture get one, and a model wrapped in it."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from heed.config.training import AdapterKeys
from heed.errors import UserError

# Every projection of a block, as the QLoRA paper (Dettmers et al. 2023, section 4) found to match full fine-tuning.
LIKE_LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LIKE_NEOX = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
LORA_TARGETS: Mapping[str, tuple[str, ...]] = {
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "gpt_neo": ("q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"),
    "gptj": ("q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"),
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "mpt": ("Wqkv", "out_proj", "up_proj", "down_proj"),
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    **dict.fromkeys(("gpt_neox", "bloom", "falcon"), LIKE_NEOX),
    **dict.fromkeys(
        (
            "llama",
            "qwen2",
            "qwen3",
            "mistral",
            "gemma",
            "gemma2",
            "gemma3_text",
            "olmo",
            "olmo2",
            "smollm3",
            "stablelm",
        ),
        LIKE_LLAMA,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A low-rank adapter (LoRA, Hu et al. 2021): rank, scale, and the modules it sits on."""

    rank: int
    alpha: int
    dropout: float = 0.0
    target_modules: Sequence[str] | None = None
    """None: the right ones for the architecture (LORA_TARGETS)."""
    use_rslora: bool = False
    use_dora: bool = False
    init_lora_weights: bool | Literal["gaussian", "orthogonal"] = True
    modules_to_save: Sequence[str] | None = None
    """Trained whole, beside the low-rank part."""


def adapter_of(keys: AdapterKeys) -> Adapter:
    return Adapter(
        rank=keys.lora_r,
        alpha=keys.lora_alpha,
        dropout=keys.lora_dropout,
        target_modules=keys.lora_target_modules,
        use_rslora=keys.use_rslora,
        use_dora=keys.use_dora,
        init_lora_weights=keys.init_lora_weights,
        modules_to_save=keys.modules_to_save,
    )


def add_adapter(model: PreTrainedModel, adapter: Adapter) -> Any:
    """Wrap `model` in a trainable LoRA adapter; the model's own weights are frozen.

    Raises UserError for an architecture without known targets when none are given.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    model_type = model.config.model_type
    targets, known = adapter.target_modules or LORA_TARGETS.get(model_type), linear_layer_names(model)
    if not targets:
        raise UserError(
            f"use_peft: no adapter targets are known for {model_type} models; name them with lora_target_modules "
            f"(linear layers here: {', '.join(known)})"
        )
    missing = [name for name in targets if name not in known]
    if missing:
        raise UserError(f"lora_target_modules: the model has no layer {missing[0]!r}; it has {', '.join(known)}")
    whole = whole_modules(model, adapter.modules_to_save or (), targets)
    bits = next((each for each in (4, 8) if getattr(model, f"is_loaded_in_{each}bit", False)), None)
    if bits and adapter.init_lora_weights == "orthogonal":  # peft 0.21 makes the adapter of the packed type
        raise UserError(
            f"init_lora_weights: orthogonal does not work with load_in_{bits}bit: true; set gaussian or true"
        )
    if bits:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=list(targets),
        use_rslora=adapter.use_rslora,
        use_dora=adapter.use_dora,
        init_lora_weights=adapter.init_lora_weights,
        modules_to_save=whole or None,
        # GPT-2 keeps its weights transposed (Conv1D); quantized loading turns them into plain linear layers.
        fan_in_fan_out=model_type == "gpt2" and not bits,
    )
    try:
        with without_peft_warning():
            return get_peft_model(model, config)
    except ValueError as error:  # such as an odd rank where it must be even
        raise UserError(f"use_peft: {error}") from error


def whole_modules(model: PreTrainedModel, names: Sequence[str], targets: Sequence[str]) -> list[str]:
    """Full names of the modules that are trained whole; peft would take every module whose name ends alike.

    Raises UserError for one that the model has not, that gets an adapter, or that shares its weights.
    """
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    tied = (embedding, head) if head is not None and head.weight is embedding.weight else ()
    possible = []
    for path, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if own and all(each.is_floating_point() for each in own) and path.rsplit(".", 1)[-1] not in targets:
            possible.append((path, module))
    found = []
    for name in names:
        meant = [(path, module) for path, module in possible if f".{path}".endswith(f".{name}")]
        if not meant:
            known = sorted({path.rsplit(".", 1)[-1] for path, module in possible if module not in tied})
            raise UserError(
                f"modules_to_save: {name!r} is no module that can be trained whole beside the adapter; "
                f"those are {', '.join(known)}"
            )
        if any(module in tied for _, module in meant):
            raise UserError(
                f"modules_to_save: {name!r} shares its weights (embedding and head are one table in this model), and "
                "saved beside an adapter they would be two; leave it out, or train all weights with use_peft: false"
            )
        found += [path for path, _ in meant]
    return found


@contextmanager
def without_peft_warning() -> Iterator[None]:
    """peft reads an attribute that transformers 5.23 calls deprecated, which no user can change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def linear_layer_names(model: PreTrainedModel) -> list[str]:
    """Names of the projections inside the blocks, without the output head."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
        }
    )
