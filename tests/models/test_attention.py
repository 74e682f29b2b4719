"""Flat rows: every family gives each example what it gets alone, and a model that does not is refused."""

from collections.abc import Callable

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from heed.errors import UserError
from heed.models import attention
from heed.models.attention import check_flat, flat_refusal, flat_rows
from heed.tokens import tree
from heed.tokens.batches import FlatCollator, LossOn, PaddingCollator
from heed.training.trainer import target_nll, token_mean_loss
from world.small_world import LLAMA, MODELS, example, llama, plain_varlen_attn, qwen2, qwen3

PREAMBLE = [5, 6, 7, 8, 9, 10]
ROWS = {
    "usual": [
        example([*PREAMBLE, 11, 12], [13, 14, 0]),
        example([*PREAMBLE, 15], [16, 0]),
        example([*PREAMBLE, 11, 17, 18, 19], [20, 21, 22, 23, 0]),
    ],
    "equal rows": [example(PREAMBLE, [11, 12, 0])] * 3,
    "rows of one token": [
        example([5], []),
        example([], [6]),
        example([5, 6], [7, 0]),
    ],
    "learned from different places on": [
        example([5, 6], [7, 8, 0]),
        example([5], [6, 7, 9, 0]),
    ],
    "a tree of conversations": [
        {"input_ids": [*PREAMBLE, 11, 12, 0, 5, 6, 7, 0], "spans": [[7, 9], [11, 13]]},
        {"input_ids": [*PREAMBLE, 11, 12, 0, 5, 6, 8, 0], "spans": [[7, 9], [11, 13]]},
        {"input_ids": [*PREAMBLE, 11, 12, 0], "spans": [[7, 9]]},
        example([5, 6, 7, 30, 31, 32], [33, 0]),
        example([5, 6, 7, 30, 31, 32, 33], [34, 0]),
    ],
}
# Llama's and Qwen's RMSNorm rounds to float32 whatever the model's type is, and so do their gradients.
FAMILIES: dict[str, tuple[Callable[..., PreTrainedModel], float]] = {
    "gpt2": (MODELS["gpt2"], 1e-12),
    "gpt_neox": (MODELS["gpt_neox"], 1e-12),
    "llama": (llama, 1e-6),
    "qwen2": (qwen2, 1e-6),
    "qwen3": (qwen3, 1e-6),
}


@pytest.fixture(autouse=True)
def share_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few tokens it saves."""
    monkeypatch.setattr(tree, "LEAST", 1)


def gradient(model: PreTrainedModel, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_flat_rows_have_the_gradient_of_padded_ones(family: str, rows: str, loss_on: LossOn) -> None:
    """Against transformers' own attention on a padded batch, full logits and all, in float64."""
    make, tolerance = FAMILIES[family]
    model, examples = make().double(), ROWS[rows]
    padded = PaddingCollator(pad_token_id=0, loss_on=loss_on)(examples)
    logits = model(input_ids=padded["input_ids"], attention_mask=padded["attention_mask"]).logits
    plain = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), padded["labels"][:, 1:].flatten())
    wanted = gradient(model, plain)
    batches = {"padded, kept logits": padded}
    for share_prefix in (False, True):
        for multiple in (1, 16):
            collator = FlatCollator(pad_token_id=0, loss_on=loss_on, share_prefix=share_prefix, multiple=multiple)
            batches[f"share_prefix={share_prefix}, multiple={multiple}"] = collator(examples)
    for name, batch in batches.items():
        before = model.config._attn_implementation
        if batch is not padded:
            model.config._attn_implementation = attention.FLAT
        loss = token_mean_loss(target_nll(model, batch), batch["weights"], batch["weights"].sum())
        found = gradient(model, loss)
        model.config._attn_implementation = before
        assert abs(loss.item() - plain.item()) < tolerance, name
        assert (found - wanted).norm() / wanted.norm() < tolerance, name


def test_dropout_reaches_the_attention_of_a_flat_row() -> None:
    q = torch.ones(1, 2, 6, 4)
    torch.manual_seed(0)
    output, _ = attention.flat_attention(
        torch.nn.Module(), q, q, q, None, scaling=1.0, dropout=0.5, segment_lengths=(4, 2)
    )
    assert output.shape == (1, 6, 2, 4)
    assert sorted(set(output.flatten().tolist())) != [1.0]


def test_the_layout_for_varlen_attention_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's kernel needs CUDA; a plain one that reads the same arguments stands in for it here."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", plain_varlen_attn)
    model = MODELS["gpt2"]().double()
    for examples in ROWS.values():
        for share_prefix in (False, True):
            losses = []
            for varlen, multiple in ((False, 1), (True, 1), (True, 16)):
                collator = FlatCollator(
                    pad_token_id=0, loss_on="all", share_prefix=share_prefix, varlen=varlen, multiple=multiple
                )
                batch = collator(examples)
                with flat_rows(model.config):
                    losses.append((target_nll(model, batch) * batch["weights"]).sum().item())
            assert losses[1] == pytest.approx(losses[0], abs=1e-11)
            assert losses[2] == pytest.approx(losses[0], abs=1e-11)


def test_an_unknown_family_is_proved_or_refused() -> None:
    """GPT-J's attention is registered nowhere, so a flat row would mix its examples; Bloom knows no positions."""
    gptj = GPTJConfig(vocab_size=50, n_embd=32, n_layer=1, n_head=2, n_positions=64, rotary_dim=8)
    with pytest.raises(UserError, match=r"batching: flat is not proved for this gptj model .*; set batching: padded"):
        check_flat(GPTJForCausalLM(gptj), max_length=64)
    with pytest.raises(UserError, match="bloom"):
        check_flat(BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=32, n_layer=1, n_head=2)), max_length=64)


def test_a_family_that_is_not_on_the_list_passes_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "FLAT_FAMILIES", ())
    for make in (*MODELS.values(), llama, qwen2, qwen3):
        assert flat_refusal(make(), 256) == ""


def test_sliding_windows_are_refused() -> None:
    model = qwen2(use_sliding_window=True, sliding_window=16, max_window_layers=1)
    with pytest.raises(UserError, match="it has layers of sliding_attention"):
        check_flat(model, max_length=16)
    mistral = MistralForCausalLM(MistralConfig(**(LLAMA | {"sliding_window": 16})))
    with pytest.raises(UserError, match="its attention reaches back 16 tokens, and rows may have 17"):
        check_flat(mistral, max_length=17)
    check_flat(mistral, max_length=16)
