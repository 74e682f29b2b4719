"""The output head and its cross entropy as one operation: the logits of a batch are never all in memory.

With 50,000 or 150,000 tokens in a vocabulary, the logits of a batch, their log-probabilities and the gradient of both
are the largest tensors of a step. Here they exist for a few targets at a time, and the gradient is made while they do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from heed.models.faster import computed_by
from heed.models.likelihood import scores
from heed.models.products import product
from heed.tokens.batches import IGNORE, Batch

SCORES_BYTES = 64 * 2**20  # of the logits that exist at once; up to half as many more, so that pieces are alike


class HeadLoss(torch.autograd.Function):
    """Cross entropy of a linear head. The gradient is made in the forward pass, from the logits while they exist."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        items: torch.Tensor | int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of all targets' negative log-likelihood times their `weights`, divided by `items`; and each target's
        negative log-likelihood alone, without gradient.

        `hidden` is (targets, hidden size), `weight` (vocabulary, hidden size), `targets` and `weights` (targets,).
        """
        kind = hidden.device.type
        half = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        given, hidden, table = hidden.dtype, hidden.to(half), weight.to(half)
        exact = torch.promote_types(half, torch.float32)
        scale = weights.to(exact) / items
        learned = targets != IGNORE
        places = targets.where(learned, 0)[:, None]
        pieces = max(1, round(len(targets) * len(weight) * 4 / SCORES_BYTES))
        size = max(1, -(-len(targets) // pieces))  # all as long: a short one takes hardly less time
        losses, upstream, for_weight = [], [], None
        with torch.autocast(kind, enabled=False):
            for start in range(0, max(1, len(targets)), size):
                part = slice(start, start + size)
                logits = product(hidden[part], table)
                log_probabilities = logits.to(exact).log_softmax(dim=-1)
                del logits
                losses.append(-log_probabilities.gather(1, places[part])[:, 0] * learned[part])
                factor = scale[part, None]
                gradient = log_probabilities.exp_().mul_(factor).scatter_add_(1, places[part], -factor).to(half)
                upstream.append(product(gradient, table.T))
                if ctx.needs_input_grad[1]:
                    if for_weight is not None and half == weight.dtype:
                        for_weight.addmm_(gradient.T, hidden[part])
                    else:
                        own = (gradient.T @ hidden[part]).to(weight.dtype)
                        for_weight = own if for_weight is None else for_weight.add_(own)
        nll = torch.cat(losses)
        ctx.gradients = torch.cat(upstream).to(given), for_weight
        ctx.mark_non_differentiable(nll)
        return (nll * scale).sum(), nll

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        found = ctx.gradients
        ctx.gradients = ()  # a reference that stayed would make autograd copy the larger of the two
        if gradient.device.type != "cpu" or gradient.numpy() != 1:  # no wait for any other device
            found = [each if each is None else each.mul_(gradient) for each in found]
        return (*found, None, None, None)


class ScoringHead:
    """A model's head that returns the loss in place of logits, while it is asked for it."""

    def __init__(self, head: torch.nn.Linear) -> None:
        self.weight = head.weight
        self.plain = head.forward
        self.asked: tuple[torch.Tensor, torch.Tensor, torch.Tensor | int] | None = None
        self.nll: torch.Tensor

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.asked is None:
            return self.plain(hidden)
        loss, self.nll = HeadLoss.apply(hidden.flatten(0, -2), self.weight, *self.asked)
        return loss

    def loss(
        self, model: torch.nn.Module, batch: Batch, items: torch.Tensor | int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What HeadLoss says of a batch: its loss, divided by `items`, and each target's negative log-likelihood."""
        self.asked = batch["targets"], batch["weights"], items
        try:
            loss = scores(model, batch)
        finally:
            self.asked = None
        return loss, self.nll


@contextmanager
def scoring_head(model: PreTrainedModel) -> Iterator[ScoringHead | None]:
    """Let the model's head return losses for a while; None where that would not be the model's own loss."""
    head: Any = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.bias is not None or not returns_its_heads_scores(model, head):
        yield None
        return
    scoring = ScoringHead(head)
    with computed_by(head, scoring):
        yield scoring


@torch.no_grad()
def returns_its_heads_scores(model: PreTrainedModel, head: torch.nn.Linear) -> bool:
    """Whether the model's logits are what its head returns: some bend them (Gemma 2) or scale them (Cohere)."""
    seen: list[torch.Tensor] = []
    hook = head.register_forward_hook(lambda module, given, scores: seen.append(scores))
    try:
        ids = torch.tensor([[0, 1]], device=head.weight.device)
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    finally:
        hook.remove()
    return len(seen) == 1 and torch.equal(seen[0], logits)
