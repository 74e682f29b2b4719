"""What happens alongside the training: progress, samples, early stopping, and files of the run folder."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from heed.data.records import Record
from heed.files.lines import append_line, kept_values, rewind_lines
from heed.prompts.template import Contract
from heed.saying import Detail, Progress, Say, say
from heed.tokens.preview import one_line
from heed.training.checkpointing import show_learned

PICKLED_ARGUMENTS = "training_args.bin"


class MetricsFile(TrainerCallback):
    """Appends every logged number to metrics.jsonl, with step, epoch, tokens seen, and the seconds of all starts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.began = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        earlier = kept_values(self.path)
        self.began = time.monotonic() - (earlier[-1].get("seconds", 0.0) if earlier else 0.0)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if state.is_world_process_zero:
            seconds = round(time.monotonic() - self.began, 1)
            append_line(self.path, {"step": state.global_step} | (logs or {}) | {"seconds": seconds})


class RewindFiles(TrainerCallback):
    """Cuts a resumed run's files back to its checkpoint; what came later is not kept."""

    def __init__(self, paths: Sequence[Path], say: Say) -> None:
        self.paths, self.say = paths, say

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            for path in self.paths:
                # A run that starts over starts its files over.
                rewind_lines(path, state.global_step or -1, self.say)


class GoOn(TrainerCallback):
    """Corrects the state that Trainer reads from a checkpoint when a run is resumed."""

    def __init__(self, folder: Path, say: Say) -> None:
        self.folder, self.say = folder, say

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step >= state.max_steps:  # killed between the last step and the end
            control.should_training_stop = True
        if state.best_global_step is None:
            return
        moved = self.folder / f"checkpoint-{state.best_global_step}"
        if moved.is_dir():
            state.best_model_checkpoint = str(moved)
        elif state.best_model_checkpoint is None:
            if state.is_world_process_zero:
                self.say(f"resume    the best checkpoint so far ({moved.name}) is gone; the best from here on is kept")
            state.best_metric = state.best_global_step = None


class LogLines(TrainerCallback):
    """Says the losses of a log in one readable line; what else is in it is a detail."""

    LOSSES = (
        ("loss", "loss"),
        ("eval_loss", "validation loss"),
        (r"eval_(.+)_loss", r"validation loss of \1"),
        ("initial_train_loss", "loss on training rows"),
        ("(eval_)?rewards/accuracies", "right way round"),
        ("(eval_)?rewards/margins", "margin"),
    )
    DETAILS = r"eval_(.+_)?(p|premature)_eos|learning_rate|grad_norm"

    def __init__(self, say: Say) -> None:
        self.say = say

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        logs = logs or {}
        shown = [
            f"{found.expand(words)} {logs[name]:.4g}"
            for pattern, words in self.LOSSES
            for name in logs
            if (found := re.fullmatch(pattern, name))
        ]
        if not (state.is_world_process_zero and shown):
            return
        covered = [
            f"{logs[name]:,} {'rows cut before EOS' if name.endswith('_cut_rows') else name.split('_')[-1]}"
            for name in logs
            if name.endswith(("_rows", "_tokens")) and (logs[name] or not name.endswith("_cut_rows"))
        ]
        if covered:
            shown.append(f"over {', '.join(covered)}")
        self.say(f"step {state.global_step:>5}  epoch {state.epoch or 0:.2f}  " + "  ".join(shown))
        if details := [f"{name} {logs[name]:.4g}" for name in logs if re.fullmatch(self.DETAILS, name)]:
            self.say(Detail("          " + "  ".join(details)))


class StepsDone(TrainerCallback):
    """Tells the progress line of the steps; time counts from the first one on."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.begun = progress, False

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not self.begun:
            self.progress.start(state.global_step)
            self.begun = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.progress.update()


class ScoreCheckpoints(TrainerCallback):
    """Evaluates wherever a checkpoint is about to be written, so that the best one is always known."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        control.should_evaluate = control.should_evaluate or control.should_save

    on_epoch_end = on_step_end


class EarlyStopping(TrainerCallback, ExportableState):
    """Stops when eval_loss has not improved for `patience` evaluations in a row.

    transformers' own callback compares with the best saved model instead.
    """

    def __init__(self, patience: int, say: Say = say) -> None:
        self.patience, self.say = patience, say
        self.best = float("inf")
        self.waited = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.waited >= self.patience:  # killed between stopping and the end
            control.should_training_stop = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        loss = (metrics or {}).get("eval_loss")
        if loss is None:
            return
        if loss < self.best:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            control.should_training_stop = True
            if state.is_world_process_zero:
                self.say(
                    f"early stopping at step {state.global_step}: eval_loss {loss:.4g} has not been below "
                    f"{self.best:.4g} for {self.waited} evaluations"
                )

    def state(self) -> dict[str, Any]:
        return {"args": {"patience": self.patience}, "attributes": {"best": self.best, "waited": self.waited}}


class InitialTrainLoss(TrainerCallback):
    """Measures the loss on a fixed part of the training rows before the first step, as `initial_train_loss`."""

    def __init__(self, evaluate: Callable[[], dict[str, float]]) -> None:
        self.evaluate = evaluate

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == 0:
            self.evaluate()


class SampleAnswer(TrainerCallback):
    """Answers one fixed validation row after each epoch, so that a person sees the model change."""

    def __init__(self, record: Record, answer: Callable[[Any], str], path: Path, say: Say) -> None:
        self.record, self.answer, self.path, self.say = record, answer, path, say

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        show_learned(optimizer)
        response = self.answer(model)
        if not state.is_world_process_zero:
            return
        sample = {
            "step": state.global_step,
            "epoch": state.epoch,
            "row_id": self.record.row_id,
            "instruction": self.record.instruction,
            "input": self.record.input,
            "output": self.record.output,
            "model_response": response,
        }
        append_line(self.path, sample)
        question = one_line(" ".join(filter(None, (self.record.instruction, self.record.input))))
        self.say(f"epoch {state.epoch:.4g}   validation row {self.record.row_id}: {question}")
        self.say(f"          expected: {one_line(self.record.output)}\n          answered: {one_line(response)}")


def complete_checkpoint(folder: Path, contract: Contract) -> None:
    """Put the prompt contract beside saved weights, and remove the pickled arguments.

    They are in resolved_config.json; a pickle runs code when it is loaded.
    """
    contract.save(folder)
    (folder / PICKLED_ARGUMENTS).unlink(missing_ok=True)
