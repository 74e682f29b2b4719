"""The flight recorder: which rows each step learned from, so that a spike in the loss can be traced to its rows."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from heed import processes
from heed.data.records import Record, said
from heed.errors import UserError
from heed.files import run_folder
from heed.files.lines import append_line, read_kept, whole
from heed.saying import count
from heed.tokens.preview import one_line


@dataclass(frozen=True, kw_only=True)
class StepRows:
    """A line of flight.jsonl: what one optimizer step learned from, over all processes."""

    step: int
    rows: list[int]
    """Row ids, as in splits.json, in the order of the micro-batches."""
    supervised: list[int]
    """How many tokens of each row were learned."""
    losses: list[float] | None = None
    """The mean loss of each row's supervised tokens, before the step; None unless record_row_loss is set."""


class FlightRecorder(TrainerCallback):
    """Writes a StepRows line for every step.

    The order of rows is a function of seed and epoch (`order.RowBatches`), so the first process knows everyone's rows
    and nothing is asked of the device. With `losses` the lines of a log interval are written when it ends.
    """

    def __init__(self, path: Path, rows_of_step: Callable[[int], StepRows], losses: "RowLosses | None" = None) -> None:
        self.path, self.rows_of_step, self.losses = path, rows_of_step, losses

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.losses is not None:
            self.losses.end_step(state.global_step)
            if control.should_log or control.should_save:
                self.write_losses(self.losses, state)
        elif state.is_world_process_zero:
            append_line(self.path, asdict(self.rows_of_step(state.global_step)))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.losses is not None:
            self.write_losses(self.losses, state)

    def write_losses(self, losses: "RowLosses", state: TrainerState) -> None:
        for step, sums in losses.collect().items():
            if state.is_world_process_zero:
                append_line(self.path, asdict(with_losses(self.rows_of_step(step), sums)))


def with_losses(rows: StepRows, sums: Sequence[float]) -> StepRows:
    means = [total / tokens for total, tokens in zip(sums, rows.supervised, strict=True)]
    return StepRows(step=rows.step, rows=rows.rows, supervised=rows.supervised, losses=means)


class RowLosses:
    """The summed loss of every row, kept on the device until somebody asks."""

    def __init__(self) -> None:
        self.micro_batches: list[torch.Tensor] = []
        self.steps: dict[int, list[torch.Tensor]] = {}

    def note(self, nll: torch.Tensor, row_targets: Sequence[int]) -> None:
        """`nll` of a micro-batch's targets, those of a row together; `row_targets` says how many each row has."""
        self.micro_batches.append(torch.stack([own.sum() for own in nll.detach().split(list(row_targets))]))

    def end_step(self, step: int) -> None:
        self.steps[step], self.micro_batches = self.micro_batches, []

    def collect(self) -> dict[int, list[float]]:
        """By step, the sums of all processes' rows in the order of `RowBatches.rows_of_step`. Waits for the device."""
        mine = {step: [part.tolist() for part in parts] for step, parts in self.steps.items()}
        self.steps = {}
        everyone = processes.gathered(mine)
        return {
            step: [
                value
                for parts in zip(*(each[step] for each in everyone), strict=True)
                for part in parts
                for value in part
            ]
            for step in mine
        }


def step_rows(
    step: int, micro_batches: Sequence[Sequence[int]], row_ids: np.ndarray, supervised: np.ndarray
) -> StepRows:
    """`micro_batches` are places in the encoded data set; the arrays give their row ids and supervised tokens."""
    places = np.concatenate([np.asarray(batch, dtype=np.int64) for batch in micro_batches])
    return StepRows(step=step, rows=row_ids[places].tolist(), supervised=supervised[places].tolist())


def recorded_steps(run: Path) -> list[StepRows]:
    """All that a run's recorder has written; nothing where it wrote no file."""
    return whole(read_kept(run / run_folder.FLIGHT_FILE, lambda value: StepRows(**value)))


def rows_of_step(run: Path, step: int) -> StepRows:
    """What a step of a run learned from. Raises UserError when the run's recorder does not know the step."""
    path = run / run_folder.FLIGHT_FILE
    if not path.is_file():
        raise UserError(f"{run} has no {run_folder.FLIGHT_FILE}; is it the folder of a run?")
    steps = {rows.step: rows for rows in recorded_steps(run)}
    if step in steps:
        return steps[step]
    known = f"it knows steps {min(steps)} to {max(steps)}" if steps else "it knows none yet"
    raise UserError(f"--step {step}: {path} does not know it; {known}")


def show_step(found: StepRows, records: Sequence[Record]) -> str:
    """The rows of a step as text, those with the highest loss first where losses were recorded.

    `records` are those of the run's source, in any order.
    """
    by_id = {record.row_id: record for record in records}
    losses: Sequence[float | None] = found.losses or [None] * len(found.rows)
    rows = list(zip(found.rows, found.supervised, losses, strict=True))
    rows.sort(key=lambda row: -(row[2] if row[2] is not None else 0.0))
    lines = [f"step {found.step}: {count(len(rows), 'row')}, {count(sum(found.supervised), 'supervised token')}"]
    for row_id, tokens, loss in rows:
        record = by_id[row_id]
        shown = "" if loss is None else f"  loss {loss:.4f}"
        lines.append(f"\nrow {row_id}  {record.place}  {tokens} supervised tokens{shown}")
        lines += [f"  {message['role']:<9} {one_line(spoken(message))}" for message in record.messages]
    return "\n".join(lines)


def spoken(message: Any) -> str:
    return " ".join(filter(None, (said(message), message.get("input"))))
