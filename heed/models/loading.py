"""Loading a model, or an adapter with its base, and its tokenizer: facts about architectures live here."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from heed.config.training import Bits
from heed.errors import UserError
from heed.files import run_folder
from heed.models.adapters import without_peft_warning
from heed.models.bars import silence_loading
from heed.models.gguf import folder_of
from heed.runs.finished import from_here
from heed.saying import count
from heed.shipped import setup

INDEX_FILE = "model.safetensors.index.json"
# Every dropout probability in the configurations of these families.
DROPOUTS = (
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "emb_pdrop", "attention_dropout", "hidden_dropout"),
    *("resid_dropout", "embed_dropout", "dropout"),
)
# Where configurations write how long a row may be. Bloom has no table of positions and was trained on 2,048.
POSITIONS = ("max_position_embeddings", "max_seq_len", "seq_length")
BLOOM_POSITIONS = 2048


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """A tokenizer by folder, .gguf file or Hub id. Its EOS serves as padding; the vocabulary is never resized."""
    source = folder_of(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(load_message("tokenizer", name, error)) from error
    if tokenizer.eos_token is None:
        raise UserError(f"the tokenizer of {name} has no EOS token, so a model could never learn to stop")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    name: str,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    attn_implementation: str | None = None,
    dropout: float | None = None,
    bits: Bits = None,
) -> PreTrainedModel:
    """A causal language model by folder, .gguf file or Hub id, from safetensors only.

    `dtype` is that of the weights, float32 unless asked: master weights in half precision lose small updates.
    `dropout` replaces every dropout probability of the configuration. Raises UserError when it cannot be loaded.
    """
    silence_loading()
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    source = folder_of(name)
    refuse_paths_outside(source, revision)
    config = load_config(name, revision)
    if dropout is not None:
        set_dropout(config, dropout)
    if attn_implementation is None and getattr(config, "attn_logit_softcapping", None):
        attn_implementation = "eager"  # transformers' other attention knows no softcap on a CPU
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    if bits is not None:
        options["quantization_config"] = quantization(bits)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise UserError(load_message("model", name, error)) from error
    model, found = loaded
    refuse_random_weights(name, sorted(found["missing_keys"]))
    if source != name:  # what an adapter will remember as its base: the file is there longer than the cache
        model.name_or_path = model.config._name_or_path = str(Path(name).expanduser().absolute())
    if bits is not None:
        keep_differentiable(model)
    return model


def refuse_paths_outside(name: str, revision: str | None) -> None:
    """Raises UserError when a model's index of weights names a file that is not beside it: `../` would be followed."""
    from transformers.utils.hub import cached_file

    try:
        index = cached_file(name, INDEX_FILE, revision=revision, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise UserError(load_message("model", name, error)) from error
    if index is None:
        return
    for file in set(run_folder.read_json(Path(index)).get("weight_map", {}).values()):
        if Path(str(file)).name != file:
            raise UserError(f"the model {name!r}: {INDEX_FILE} names {file!r}, which is not a file beside it")


def refuse_random_weights(name: str, missing: Sequence[str]) -> None:
    """Raises UserError for weights that no file has: transformers draws them at random."""
    if missing:
        more = f" and {count(len(missing) - 1, 'other')}" if missing[1:] else ""
        raise UserError(
            f"the model {name!r} has no {missing[0]}{more}, which would be random; fetch all of its files again, or "
            "save it as a causal language model, with its head"
        )


def load_message(what: str, name: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    here = "" if Path(name).exists() else " (there is no folder of that name here)"
    return (
        f"the {what} {name!r} could not be loaded{here}: {reason}\n"
        "Give a folder with config.json, tokenizer files and model.safetensors, a .gguf file, or a Hub id such as "
        "openai-community/gpt2 (private ones need `hf auth login`)."
    )


def set_dropout(config: Any, probability: float) -> None:
    names = [name for name in DROPOUTS if getattr(config, name, None) is not None]
    if not names and probability > 0:
        raise UserError(f"dropout: {probability}, but a {config.model_type} model has no dropout to set")
    for name in names:
        setattr(config, name, probability)


def dropout_in_use(model: torch.nn.Module) -> str:
    """The largest dropout that acts in training, with the name of its key; empty when there is none."""
    config: Any = model.config
    found = {name: float(getattr(config, name, None) or 0.0) for name in DROPOUTS}
    if any(found.values()):
        name = max(found, key=lambda each: found[each])
        return f"dropout: {name} is {found[name]}"
    layers = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    return f"lora_dropout is {max(layers)}" if any(layers) else ""


def attention_dropout(model: PreTrainedModel) -> float:
    return max(float(getattr(model.config, name, None) or 0.0) for name in ("attn_pdrop", "attention_dropout"))


def head_size(model: PreTrainedModel) -> int:
    config = model.config
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def quantization(bits: Literal[4, 8]) -> Any:
    """QLoRA's storage: 4-bit NormalFloat with double quantization, computing in bfloat16 (Dettmers et al. 2023); or
    LLM.int8 (Dettmers et al. 2022)."""
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise UserError(f"load_in_{bits}bit: true needs bitsandbytes; install it with `{setup('qlora')}`")
    if bits == 8:
        # It says so of every layer in every step.
        logging.getLogger("bitsandbytes.autograd._functions").addFilter(lambda record: "cast" not in record.msg)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def keep_differentiable(model: torch.nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit weights on CPUs with AVX512_BF16.

    It does so at the first evaluation, for good, and the packed product has no gradient: training would then fail
    in a layer with a bias, and silently learn nothing below one without (bitsandbytes 0.50, Linear4bit.forward).
    """
    for module in model.modules():
        if "support_avx512bf16_for_cpu" in vars(module):
            vars(module)["support_avx512bf16_for_cpu"] = False


def load_finished(
    name: str,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    bits: Bits = None,
    attn_implementation: str | None = None,
    device: torch.device | None = None,
) -> Any:
    """A model as training leaves it: a whole one, or an adapter together with the base model it names.

    It is moved to `device`, unless it is quantized: those layers were put on theirs while loading.
    """
    model = load_either(name, revision, dtype=dtype, bits=bits, attn_implementation=attn_implementation)
    return model if device is None or bits is not None else model.to(device)


def load_either(name: str, revision: str | None, *, bits: Bits, **options: Any) -> Any:
    """A whole model, or an adapter with its base. Raises UserError for an adapter that is a pickle."""
    if Path(name).expanduser().is_file():
        return load_model(name, revision=revision, bits=bits, **options)
    from transformers.utils.hub import cached_file

    try:
        config_file, weights_file = (
            cached_file(name, file, revision=revision, _raise_exceptions_for_missing_entries=False)
            for file in (run_folder.ADAPTER_FILE, "adapter_model.safetensors")
        )
    except OSError as error:
        raise UserError(load_message("model", name, error)) from error
    if config_file is None:
        return load_model(name, revision=revision, bits=bits, **options)
    if weights_file is None:  # peft would try a pickle next
        raise UserError(f"the adapter {name!r} has no adapter_model.safetensors; Heed loads no pickles")
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(name, revision=revision)
    base_name = from_here(Path(name), config.base_model_name_or_path)
    base = load_model(base_name, revision=config.revision, bits=bits, **options)
    with without_peft_warning():
        warnings.filterwarnings("error", "(?s).*missing adapter keys")  # they would be as random as when training began
        try:
            return PeftModel.from_pretrained(base, name, revision=revision)
        except UserWarning as error:
            raise UserError(f"the adapter {name!r}: {error} Fetch its files again.") from error


def load_config(name: str, revision: str | None = None) -> PreTrainedConfig:
    """A model's configuration. Raises UserError when it cannot be loaded, or no part of the model is attention."""
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            folder_of(name), revision=revision, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise UserError(load_message("model", name, error)) from error
    if getattr(config, "num_attention_heads", None) is None:
        raise UserError(
            f"{name} is a {config.model_type} model; Heed supports only causal language models with attention"
        )
    return config


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, name: str) -> None:
    """Raises UserError for a tokenizer some of whose ids the model has no embedding for."""
    tokens, rows = len(tokenizer), int(config.vocab_size)
    if tokens > rows:
        raise UserError(
            f"{name}: the tokenizer has {tokens:,} tokens and the model's embedding {rows:,} rows, so "
            f"{tokenizer.convert_ids_to_tokens(rows)!r} and what comes after it would have no embedding; "
            "give the tokenizer that belongs to the model, or enlarge the model with resize_token_embeddings"
        )


def stops_of(settings: GenerationConfig) -> list[int]:
    """The tokens at which a model's own settings end an answer."""
    stops = settings.eos_token_id
    return [] if stops is None else [int(stop) for stop in (stops if isinstance(stops, list) else [stops])]


def own_stops(name: str, revision: str | None = None) -> list[int]:
    """The same of a model that is not loaded; none where it brings no settings."""
    try:
        settings = GenerationConfig.from_pretrained(folder_of(name), revision=revision or "main")
    except OSError:
        return []
    return stops_of(settings)


def context_length(model: PreTrainedModel) -> int:
    """The longest row the model has positions for."""
    return positions(model.config)


def positions(config: PreTrainedConfig) -> int:
    """The same, from a model's configuration alone."""
    found = (getattr(config, name, None) for name in POSITIONS)
    return next((int(length) for length in found if length is not None), BLOOM_POSITIONS)


def parameter_counts(model: torch.nn.Module) -> tuple[int, int]:
    """All parameters, and those that are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


@torch.no_grad()
def max_logit_difference(model: torch.nn.Module, other: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> float:
    """The largest difference between the logits of two models on one batch, without padding."""
    logits = []
    for each in (model, other):
        was_training = each.training
        each.eval()
        device = next(each.parameters()).device
        output = each(**{name: inputs[name].to(device) for name in ("input_ids", "attention_mask")})
        logits.append(output.logits.float().cpu())
        each.train(was_training)
    real = inputs["attention_mask"].bool().cpu()
    return float((logits[0] - logits[1])[real].abs().max())
