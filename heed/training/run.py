"""A training from plan to proof: begun, recorded, trained, saved, loaded again."""

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heed.config import Settings
from heed.files import run_folder
from heed.runs.sameness import Fingerprint, refuse_unknown
from heed.saying import Progress, count, speaker
from heed.training.arguments import Told, training_arguments

if TYPE_CHECKING:  # heavy: imported below, once the command line is known to be good
    from transformers import TrainerCallback, TrainingArguments

    from heed.data.records import Record
    from heed.data.splits import Splits
    from heed.runs.start import Start
    from heed.saying import Say
    from heed.training.plan import Plan
    from heed.training.signals import StopSignals
    from heed.training.trainer import HeedTrainer

REHEARSED_TOKENS = 2  # of the answer before step 0; a longer one takes hardly more memory
PROBE_ROWS = 64  # training rows whose loss is measured before the first step


def meet(told: Told, *, verbose: bool) -> "tuple[TrainingArguments, Say]":
    """All processes of the run find each other; only the first one speaks."""
    from heed.processes import check_launch
    from heed.training.signals import die_with_launcher

    die_with_launcher()
    check_launch(told.sft.processes)
    args = training_arguments(told.training)
    return args, speaker(verbose=verbose) if args.process_index == 0 else silent


def silent(text: str) -> None:
    """What processes other than the first one say."""


def check_processes(plan: "Plan") -> Fingerprint:
    """What decides the numbers of the run; raises UserError where another process has something else."""
    from heed.processes import check_alike
    from heed.training.fingerprint import fingerprint

    facts = fingerprint(plan)
    refuse_unknown(plan.sft.allow_changed, facts)
    check_alike(facts | run_folder.versions())
    return facts


@contextmanager
def begun(plan: "Plan", facts: Fingerprint, say: "Say") -> "Iterator[Start]":
    """The run folder, locked, and where in it the run begins."""
    from heed.files.lock import locked
    from heed.processes import from_first
    from heed.runs.start import find_start

    sft, folder = plan.sft, Path(str(plan.args.output_dir))
    with ExitStack() as held:

        def begin_here() -> "Start":
            run_folder.make_folder(folder)
            held.enter_context(locked(folder, say))
            return find_start(
                folder,
                facts,
                resume=sft.resume,
                overwrite=sft.overwrite_output_dir,
                allowed=sft.allow_changed,
                world=plan.args.world_size,
                say=say,
            )

        yield from_first(begin_here)


def train_to_the_end(
    plan: "Plan",
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

    folder = Path(str(plan.args.output_dir))
    with StopSignals() as signals:
        known = {"fingerprint": facts} | begin(plan, settings, folder)
        with RunRecord(folder, found.checkpoint, known, writes=plan.args.process_index == 0) as record:
            callbacks = [*make_callbacks(plan, folder, say), *pushes, record]
            trainer = train(plan, found, facts, callbacks, signals, queued, say)
            record.facts |= finish(trainer, plan, folder, say)


def make_callbacks(plan: "Plan", folder: Path, say: "Say") -> "list[TrainerCallback]":
    """What watches this run, except what needs the trainer itself (see `train`)."""
    from heed.training.callbacks import (
        EarlyStopping,
        GoOn,
        LogLines,
        MetricsFile,
        RewindFiles,
        SampleAnswer,
        ScoreCheckpoints,
    )

    samples, metrics = folder / run_folder.SAMPLES_FILE, folder / run_folder.METRICS_FILE
    callbacks: list[TrainerCallback] = [
        LogLines(say),
        RewindFiles([metrics, samples, folder / run_folder.FLIGHT_FILE], say),
        MetricsFile(metrics),  # after RewindFiles: it continues the time of the last line
        GoOn(folder, say),
    ]
    if plan.args.eval_strategy != "no":
        callbacks.append(ScoreCheckpoints())
        if plan.sft.early_stopping_patience is not None:
            callbacks.append(EarlyStopping(plan.sft.early_stopping_patience, say))
    if plan.samples:
        record = plan.splits["validation"][0]
        callbacks.append(
            SampleAnswer(record, partial(answer, plan=plan, record=record, max_new_tokens=plan.samples), samples, say)
        )
    return callbacks


def begin(plan: "Plan", settings: Settings, folder: Path) -> dict[str, Any]:
    """Write down what goes into the run, and return the part of it for run.json."""
    from heed.audit.flags import write_flags
    from heed.data.splits import row_ids
    from heed.hardware import describe
    from heed.models.loading import parameter_counts

    rows = plan.reading.rows
    if plan.args.process_index == 0:
        resolved = {name: {"value": each.value, "source": each.source} for name, each in settings.items()}
        run_folder.write_json(folder / run_folder.CONFIG_FILE, resolved)
        # The rows of a prepared set are in its shards, each with its id.
        splits: Splits = {"validation": plan.splits["validation"]} if plan.sft.prepared else plan.splits
        run_folder.write_json(folder / run_folder.SPLITS_FILE, row_ids(splits))
        if plan.audit is not None:
            write_flags(folder, plan.audit.scan)
        if rows.rejected:
            rejected = [dataclasses.asdict(each) for each in rows.rejected]
            run_folder.write_lines(folder / run_folder.REJECTED_FILE, rejected)
    parameters, trained_parameters = parameter_counts(plan.model)
    return {
        "working_folder": str(Path.cwd()),
        "model": plan.sft.model_name_or_path,
        "model_revision": plan.sft.model_revision,
        "parameters": parameters,
        "trained_parameters": trained_parameters,
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
        "device": str(plan.args.device),
        "hardware": describe(plan.args.device),
        "processes": plan.args.world_size,
    }


def train(
    plan: "Plan",
    found: "Start",
    facts: dict[str, Any],
    callbacks: "list[TrainerCallback]",
    signals: "StopSignals",
    queued: int,
    say: "Say",
) -> "HeedTrainer":
    """Run the training; afterwards the trainer has the best saved model, or the last one if none was scored."""
    from transformers import PrinterCallback, ProgressCallback

    from heed.runs.recorder import FlightRecorder, RowLosses
    from heed.training.callbacks import InitialTrainLoss, StepsDone, complete_checkpoint
    from heed.training.preflight import Rehearsal, check_disk, check_engine
    from heed.training.signals import GracefulStop
    from heed.training.trainer import HeedTrainer

    args, folder = plan.args, Path(str(plan.args.output_dir))
    args.eval_on_start = args.eval_on_start and found.checkpoint is None  # a checkpoint's eval_loss is known
    train_set = plan.encoded["train"].dataset
    row_losses = RowLosses() if plan.sft.record_row_loss else None
    trainer = HeedTrainer(
        model=plan.model,
        args=args,
        train_dataset=train_set,
        eval_dataset=plan.encoded["validation"].dataset if args.eval_strategy != "no" else None,
        data_collator=plan.collator,
        processing_class=plan.tokenizer,
        callbacks=callbacks,
        tokens_per_batch=plan.sft.tokens_per_batch,
        speed=plan.speed,
        stop=GracefulStop(signals),
        row_losses=row_losses,
        facts={"fingerprint": facts},
        complete=lambda staged: complete_checkpoint(staged, plan.contract),
        say=say,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    # After GracefulStop, whose checkpoint it then also records.
    trainer.add_callback(FlightRecorder(folder / run_folder.FLIGHT_FILE, trainer.rows_of_step, row_losses))
    say_schedule(trainer, len(train_set), say)
    check_engine(trainer)
    check_disk(trainer, steps=total_steps(trainer), queued=queued, say=say)
    if plan.sft.preflight == "full":
        answer_shortly = None
        if plan.samples:
            answer_shortly = partial(answer, plan=plan, record=plan.longest_prompt, max_new_tokens=REHEARSED_TOKENS)
        trainer.add_callback(Rehearsal(trainer, answer_shortly, say))
    probe = train_set.select(range(min(PROBE_ROWS, len(train_set))))
    trainer.add_callback(InitialTrainLoss(lambda: trainer.evaluate(probe, metric_key_prefix="initial_train")))
    logging.getLogger("transformers.trainer").addFilter(not_about_tied_weights)
    with Progress("training", total_steps(trainer), "steps") as progress:
        if args.process_index == 0 and not args.disable_tqdm:
            trainer.add_callback(StepsDone(progress))
        trainer.train(resume_from_checkpoint=str(found.checkpoint.path) if found.checkpoint else None)
    return trainer


def not_about_tied_weights(message: logging.LogRecord) -> bool:
    """GPT-2 stores its head once, as the embedding; Trainer reports its other name missing from the best checkpoint."""
    return "missing keys in the checkpoint model loaded: ['lm_head.weight']" not in message.getMessage()


def say_schedule(trainer: "HeedTrainer", rows: int, say: "Say") -> None:
    args = trainer.args
    parts = args.gradient_accumulation_steps * args.world_size
    tokens = trainer.tokens_per_batch
    batch = f"at most {tokens * parts:,} tokens" if tokens else count(args.train_batch_size * parts, "row")
    micro_batches = len(trainer.get_train_dataloader())
    say(f"steps     {total_steps(trainer)} of {batch}, {trainer.row_batches.steps} an epoch")
    if args.world_size > 1:
        say(f"          the fullest process has {trainer.row_batches.balance():.2f} times the mean of a step's work")
    if args.dataloader_drop_last:
        unseen = rows - micro_batches * args.train_batch_size * args.world_size
        say(f"          {count(unseen, 'row')} of the last, partial batch left out of an epoch (dataloader_drop_last)")
    if not args.load_best_model_at_end:
        say("          the last model is kept, not the best: that needs evaluations and checkpoints")


def total_steps(trainer: "HeedTrainer") -> int:
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


def finish(trainer: "HeedTrainer", plan: "Plan", folder: Path, say: "Say") -> dict[str, Any]:
    """Save the model, prove that it loads, draw the losses; return what goes into run.json."""
    from heed.runs.plots import plot_losses
    from heed.training.callbacks import complete_checkpoint
    from heed.training.preflight import peak_memory
    from heed.training.proof import check_saved_weights, reload_difference

    contract = plan.contract
    # Without the wrapper that makes a bf16 run compute in bf16: what is saved is compared with what is loaded.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    contract.set_stops(model.generation_config)
    trainer.save_whole(folder)
    weights = trainer.gathered_weights()
    state = trainer.state
    if not state.is_world_process_zero:
        return {}
    complete_checkpoint(folder, contract)
    difference = None if weights else reload_difference(model, plan, folder)
    if weights:
        check_saved_weights(weights, plan, folder)
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
