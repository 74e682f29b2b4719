"""Fine-tune a causal language model on instructions, from one config.

    python train_sft.py --config configs/tiny.yaml
    accelerate launch train_sft.py --config configs/gpt2_medium.yaml --learning_rate 2e-5
    python train_sft.py --config configs/tiny.yaml --data my_rows.json --output_dir runs/mine
    python train_sft.py --config configs/tiny.yaml --dry-run     everything up to step 0, and a look at three rows
    python train_sft.py --config configs/tiny.yaml --explain     each value and where it came from
    python train_sft.py --config my.yaml --prepared my_set --prepare    tokenize once; later runs map my_set into memory

A run that was killed or preempted goes on when the same command is given again; one that is done says so.

Every name of transformers.TrainingArguments is a key too (learning_rate, max_steps, save_steps, bf16, ...).
"""

import dataclasses
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from heed import __version__, config
from heed.config import EvalConfig, Settings, SftConfig
from heed.errors import UserError, exit_code
from heed.files import run_folder
from heed.training.run import begin, finish, make_callbacks, recorded, train, training_arguments

if TYPE_CHECKING:  # heavy: imported below, once the command line is known to be good
    from heed.saying import Say
    from heed.training.plan import Plan


def main(arguments: Sequence[str]) -> None:
    if config.asks_for_help(arguments):
        print(config.help_text(SftConfig, __doc__ or ""))
        return
    command_line = config.parse_command_line(arguments, flags=("dry_run", "explain", "prepare"))
    sft, training, settings, precision = read_config(command_line)
    if command_line.explain:
        print(config.explain(settings))
        return
    if command_line.prepare:
        if command_line.dry_run:
            raise UserError("--prepare --dry-run: one writes a set, the other nothing; leave one out")
        prepare(sft)
        return
    config.refuse_unread(SftConfig, settings)

    from tqdm.auto import tqdm

    from heed.processes import check_alike, check_launch, from_first
    from heed.training.signals import StopSignals, die_with_launcher

    die_with_launcher()
    check_launch(sft.processes)
    args = training_arguments(training)
    say: Say = tqdm.write if args.process_index == 0 else silent  # print would go on behind a progress bar
    folder = Path(str(args.output_dir))

    from heed.files.lock import locked
    from heed.hub.outbox import command, waiting
    from heed.hub.training import Pushes, hub_settings
    from heed.runs import start
    from heed.runs.sameness import refuse_unknown
    from heed.training.fingerprint import fingerprint
    from heed.training.plan import make_plan

    resume, overwrite, allowed = sft.resume, sft.overwrite_output_dir, sft.allow_changed
    if not command_line.dry_run:
        start.check_folder(folder, resume=resume, overwrite=overwrite)
    say(f"Heed {__version__}: {args.world_size} process(es) on {args.device.type}, {precision}")
    hub = hub_settings(sft, args)
    pushes = Pushes(folder, hub, say) if hub is not None and args.process_index == 0 else None
    if pushes is not None:
        pushes.outbox.check()
    plan = make_plan(sft, args, say)
    comparison = comparison_with_base(plan, folder)
    callbacks = [*make_callbacks(plan, folder), *([pushes] if pushes is not None else [])]
    refuse_idle(plan, settings)
    if command_line.dry_run:
        say(f"\n{plan.preview}\n\ndry run: nothing was trained, nothing was written")
        return

    facts = fingerprint(plan)
    refuse_unknown(allowed, facts)
    check_alike(facts | run_folder.versions())
    with ExitStack() as held:

        def begin_here() -> start.Start:
            run_folder.make_folder(folder)
            held.enter_context(locked(folder, say))
            return start.find_start(
                folder, facts, resume=resume, overwrite=overwrite, allowed=allowed, world=args.world_size, say=say
            )

        found = from_first(begin_here)
        if found.done:
            say(f"done      {folder} is finished; overwrite_output_dir: true starts over")
            if waiting(folder):
                say(f"          not all of it is on the Hub yet: {command(folder)}")
        else:
            signals = held.enter_context(StopSignals())
            known = {"fingerprint": facts} | begin(plan, settings, folder)
            with recorded(folder, found, known, writes=args.process_index == 0) as (record, state):
                queued = hub.queued if hub is not None else 0
                trainer = train(
                    plan, found, facts, [*callbacks, state], signals, queued, say, rehearse=sft.preflight == "full"
                )
                record |= finish(trainer, plan, folder, say)
                del trainer
    del plan, callbacks  # the two models that answer need the memory
    try:
        if comparison is not None and args.process_index == 0 and not (found.done and is_compared(folder)):
            from heed.evaluation.run import evaluate

            evaluate(comparison, say=say)
    finally:
        if pushes is not None and not found.done:
            pushes.finish()  # last, so that the card has the comparison


def refuse_idle(plan: "Plan", settings: Settings) -> None:
    """Raises UserError for keys that have no effect with these rows, which nobody knew before they were read."""
    from heed.data.reading import parted

    if plan.sft.prepared is None:
        named = {record.source_split for record in plan.reading.rows.records} - {None}
        how = parted(plan.sft, named)["how"]
        config.refuse_unread(SftConfig, settings | {"split": config.Setting(value=how, source="follows data")})
    samples = settings["sample_max_new_tokens"]
    if samples.set_by_user and samples.value and not plan.splits["validation"]:
        raise UserError(f"{samples.source}: sample_max_new_tokens is set, and there is no validation row to answer")


def comparison_with_base(plan: "Plan", folder: Path) -> EvalConfig | None:
    """What eval_responses.py is told at the end. Raises UserError when there is nothing to ask."""
    if not plan.sft.compare_with_base:
        return None
    if not plan.splits["test"]:
        raise UserError("compare_with_base: there are no test rows to answer; give some with data or split_shares")
    max_new_tokens = plan.sft.compare_max_new_tokens
    return EvalConfig(model_name_or_path=str(folder), compare_with_base=True, max_new_tokens=max_new_tokens)


def is_compared(folder: Path) -> bool:
    return (folder / run_folder.COMPARISON_FILE).is_file()


def prepare(sft: SftConfig) -> None:
    """`--prepare`: once, on one machine without a GPU, what any number of runs then map into memory."""
    from heed.training.plan import prepare

    if sft.prepared is None:
        raise UserError("--prepare: say with prepared: FOLDER where the tokenized set is to be written")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("--prepare: start it as one process, without a launcher; num_proc says how many tokenize")
    prepare(sft, print)


def silent(text: str) -> None:
    """What processes other than the first one say."""


def read_config(command_line: config.CommandLine) -> tuple[SftConfig, Settings, Settings, str]:
    """The script's keys, those of TrainingArguments, both together with the source of each value, and what is
    computed with and why."""
    import torch
    from transformers import TrainingArguments

    from heed.training.speed import choose_precision

    own = config.field_types(SftConfig)  # some have the name of one of TrainingArguments, and take its place
    training_types = {name: kind for name, kind in config.field_types(TrainingArguments).items() if name not in own}
    settings = config.read_settings(command_line, own | training_types)
    sft = config.script_config(SftConfig, settings)
    if "output_dir" not in settings:
        raise UserError("output_dir is missing (the folder of this run); set it in --config or as --output_dir")
    training = config.training_settings(settings, training_types)
    config.refuse_both(settings, "tokens_per_batch", "per_device_train_batch_size")
    if not torch.accelerator.is_available():
        for name, value in (("dataloader_pin_memory", False), ("use_cpu", True)):
            training.setdefault(name, config.Setting(value=value, source="follows the device: no accelerator"))
    config.derive_accumulation(sft.global_batch_size, settings, training, int(os.environ.get("WORLD_SIZE", "1")))
    precision = choose_precision(training, weights=sft.dtype)
    config.check_launcher(training)
    defaults = {
        item.name: config.Setting(value=item.default, source="default")
        for item in dataclasses.fields(TrainingArguments)
        if item.name in training_types and item.default is not dataclasses.MISSING
    }
    return sft, training, config.resolved_values(sft, settings) | defaults | training, precision


if __name__ == "__main__":
    # OpenMP threads that wait should sleep: spinning ones make a machine with other work many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
