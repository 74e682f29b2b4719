"""The head and its cross entropy in one: the loss and gradient of the plain way, whatever the size of its parts."""

from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from transformers import PreTrainedModel

from heed.models import head
from heed.models.attention import flat_rows
from heed.models.faster import last_perceptron_where_scored, tied_gradient_in_place
from heed.models.head import HeadLoss, ScoringHead, scoring_head
from heed.models.likelihood import target_nll
from heed.tokens.batches import IGNORE, FlatCollator, PaddingCollator
from world.small_world import FAMILIES, example, gpt2

ROWS = [example([5, 6, 7, 8], [9, 10, 0]), example([5, 6, 7], [11, 0]), example([5, 6, 7, 8, 12], [13, 14, 15, 0])]
FLAT = FlatCollator(pad_token_id=0, loss_on="response", share_prefix=True)
COLLATORS: dict[str, FlatCollator | PaddingCollator] = {
    "flat": FLAT,
    "flat, row by row": FLAT.for_evaluation(),
    "padded": PaddingCollator(pad_token_id=0, loss_on="response"),
}


@pytest.mark.parametrize("rows_at_once", [1, 3, 100])
def test_parts_of_any_size_give_the_plain_loss_and_gradient(monkeypatch: pytest.MonkeyPatch, rows_at_once: int) -> None:
    monkeypatch.setattr(head, "SCORES_BYTES", rows_at_once * 4 * 11)
    torch.manual_seed(0)
    hidden, weight = torch.randn(7, 5).double().requires_grad_(), torch.randn(11, 5).double().requires_grad_()
    targets, weights = torch.tensor([3, 0, IGNORE, 10, 3, 1, 2]), torch.tensor([1.0, 1, 0, 3, 1, 2, 1])
    plain = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, ignore_index=IGNORE, reduction="none")
    wanted = torch.autograd.grad(3 * (plain * weights).sum() / 9, (hidden, weight))
    loss, nll = HeadLoss.apply(hidden, weight, targets, weights, 9)
    found = torch.autograd.grad(3 * loss, (hidden, weight))
    assert torch.allclose(nll, plain, rtol=0, atol=1e-12) and nll[2] == 0
    for own, plainly in zip(found, wanted, strict=True):
        assert torch.allclose(own, plainly, rtol=0, atol=1e-12)


def test_only_a_few_targets_have_logits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "SCORES_BYTES", 3 * 4 * 11)
    seen: list[int] = []
    plain = head.product

    def product(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        seen.append(len(hidden))
        return plain(hidden, weight)

    monkeypatch.setattr(head, "product", product)
    HeadLoss.apply(torch.randn(8, 5), torch.randn(11, 5), torch.arange(8), torch.ones(8), 8)
    assert seen == [3, 3, 3, 3, 2, 2]  # their logits, and what is learned from them


def test_a_batch_without_targets_has_a_gradient_of_zero() -> None:
    weight = torch.randn(11, 5, requires_grad=True)
    loss, nll = HeadLoss.apply(torch.randn(0, 5), weight, torch.zeros(0, dtype=torch.long), torch.zeros(0), 1)
    loss.backward()
    assert loss.item() == 0 and nll.shape == (0,) and weight.grad is not None and not weight.grad.any()


def test_under_autocast_it_is_as_near_to_the_truth_as_the_plain_way() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(20, 64), torch.randn(300, 64) / 8
    targets = torch.randint(300, (20,))

    def gradient(loss_of: str, kind: torch.dtype) -> torch.Tensor:
        own = weight.to(kind).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.float32):
            if loss_of == "fused":
                loss, _ = HeadLoss.apply(hidden.to(kind), own, targets, torch.ones(20), 20)
            else:
                logits = torch.nn.functional.linear(hidden.to(kind), own)
                loss = torch.nn.functional.cross_entropy(logits.to(torch.promote_types(kind, torch.float32)), targets)
        return torch.autograd.grad(loss, own)[0].double()

    true = gradient("plain", torch.float64)
    plain, fused = ((gradient(each, torch.float32) - true).norm() / true.norm() for each in ("plain", "fused"))
    assert fused < 0.01 and fused < 1.1 * plain


def rows_of(model: PreTrainedModel, collator: str) -> AbstractContextManager[None]:
    return nullcontext() if collator == "padded" else flat_rows(model.config)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("collator", COLLATORS)
def test_a_models_fast_step_has_the_gradient_of_the_plain_one(family: str, collator: str) -> None:
    """All that a training on a CPU changes, twice, since gradients of micro-batches add up."""
    tolerance = 1e-12 if family in ("gpt2", "gpt_neox") else 1e-5  # the others' norms round to float32
    model = FAMILIES[family]()
    model = model if family == "gemma2" else model.double()
    batch = COLLATORS[collator](ROWS)

    def gradient(scoring: ScoringHead | None) -> tuple[float, torch.Tensor]:
        model.zero_grad()
        for _ in range(2):
            if scoring is None:
                loss = (target_nll(model, batch) * batch["weights"] / 9).sum()
            else:
                loss, _ = scoring.loss(model, batch, 9)
            loss.backward()
        return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    with rows_of(model, collator):
        wanted_loss, wanted = gradient(None)
    with scoring_head(model) as scoring, tied_gradient_in_place(model), last_perceptron_where_scored(model):
        assert (scoring is None) is (family == "gemma2")  # which bends its logits
        with rows_of(model, collator):
            loss, found = gradient(scoring)
    assert loss == pytest.approx(wanted_loss, abs=tolerance)
    assert (found - wanted).norm() / wanted.norm() < tolerance


def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(input_ids=torch.tensor([[5, 6, 7]])).logits


def test_trying_the_head_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Without a mask transformers would search the ids for padding, and warn."""
    model = gpt2()
    model.config.pad_token_id = 0
    with scoring_head(model) as scoring:
        assert scoring is not None and not caplog.records


def test_meanwhile_the_model_still_has_its_logits_and_afterwards_its_own_code() -> None:
    model = gpt2()
    wanted = logits(model)
    with scoring_head(model), tied_gradient_in_place(model), last_perceptron_where_scored(model):
        assert torch.equal(logits(model), wanted)
    assert torch.equal(logits(model), wanted)
    assert not any("forward" in vars(module) for module in model.modules())
