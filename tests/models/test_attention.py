"""Flat rows: every family gives each example what it gets alone, and a model that does not is refused."""

from collections.abc import Callable

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    PreTrainedModel,
)

from heed.models import attention
from heed.models.attention import flat_refusal, flat_rows
from heed.tokens import tree
from heed.tokens.batches import FlatCollator, LossOn, PaddingCollator
from heed.training.trainer import target_nll, token_mean_loss
from world.small_world import FAMILIES, WINDOWED, example, gpt2, mistral, plain_varlen_attn, qwen2

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
# The others' RMSNorm rounds to float32 whatever the model's type is, and so do their gradients.
TOLERANCE = {"gpt2": 1e-12, "gpt_neox": 1e-12, "gemma2": 5e-6}


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
    """Against transformers' own attention on a padded batch, full logits and all, in float64.

    Gemma 2 in float32: its masks of float64 overflow in a softmax that transformers computes in float32.
    """
    model, examples, tolerance = FAMILIES[family](), ROWS[rows], TOLERANCE.get(family, 1e-6)
    if family != "gemma2":
        model = model.double()
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


@pytest.mark.parametrize(("make", "tolerance"), [(gpt2, 1e-12), (mistral, 1e-6)], ids=["gpt2", "mistral"])
def test_the_layout_for_varlen_attention_says_the_same(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], PreTrainedModel], tolerance: float
) -> None:
    """Loss and gradient. torch's kernel needs CUDA; a plain one that reads the same arguments stands in for it here."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", plain_varlen_attn)
    model = make().double()
    for name, examples in ROWS.items():
        for share_prefix in (False, True):
            found = []
            for varlen, multiple in ((False, 1), (True, 1), (True, 16)):
                collator = FlatCollator(
                    pad_token_id=0, loss_on="all", share_prefix=share_prefix, varlen=varlen, multiple=multiple
                )
                batch = collator(examples)
                with flat_rows(model.config):
                    loss = (target_nll(model, batch) * batch["weights"]).sum()
                    found.append((loss.item(), gradient(model, loss)))
            (wanted, its_gradient), *others = found
            for loss_of, gradient_of in others:
                assert loss_of == pytest.approx(wanted, abs=1e-11), name
                assert (gradient_of - its_gradient).norm() / its_gradient.norm() < tolerance, name


def test_an_unknown_family_is_proved_or_refused() -> None:
    """GPT-J's and Bloom's attention are registered nowhere, so a flat row would mix examples."""
    gptj = GPTJConfig(vocab_size=50, n_embd=32, n_layer=1, n_head=2, n_positions=64, rotary_dim=8)
    bloom = BloomConfig(vocab_size=50, hidden_size=32, n_layer=1, n_head=2)
    for model in (GPTJForCausalLM(gptj), BloomForCausalLM(bloom)):
        assert flat_refusal(model, 64) == "an example gets different logits in a flat row"


def test_a_family_that_is_not_on_the_list_passes_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "FLAT_FAMILIES", ())
    for family in FAMILIES.keys() - WINDOWED.keys():
        assert flat_refusal(FAMILIES[family](), 256) == "", family


def test_every_trusted_family_is_proved_here() -> None:
    assert set(attention.FLAT_FAMILIES) == {make().config.model_type for make in FAMILIES.values()}


@pytest.mark.parametrize("family", WINDOWED)
def test_a_sliding_window_applies_to_each_example_alone(family: str) -> None:
    """A row longer than the window differs with and without it; otherwise the tests above would prove nothing."""
    model = WINDOWED[family]()
    wide = WINDOWED[family](sliding_window=100)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    assert (model(input_ids=ids).logits - wide(input_ids=ids).logits).abs().max() > 1e-4
    assert flat_refusal(model, 256) == ""


def test_a_window_before_a_row_of_an_unknown_family_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "FLAT_FAMILIES", ())
    assert flat_refusal(mistral(), 5) == "its attention reaches back 4 tokens, and rows may have 5"
    assert flat_refusal(mistral(), 4) == ""


def test_layers_of_another_kind_are_refused() -> None:
    model = qwen2()
    model.config.layer_types = ["full_attention", "linear_attention"]
    assert flat_refusal(model, 16) == "it has layers of linear_attention"
