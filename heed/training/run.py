"""A training from plan to proof: begun, recorded, trained, saved, loaded again."""

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from heed.config import Settings
from heed.config.training import ModelKeys, RunKeys
from heed.files import run_folder
from heed.runs.sameness import Fingerprint, refuse_unknown
from heed.saying import Progress, count, speaker
from heed.training.arguments import Told, training_arguments

if TYPE_CHECKING:  # heavy: imported below, once the command line is known to be good
    import torch
    from transformers import TrainerCallback, TrainingArguments

    from heed.data.records import Record
    from heed.data.splits import Splits
    from heed.prompts.template import Contract
    from heed.runs.recorder import RowLosses
    from heed.runs.start import Start
    from heed.saying import Say
    from heed.tokens.batches import Batch
    from heed.training.plan import Plan
    from heed.training.safe import SafeTrainer
    from heed.training.signals import StopSignals
    from heed.training.trainer import HeedTrainer

REHEARSED_TOKENS = 2  # of the answer before step 0; a longer one takes hardly more memory
PROBE_ROWS = 64  # training rows whose loss is measured before the first step


def meet(told: Told[Any], *, verbose: bool) -> "tuple[TrainingArguments, Say]":
    """All processes of the run find each other; only the first one speaks."""
    from heed.processes import check_launch
    from heed.training.signals import die_with_launcher

    die_with_launcher()
    check_launch(told.ours.processes)
    args = training_arguments(told)
    return args, speaker(verbose=verbose) if args.process_index == 0 else silent


def silent(text: str) -> None:
    """What processes other than the first one say."""


class Planned(Protocol):
    """What a run needs of its plan, whatever it learns from."""

    @property
    def args(self) -> "TrainingArguments": ...

    @property
    def contract(self) -> "Contract":
        """What is saved with every checkpoint."""

    @property
    def proof(self) -> "Batch":
        """Rows on which the saved model must compute what the trained one does."""

    def reload(self, folder: Path, device: "torch.device") -> Any:
        """The saved model, loaded as a user would."""


class Trains(Protocol):
    """How a kind of training begins and runs; `begin` gives its part of run.json."""

    @property
    def begin(self) -> Callable[[Any, Settings, Path], dict[str, Any]]: ...

    @property
    def train(self) -> Callable[..., "SafeTrainer"]: ...


def check_processes(run: RunKeys, facts: Fingerprint) -> None:
    """Raises UserError where another process has something else that decides the numbers of the run."""
    from heed.processes import check_alike

    refuse_unknown(run.allow_changed, facts)
    check_alike(facts | run_folder.versions())


@contextmanager
def begun(run: RunKeys, args: "TrainingArguments", facts: Fingerprint, say: "Say") -> "Iterator[Start]":
    """The run folder, locked, and where in it the run begins."""
    from heed.files.lock import locked
    from heed.processes import from_first
    from heed.runs.start import find_start

    folder = Path(str(args.output_dir))
    with ExitStack() as held:

        def begin_here() -> "Start":
            run_folder.make_folder(folder)
            held.enter_context(locked(folder, say))
            return find_start(
                folder,
                facts,
                resume=run.resume,
                overwrite=run.overwrite_output_dir,
                allowed=run.allow_changed,
                world=args.world_size,
                say=say,
            )

        yield from_first(begin_here)


def train_to_the_end(
    kind: Trains,
    plan: Planned,
    settings: Settings,
    found: "Start",
    facts: Fingerprint,
    pushes: "Sequence[TrainerCallback]",
    queued: int,
    say: "Say",
) -> None:
    """Begin, train, finish; run.json and run_state.json say how it went, whatever happens.

    `queued` is how many models may wait for the Hub.
    """
    from heed.runs.state import RunRecord
    from heed.training.signals import StopSignals

    args, folder = plan.args, Path(str(plan.args.output_dir))
    args.eval_on_start = args.eval_on_start and found.checkpoint is None  # a checkpoint's eval_loss is known
    with StopSignals() as signals:
        known = {"fingerprint": facts} | kind.begin(plan, settings, folder)
        with RunRecord(folder, found.checkpoint, known, writes=args.process_index == 0) as record:
            trainer = kind.train(plan, found, facts, [*pushes, record], signals, queued, say)
            record.facts |= finish(trainer, plan, folder, say)


def make_callbacks(run: RunKeys, args: "TrainingArguments", folder: Path, say: "Say") -> "list[TrainerCallback]":
    """What watches any run, except what needs the trainer itself (see `see_through`)."""
    from heed.training.callbacks import EarlyStopping, GoOn, LogLines, MetricsFile, RewindFiles, ScoreCheckpoints

    metrics = folder / run_folder.METRICS_FILE
    callbacks: list[TrainerCallback] = [
        LogLines(say),
        RewindFiles([metrics, folder / run_folder.SAMPLES_FILE, folder / run_folder.FLIGHT_FILE], say),
        MetricsFile(metrics),  # after RewindFiles: it continues the time of the last line
        GoOn(folder, say),
    ]
    if args.eval_strategy != "no":
        callbacks.append(ScoreCheckpoints())
        if run.early_stopping_patience is not None:
            callbacks.append(EarlyStopping(run.early_stopping_patience, say))
    return callbacks


def sample_answers(plan: "Plan", folder: Path, say: "Say") -> "list[TrainerCallback]":
    from heed.training.callbacks import SampleAnswer

    if not plan.samples:
        return []
    record, samples = plan.splits["validation"][0], folder / run_folder.SAMPLES_FILE
    ask = partial(answer, plan=plan, record=record, max_new_tokens=plan.samples)
    return [SampleAnswer(record, ask, samples, say)]


def begin(plan: "Plan", settings: Settings, folder: Path) -> dict[str, Any]:
    """Write down what goes into the run, and return the part of it for run.json."""
    from heed.audit.flags import write_flags
    from heed.data.splits import row_ids

    rows = plan.reading.rows
    if plan.args.process_index == 0:
        write_settings(settings, folder)
        # The rows of a prepared set are in its shards, each with its id.
        splits: Splits = {"validation": plan.splits["validation"]} if plan.sft.prepared else plan.splits
        sets = {"validation_sets": plan.validation_sets} if plan.validation_sets else {}
        run_folder.write_json(folder / run_folder.SPLITS_FILE, row_ids(splits) | sets)
        if plan.audit is not None:
            write_flags(folder, plan.audit.scan)
        if rows.rejected:
            rejected = [dataclasses.asdict(each) for each in rows.rejected]
            run_folder.write_lines(folder / run_folder.REJECTED_FILE, rejected)
    return of_any_run(plan.sft, plan.args, plan.model) | {
        "prompt": plan.sft.prompt,
        "data": {
            "source": plan.sft.data,
            "format": rows.row_format,
            "rows": len(rows.records),
            "rejected": len(rows.rejected),
            "ignored_fields": rows.ignored_fields,
            "prepared": plan.sft.prepared,
            "rows_sha256": plan.reading.sha256,
            "files": plan.reading.files,
        },
        "audit": plan.audit.as_json() if plan.audit is not None else None,
        "splits": {name: len(records) for name, records in plan.splits.items()}
        | {"train": plan.encoded["train"].counts["rows"] if plan.sft.prepared else len(plan.splits["train"])},
        "encoded": {name: each.counts | {"cache_key": each.cache_key} for name, each in plan.encoded.items()},
    }


def of_any_run(keys: ModelKeys, args: "TrainingArguments", model: Any) -> dict[str, Any]:
    """What run.json says of every run: its model, and where it is computed."""
    from heed.hardware import describe
    from heed.models.loading import parameter_counts

    parameters, trained_parameters = parameter_counts(model)
    return {
        "working_folder": str(Path.cwd()),
        "model": keys.model_name_or_path,
        "model_revision": keys.model_revision,
        "parameters": parameters,
        "trained_parameters": trained_parameters,
        "device": str(args.device),
        "hardware": describe(args.device),
        "processes": args.world_size,
    }


def write_settings(settings: Settings, folder: Path) -> None:
    resolved = {name: {"value": each.value, "source": each.source} for name, each in settings.items()}
    run_folder.write_json(folder / run_folder.CONFIG_FILE, resolved)


def train(
    plan: "Plan",
    found: "Start",
    facts: dict[str, Any],
    callbacks: "Sequence[TrainerCallback]",
    signals: "StopSignals",
    queued: int,
    say: "Say",
) -> "HeedTrainer":
    """Run the training; afterwards the trainer has the best saved model, or the last one if none was scored."""
    from heed.runs.recorder import RowLosses
    from heed.training.callbacks import InitialTrainLoss, complete_checkpoint
    from heed.training.earlier import earlier_start
    from heed.training.preflight import Rehearsal
    from heed.training.signals import GracefulStop
    from heed.training.trainer import HeedTrainer

    args, folder = plan.args, Path(str(plan.args.output_dir))
    train_set = plan.encoded["train"].dataset
    steering, *others = plan.evaluated().items() if args.eval_strategy != "no" else [("", None)]
    row_losses = RowLosses() if plan.sft.record_row_loss else None
    trainer = HeedTrainer(
        model=plan.model,
        args=args,
        train_dataset=train_set,
        eval_dataset=steering[1],
        evaluated_too=dict(others),
        earlier=earlier_start(plan, facts),
        data_collator=plan.collator,
        processing_class=plan.tokenizer,
        callbacks=[*make_callbacks(plan.sft, args, folder, say), *sample_answers(plan, folder, say), *callbacks],
        tokens_per_batch=plan.sft.tokens_per_batch,
        speed=plan.speed,
        stop=GracefulStop(signals),
        row_losses=row_losses,
        facts={"fingerprint": facts},
        complete=lambda staged: complete_checkpoint(staged, plan.contract),
        say=say,
    )
    more: list[TrainerCallback] = []
    if plan.sft.preflight == "full":
        answer_shortly = None
        if plan.samples:
            answer_shortly = partial(answer, plan=plan, record=plan.longest_prompt, max_new_tokens=REHEARSED_TOKENS)
        more.append(Rehearsal(trainer, answer_shortly, say))
    probe = train_set.select(range(min(PROBE_ROWS, len(train_set))))
    more.append(InitialTrainLoss(lambda: trainer.evaluate(probe, metric_key_prefix="initial_train")))
    see_through(trainer, found, more, queued, say, row_losses=row_losses)
    return trainer


def see_through(
    trainer: "SafeTrainer",
    found: "Start",
    callbacks: "Sequence[TrainerCallback]",
    queued: int,
    say: "Say",
    *,
    row_losses: "RowLosses | None" = None,
) -> None:
    """Record, check and run a training; `callbacks` come last."""
    from transformers import PrinterCallback, ProgressCallback

    from heed.runs.recorder import FlightRecorder
    from heed.training.callbacks import StepsDone
    from heed.training.preflight import check_disk, check_engine

    args = trainer.args
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    # After GracefulStop, whose checkpoint it then also records.
    flight = Path(str(args.output_dir)) / run_folder.FLIGHT_FILE
    trainer.add_callback(FlightRecorder(flight, trainer.rows_of_step, row_losses))
    say_schedule(trainer, say)
    check_engine(trainer)
    check_disk(trainer, steps=total_steps(trainer), queued=queued, say=say)
    for callback in callbacks:
        trainer.add_callback(callback)
    logging.getLogger("transformers.trainer").addFilter(not_about_tied_weights)
    with Progress("training", total_steps(trainer), "steps") as progress:
        if args.process_index == 0 and not args.disable_tqdm:
            trainer.add_callback(StepsDone(progress))
        trainer.train(resume_from_checkpoint=str(found.checkpoint.path) if found.checkpoint else None)


def not_about_tied_weights(message: logging.LogRecord) -> bool:
    """GPT-2 stores its head once, as the embedding; Trainer reports its other name missing from the best checkpoint."""
    return "missing keys in the checkpoint model loaded: ['lm_head.weight']" not in message.getMessage()


def say_schedule(trainer: "SafeTrainer", say: "Say") -> None:
    args = trainer.args
    parts = args.gradient_accumulation_steps * args.world_size
    trainer.get_train_dataloader()
    tokens = trainer.row_batches.tokens_per_batch
    batch = f"at most {tokens * parts:,} tokens" if tokens else count(args.train_batch_size * parts, "row")
    say(f"steps     {total_steps(trainer)} of {batch}, {trainer.row_batches.steps} an epoch")
    if args.world_size > 1:
        say(f"          the fullest process has {trainer.row_batches.balance():.2f} times the mean of a step's work")
    if args.dataloader_drop_last:
        unseen = len(trainer.train_dataset) - sum(map(len, trainer.row_batches.plan(0)))
        say(f"          {count(unseen, 'row')} of the last, partial batch left out of an epoch (dataloader_drop_last)")
    if not args.load_best_model_at_end:
        say("          the last model is kept, not the best: that needs evaluations and checkpoints")


def total_steps(trainer: "SafeTrainer") -> int:
    args = trainer.args
    if args.max_steps > 0:
        return args.max_steps
    return math.ceil(args.num_train_epochs * trainer.row_batches.steps)


def answer(model: Any, plan: "Plan", record: "Record", max_new_tokens: int) -> str:
    """The current model's greedy answer to one row. Called by every process."""
    import torch

    from heed.answers.generation import generate

    was_training = model.training
    model.eval()
    with torch.compiler.set_stance("force_eager"):  # blocks compiled for training would be compiled again
        [response] = generate(
            model,
            plan.prompt,
            [plan.prompt.encode_prompt(record.messages[:-1])],
            stop_token_ids=plan.contract.stop_token_ids,
            batch_size=1,
            max_new_tokens=max_new_tokens,
            engine="batch",
            say=silent,
        )
    model.train(was_training)
    return response.text


def finish(trainer: "SafeTrainer", plan: Planned, folder: Path, say: "Say") -> dict[str, Any]:
    """Save the model, prove that it loads, draw the losses; return what goes into run.json."""
    import torch

    from heed.runs.plots import plot_losses
    from heed.training.callbacks import complete_checkpoint
    from heed.training.preflight import peak_memory
    from heed.training.proof import check_saved_weights, reload_difference

    contract, device = plan.contract, plan.args.device
    # Without the wrapper that makes a bf16 run compute in bf16: what is saved is compared with what is loaded.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    contract.set_stops(model.generation_config)
    trainer.save_whole(folder)
    weights = trainer.gathered_weights()
    state = trainer.state
    if not state.is_world_process_zero:
        return {}
    complete_checkpoint(folder, contract)
    difference = None
    if weights:
        check_saved_weights(weights, plan.reload(folder, torch.device("cpu")), folder)
    else:
        difference = reload_difference(model, plan.reload(folder, device), plan.proof, folder)
    plot = plot_losses(folder)
    kept = f"step {state.best_global_step}" if state.best_model_checkpoint else f"step {state.global_step}"
    score = f", eval_loss {state.best_metric:.4f}" if state.best_metric is not None else ""
    say(f"\nkept      the model of {kept}{score}")
    proof = "every weight is as it was trained" if weights else f"its logits differ by {difference:.1e} at most"
    say(f"saved     {folder}; loaded again, {proof}")
    say(f"plot      {plot}")
    return {
        "steps": state.global_step,
        "balance": round(trainer.row_batches.balance(), 4),
        "epochs": state.epoch,
        "kept": kept,
        "best_eval_loss": state.best_metric,
        "num_input_tokens_seen": state.num_input_tokens_seen,
        "reload_max_logit_difference": difference,
        "peak_memory_bytes": peak_memory(plan.args.device),
    }
