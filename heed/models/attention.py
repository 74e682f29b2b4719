"""Attention over flat rows: an example sees itself, and nothing of its neighbours but what it begins with as they do.

A flat row holds the examples of a batch end to end (`batches.FlatCollator`). transformers hands whatever keywords a
model is called with to the attention function it finds under a registered name, so the layout of the row gets here
without touching any model code. No mask is built, and nothing waits for the device.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

FLAT = "heed_flat"
# Families whose every layer goes through transformers' AttentionInterface; the tests check that.
FLAT_FAMILIES = (
    "gpt2",
    "gpt_neox",
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "gemma",
    "gemma2",
    "gemma3_text",
    "olmo",
    "olmo2",
    "phi3",
    "smollm3",
)
FLAT_LAYERS = {"full_attention", "sliding_attention"}
VARLEN_DTYPES = (torch.float16, torch.bfloat16)
VARLEN_HEAD_SIZE = 256  # FlashAttention-2's limit; it also wants a multiple of 8


def flat_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    segment_lengths: Sequence[int] | None = None,
    segment_parents: Sequence[int | None] | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    cu_seq_lens_k: torch.Tensor | None = None,
    max_length_q: int = 0,
    max_length_k: int = 0,
    kv_index: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """What a model calls in every layer: `query`, `key` and `value` are (1, heads, row length, head size).

    Returns (1, row length, heads, head size). Keys and values may have fewer heads than queries. A layer with a
    `sliding_window` sees as many tokens back, itself among them, each example counted on its own.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if cu_seq_lens_q is not None:
        if kv_index is not None:
            key, value = key[:, :, kv_index], value[:, :, kv_index]
        if softcap is not None:
            raise TypeError("varlen_attn has no softcap")
        return varlen_attention(
            query, key, value, cu_seq_lens_q, cu_seq_lens_k, max_length_q, max_length_k, scaling, sliding_window
        )
    if segment_lengths is None:
        raise TypeError(f"{FLAT} needs the layout of a flat row; a padded batch belongs to another attention")
    parents = segment_parents or (None,) * len(segment_lengths)
    output = segment_attention(query, key, value, segment_lengths, parents, scaling, dropout, sliding_window, softcap)
    return output, None


def varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_lens_q: torch.Tensor,
    cu_seq_lens_k: torch.Tensor | None,
    max_length_q: int,
    max_length_k: int,
    scaling: float | None,
    window: int | None,
) -> tuple[torch.Tensor, None]:
    """torch's own FlashAttention over segments, CUDA only.

    Where a segment has more keys than queries (what others begin with too stands before it), its last query sees its
    last key:
    the causal triangle is aligned bottom right. `bench/gpu.py` checks this on the device before it times anything.
    """
    from torch.nn.attention.varlen import varlen_attn

    # Under autocast rotary positions leave queries and keys in float32, and autocast does not know this function.
    kind = value.device.type
    half = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype
    q, k, v = (each[0].transpose(0, 1).to(half) for each in (query, key, value))  # (row length, heads, head size)
    seen = (-1 if window is None else window - 1, 0)  # tokens before and after a token's own place
    output: Any = varlen_attn(
        q, k, v, cu_seq_lens_q, cu_seq_lens_k, max_length_q, max_length_k, scale=scaling, window_size=seen
    )
    return output[None], None


@torch.compiler.disable  # it splits by Python numbers, and a block would be compiled again for every batch
def segment_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: Sequence[int],
    parents: Sequence[int | None],
    scaling: float | None,
    dropout: float,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """The same by one call of scaled_dot_product_attention for each segment: any device, any type, any dropout."""
    attend = scaled_dot_product_attention if softcap is None else partial(capped_attention, softcap=softcap)
    asked = query.dtype
    if query.device.type == "cpu":  # in half precision a CPU takes half as long again
        exact = torch.promote_types(asked, torch.float32)
        query, key, value = query.to(exact), key.to(exact), value.to(exact)
    queries, keys, values = (list(each.split(list(lengths), dim=2)) for each in (query, key, value))
    outputs = []
    with torch.autocast(query.device.type, enabled=False):  # it would turn them back
        for number, (own, parent) in enumerate(zip(queries, parents, strict=True)):
            if parent is not None:  # its keys are the path up to it already
                keys[number] = torch.cat((keys[parent], keys[number]), dim=2)
                values[number] = torch.cat((values[parent], values[number]), dim=2)
            k, v, mask = keys[number], values[number], None
            if k.shape[2] > min(own.shape[2], window or k.shape[2]):
                mask = bottom_right(own.shape[2], k.shape[2], window, own.device)
            outputs.append(attend(own, k, v, attn_mask=mask, is_causal=mask is None, dropout_p=dropout, scale=scaling))
    return torch.cat(outputs, dim=2).transpose(1, 2).to(asked)


@lru_cache(maxsize=128)  # every layer asks for the same few
def bottom_right(queries: int, keys: int, window: int | None, device: torch.device) -> torch.Tensor:
    """The causal mask of the last `queries` of `keys` places: shape (queries, keys), true where one may look."""
    causal = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
    return causal if window is None else causal.triu(keys - queries - window + 1)


def capped_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    attn_mask: torch.Tensor | None,
    is_causal: bool,
    dropout_p: float,
    scale: float | None,
    softcap: float,
) -> torch.Tensor:
    """What scaled_dot_product_attention would compute if it bent scores towards `softcap`, as Gemma 2 does."""
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    visible = bottom_right(query.shape[2], key.shape[2], None, query.device) if attn_mask is None else attn_mask
    scores = (softcap * torch.tanh(scores / softcap)).masked_fill(~visible, float("-inf"))
    return torch.nn.functional.dropout(scores.softmax(dim=-1), dropout_p) @ value


AttentionInterface.register(FLAT, flat_attention)


def varlen_refusal(
    device: torch.device, dtype: torch.dtype, *, head_size: int, attention_dropout: float, softcap: bool
) -> str:
    """Why torch's varlen_attn cannot be used here; empty when it can."""
    if device.type != "cuda":
        return f"varlen_attn needs CUDA, this is a {device.type}"
    if find_spec("torch.nn.attention.varlen") is None:
        return f"torch {torch.__version__} has no varlen_attn"
    if dtype not in VARLEN_DTYPES:
        return "varlen_attn needs bf16 or fp16"
    if attention_dropout:
        return f"varlen_attn has no dropout, and the model's is {attention_dropout}"
    if softcap:
        return "varlen_attn has no softcap, and the model has one"
    if head_size > VARLEN_HEAD_SIZE or head_size % 8:
        return f"varlen_attn takes heads of at most {VARLEN_HEAD_SIZE}, a multiple of 8, not {head_size}"
    return ""


@contextmanager
def flat_rows(config: PreTrainedConfig) -> Iterator[None]:
    """Let the model of this configuration take flat rows for a while; it cannot take padded ones meanwhile."""
    before = config._attn_implementation
    config._attn_implementation = FLAT
    try:
        yield
    finally:
        config._attn_implementation = before


def flat_refusal(model: PreTrainedModel, max_length: int) -> str:
    """Why `model` is not known to keep examples of up to `max_length` apart in a flat row; empty when it is.

    Families that the tests check are trusted. Any other must give each of two examples of a flat row the
    logits it has alone, also when the other example is changed.
    """
    kinds = set(getattr(model.config, "layer_types", None) or ()) - FLAT_LAYERS
    if kinds:
        return f"it has layers of {', '.join(sorted(kinds))}"
    if model.config.model_type in FLAT_FAMILIES:
        return ""
    window = getattr(model.config, "sliding_window", None)
    if window is not None and window < max_length:  # the short rows below would not show it
        return f"its attention reaches back {window} tokens, and rows may have {max_length}"
    first, second, other = [1, 2, 3, 4, 5], [6, 7, 8], [9, 8, 9]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            alone = [probe(model, [ids])[0] for ids in (first, second)]
            with flat_rows(model.config):
                together, changed = probe(model, [first, second], flat=True), probe(model, [first, other], flat=True)
    except (TypeError, ValueError, RuntimeError, KeyError, AttributeError):
        return "its code takes none"
    finally:
        model.train(was_training)
    tolerance = 100 * torch.finfo(alone[0].dtype).eps * max(1.0, float(alone[0].abs().max()))
    if any(float((a - b).abs().max()) > tolerance for a, b in zip(alone, together, strict=True)):
        return "an example gets different logits in a flat row"
    if not torch.equal(together[0], changed[0]):
        return "an example moves the logits of its neighbour"
    return ""


def probe(model: PreTrainedModel, rows: Sequence[Sequence[int]], *, flat: bool = False) -> Sequence[torch.Tensor]:
    """Logits of each of `rows`, laid end to end: (row length, vocabulary) each."""
    ids = torch.tensor([[token for row in rows for token in row]], device=model.device)
    layout: dict[str, Any] = {}
    if flat:
        places = [place for row in rows for place in range(len(row))]
        layout["position_ids"] = torch.tensor([places], device=model.device)
        layout["segment_lengths"] = tuple(map(len, rows))
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **layout).logits
    return logits[0].split(list(map(len, rows)))
