"""How likely a model finds the reference answers: their loss, the EOS at their end, and whether it stops before."""

from collections.abc import Sequence

import numpy as np
import torch

from heed.tokens.batches import IGNORE, LOSS_KEYS, Batch
from heed.tokens.examples import Example, LossOn, learned_places


def target_nll(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Negative log-likelihood of every target of a batch, in nats, shape (targets,): 0 where there is none.

    Logits are computed only where a target is predicted from (`logits_to_keep`), and scored in float32 at least.
    """
    return nll_of(target_logits(model, batch), batch["targets"])


def target_logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Shape (targets, vocabulary)."""
    logits = scores(model, batch).flatten(0, 1)
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def scores(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """What the model's head returns of a batch."""
    inputs = {name: value for name, value in batch.items() if name not in LOSS_KEYS}
    found: torch.Tensor = model(**inputs, use_cache=False).logits
    return found


def nll_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none")


def row_scores(
    model: torch.nn.Module, batch: Batch, examples: Sequence[Example], *, loss_on: LossOn, eos_token_id: int
) -> torch.Tensor:
    """What a batch with each example's targets together says of every example: shape (examples, 5), float64, CPU.

    The summed negative log-likelihood of its targets, in nats; how many of its spans end in a learned EOS (one that was
    cut does not, and is left out of the next three); the sum of P(EOS) at those ends; in how many of them EOS is the
    likeliest token at an earlier place; the negative log-likelihood of those ends. One forward pass gives all of it,
    and one copy to the CPU.
    """
    logits, targets = target_logits(model, batch), batch["targets"]
    nll = nll_of(logits, targets)
    early = logits[:, eos_token_id] == logits.amax(dim=-1)  # faster than argmax on a CPU
    table = torch.stack([nll, early.to(nll.dtype), (targets != IGNORE).to(nll.dtype)])
    table = table.cpu().double()  # not every device has float64, and thousands of rows are added up
    rows = []
    for own, example in zip(table.split(list(batch["row_targets"]), dim=1), examples, strict=True):
        own_nll, own_early, learned = own
        row = [own_nll.sum().item(), 0.0, 0.0, 0.0, 0.0]
        own_nll, own_early = own_nll[learned > 0], own_early[learned > 0]
        places = learned_places(example, loss_on)
        for start, end in example["spans"]:
            first, last = np.searchsorted(places, (start, end - 1)).tolist()
            if last < len(places) and places[last] == end - 1 and example["input_ids"][end - 1] == eos_token_id:
                row[1] += 1
                # The span's last target is EOS itself, so its likelihood is known already.
                row[2] += own_nll[last].neg().exp().item()
                row[3] += own_early[first:last].sum().clamp(max=1).item()
                row[4] += own_nll[last].item()
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)
