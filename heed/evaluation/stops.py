"""How sure a model is of where the references end: measured while it is loaded, kept, and scored with its answers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heed.answers.responses import Answer
from heed.files import run_folder
from heed.measure.measurements import Measurement, mean_measurement
from heed.saying import Say, count

if TYPE_CHECKING:  # heavy: what scores kept answers does not need a model
    from heed.tokens.examples import Example

OF_REFERENCES = ("p_eos", "premature_eos", "reference_likelihood")
STOP_METRICS = ("p_eos", "premature_eos", "cut")
"""How answers end, apart from what they say: rows of the system "stop"."""

Numbers = dict[str, list[float | None]]


def stop_numbers(
    model: Any,
    examples: "Sequence[Example]",
    *,
    eos_token_id: int,
    batch_size: int = 32,
    say: Say = print,
) -> Numbers:
    """`p_eos`, `premature_eos` and `reference_likelihood` of encoded examples, given the references.

    The first two are means over an example's spans; the third is the mean probability of a token before their ends
    (geometric), so 1 for a model that knows it by heart. `batch_size` rows at most go through the model at once. A row
    that is longer than the model's context, or was cut, has no number.
    """
    import torch

    from heed.models.likelihood import row_scores
    from heed.models.loading import context_length
    from heed.models.memory import BatchSize, forward_bytes, free_memory, rows_that_fit
    from heed.tokens.batches import PaddingCollator
    from heed.tokens.examples import supervised_tokens

    positions = context_length(model)
    collate = PaddingCollator(pad_token_id=eos_token_id, loss_on="response")
    lengths = [len(example["input_ids"]) for example in examples]
    fitting = sorted((place for place, length in enumerate(lengths) if length <= positions), key=lengths.__getitem__)

    @torch.no_grad()
    def score(part: Sequence[int]) -> torch.Tensor:
        chosen = [examples[place] for place in part]
        batch = collate(chosen)
        batch |= {name: each.to(model.device) for name, each in batch.items() if isinstance(each, torch.Tensor)}
        return row_scores(model, batch, chosen, loss_on="response", eos_token_id=eos_token_id)

    p_eos: list[float | None] = [None] * len(examples)
    premature, likelihood = list(p_eos), list(p_eos)
    size = BatchSize(1, key="batch_size", relief="leave long rows out", say=say)
    if fitting:
        scored = max(supervised_tokens(examples[place], "response") for place in fitting)
        needed = forward_bytes(model.config, tokens=lengths[fitting[-1]], scored=scored, itemsize=4)
        size.rows = rows_that_fit(free_memory(model.device), needed, most=batch_size)
    for part, scores in size.batches(fitting, score):
        for place, (nll, ended, probability, early, end_nll) in zip(part, scores.tolist(), strict=True):
            if ended:
                p_eos[place], premature[place] = probability / ended, early / ended
            if before_ends := supervised_tokens(examples[place], "response") - ended:
                likelihood[place] = math.exp((end_nll - nll) / before_ends)
    return {"p_eos": p_eos, "premature_eos": premature, "reference_likelihood": likelihood}


Stops = dict[str, dict[int, dict[str, float | None]]]


def write_stops(folder: Path, name: str, row_ids: Sequence[int], numbers: Numbers) -> None:
    """Keep what only the model could tell: how likely it is to stop where each reference ends."""
    stops = read_stops(folder)
    stops[name] = {
        row_id: {metric: values[place] for metric, values in numbers.items()} for place, row_id in enumerate(row_ids)
    }
    lines = [
        {"name": name, "row_id": row_id, **values} for name, rows in stops.items() for row_id, values in rows.items()
    ]
    run_folder.write_lines(folder / run_folder.STOPS_FILE, lines)


def read_stops(folder: Path) -> Stops:
    stops: Stops = {}
    for line in run_folder.read_lines(folder / run_folder.STOPS_FILE):
        stops.setdefault(line.pop("name"), {})[line.pop("row_id")] = line
    return stops


def kept_measurements(stops: Mapping[int, Mapping[str, float | None]], answers: Sequence[Answer]) -> list[Measurement]:
    """Nothing for answers that were not written here, by this model to these rows."""
    if any(answer.row_id not in stops for answer in answers):
        return []
    found = {metric: [stops[answer.row_id].get(metric) for answer in answers] for metric in OF_REFERENCES}
    # A reference that was cut has a likelihood, and no end.
    fits = [each is not None for each in found["reference_likelihood"]]
    cut = [fit for fit, end in zip(fits, found["p_eos"], strict=True) if end is None]
    too_long = no_number(len(cut) - sum(cut), "is longer than the model's positions")
    notes = (*no_number(sum(cut), "was cut, so it has no end"), *too_long)
    return [
        mean_measurement("p_eos", found["p_eos"], notes=notes),
        mean_measurement("premature_eos", found["premature_eos"], better="lower", notes=notes),
        mean_measurement("reference_likelihood", found["reference_likelihood"], notes=too_long),
    ]


def no_number(rows: int, why: str) -> tuple[str, ...]:
    return (f"no number: the reference of {count(rows, 'row')} {why}",) if rows else ()
