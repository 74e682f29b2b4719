"""How sure a model is of where the references end, as measurements."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from heed.measure.measurements import Measurement, mean_measurement
from heed.models.likelihood import row_scores
from heed.models.loading import context_length
from heed.models.memory import BatchSize, forward_bytes, free_memory, rows_that_fit
from heed.saying import Say
from heed.tokens.batches import Example, PaddingCollator


@torch.no_grad()
def stop_measurements(
    model: Any,
    examples: Sequence[Example],
    *,
    eos_token_id: int,
    batch_size: int = 32,
    on_done: Callable[[int], object] = lambda count: None,
    say: Say = print,
) -> list[Measurement]:
    """`p_eos` and `premature_eos` of encoded rows (prompt_ids, response_ids), the reference being given to the model.

    One item for each example, in order; `batch_size` rows at most go through the model at once. A row that is longer
    than the model's context, or was cut, has no number, and the notes count it.
    """
    positions = context_length(model)
    collate = PaddingCollator(pad_token_id=eos_token_id, loss_on="response")
    lengths = [len(example["prompt_ids"]) + len(example["response_ids"]) for example in examples]
    fitting = sorted((place for place, length in enumerate(lengths) if length <= positions), key=lengths.__getitem__)

    def score(part: Sequence[int]) -> torch.Tensor:
        chosen = [examples[place] for place in part]
        batch = collate(chosen)
        batch |= {name: each.to(model.device) for name, each in batch.items() if isinstance(each, torch.Tensor)}
        return row_scores(model, batch, chosen, loss_on="response", eos_token_id=eos_token_id)

    p_eos: list[float | None] = [None] * len(examples)
    premature = list(p_eos)
    size = BatchSize(1, key="batch_size", relief="leave long rows out", say=say)
    if fitting:
        scored = max(len(examples[place]["response_ids"]) for place in fitting)
        needed = forward_bytes(model.config, tokens=lengths[fitting[-1]], scored=scored, itemsize=4)
        size.rows = rows_that_fit(free_memory(model.device), needed, most=batch_size)
    for part, scores in size.batches(fitting, score):
        for place, (_, ended, probability, early) in zip(part, scores.tolist(), strict=True):
            if ended:
                p_eos[place], premature[place] = probability, early
        on_done(len(part))
    too_long = len(examples) - len(fitting)
    cut = p_eos.count(None) - too_long
    notes = (
        *((f"{too_long} rows are longer than the model's {positions} positions",) if too_long else ()),
        *((f"{cut} references were cut and have no end",) if cut else ()),
    )
    return [
        mean_measurement("p_eos", p_eos, notes=notes),
        mean_measurement("premature_eos", premature, better="lower", notes=notes),
    ]
