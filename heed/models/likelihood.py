"""How likely a model finds the reference answers: their loss, the EOS at their end, and whether it stops before."""

from collections.abc import Sequence

import torch

from heed.tokens.batches import IGNORE, LOSS_KEYS, Batch, Example, LossOn, supervised_tokens


def target_nll(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Negative log-likelihood of every target of a batch, in nats, shape (targets,): 0 where there is none.

    Logits are computed only where a target is predicted from (`logits_to_keep`), and scored in float32 at least.
    """
    return nll_of(target_logits(model, batch), batch["targets"])


def target_logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Shape (targets, vocabulary)."""
    inputs = {name: value for name, value in batch.items() if name not in LOSS_KEYS}
    logits: torch.Tensor = model(**inputs, use_cache=False).logits.flatten(0, 1)
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def nll_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none")


def row_scores(
    model: torch.nn.Module, batch: Batch, examples: Sequence[Example], *, loss_on: LossOn, eos_token_id: int
) -> torch.Tensor:
    """What a batch with each example's targets together says of every example: shape (examples, 4), float64, CPU.

    The summed negative log-likelihood of its targets, in nats; 1 if its response ends in a learned EOS, else 0 (it was
    cut, and the next two are 0); P(EOS) at that end; 1 if EOS is the likeliest token at an earlier place of the
    response, else 0. One forward pass gives all of it, and one copy to the CPU.
    """
    logits, targets = target_logits(model, batch), batch["targets"]
    nll = nll_of(logits, targets)
    early = logits[:, eos_token_id] == logits.amax(dim=-1)  # faster than argmax on a CPU
    table = torch.stack([nll, early.to(nll.dtype), (targets != IGNORE).to(nll.dtype)])
    table = table.cpu().double()  # not every device has float64, and thousands of rows are added up
    rows = []
    for own, example in zip(table.split(list(batch["row_targets"]), dim=1), examples, strict=True):
        own_nll, own_early, learned = own
        answer = min(len(example["response_ids"]), supervised_tokens(example, loss_on))  # targets, the row's last ones
        row = [own_nll.sum().item(), 0.0, 0.0, 0.0]
        if answer and example["response_ids"][-1] == eos_token_id:
            own_nll, own_early = own_nll[learned > 0][-answer:], own_early[learned > 0][-answer:]
            # The last target is EOS itself, so its likelihood is known already.
            row[1:] = [1.0, own_nll[-1].neg().exp().item(), own_early[:-1].sum().clamp(max=1).item()]
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)
