"""Fine-tune a causal language model on instructions, from one config.

    python train_sft.py --config configs/tiny.yaml
    accelerate launch train_sft.py --config configs/gpt2_medium.yaml --learning_rate 2e-5
    python train_sft.py --config configs/tiny.yaml --data my_rows.json --output_dir runs/mine
    python train_sft.py --config configs/tiny.yaml --dry-run     everything up to step 0, and a look at three rows
    python train_sft.py --config configs/tiny.yaml --explain     each value and where it came from
    python train_sft.py --config configs/tiny.yaml --verbose     also why it is fast or not, and what was tried before
    python train_sft.py --config configs/tiny.yaml --seeds 0,1,2          three runs in output_dir/seed-N, compared
    python train_sft.py --config configs/tiny.yaml --learning-curve 5     what more rows would bring
    python train_sft.py --config my.yaml --prepared my_set --prepare    tokenize once; later runs map my_set into memory

A run that was killed or preempted continues when the same command is given again; one that is done says so.

Every name of transformers.TrainingArguments is a key too (learning_rate, max_steps, save_steps, bf16, ...).
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from heed import config
from heed.commands import run_script
from heed.config import Settings, SftConfig
from heed.config.sft import BEGINNERS, GROUPS
from heed.errors import UserError
from heed.training.arguments import Told, read_config

if TYPE_CHECKING:  # heavy: imported below, once the command line is known to be good
    from heed.training.plan import Plan


FIRST_COMMAND = """A model of your own from a CSV, in minutes and without a network:

    python train_sft.py --config configs/csv.yaml --data my_rows.csv --output_dir runs/mine

my_rows.csv has a header (instruction,output or question,answer) and a row for each question with its answer. At the end
runs/mine/report.html says how many questions that were held out it answers right.

    python inspect_data.py --config configs/csv.yaml --data my_rows.csv     looks at the rows first
    python train_sft.py --help                                               all keys; --help WORD those about a word"""


def main(arguments: Sequence[str]) -> None:
    if not arguments:
        print(FIRST_COMMAND)
        return
    if config.asks_for_help(arguments):
        word = config.searched_word(arguments)
        print(config.help_text(SftConfig, __doc__ or "", word=word, groups=GROUPS, beginners=BEGINNERS))
        return
    command_line = config.parse_command_line(arguments, flags=("dry_run", "explain", "prepare", "verbose"))
    told = read_config(command_line)
    if command_line.explain:
        print(config.explain(told.settings))
    elif command_line.prepare:
        prepare(told.ours, dry_run=command_line.dry_run)
    elif told.ours.seeds or told.ours.learning_curve:
        train_several(told, command_line)
    else:
        train_and_compare(told, dry_run=command_line.dry_run, verbose=command_line.verbose)


def train_several(told: Told[SftConfig], command_line: config.CommandLine) -> None:
    """A run for each seed and share, one after the other, and a page that compares them.

    Given again, finished runs are not made again. A dry run is one of the first.
    """
    from heed.study import compare_runs
    from heed.training.variants import variants

    first = os.environ.get("RANK", "0") == "0"  # as the launcher says: the processes have not met yet
    runs = variants(told, command_line)
    for place, run in enumerate(runs, 1):
        own = read_config(run.command_line)
        if first:
            print(f"\nrun {place} of {len(runs)}: {run.folder}")
        train_and_compare(own, dry_run=command_line.dry_run, verbose=command_line.verbose)
        if command_line.dry_run:
            return
    if first:
        compare_runs([run.folder for run in runs], Path(told.settings["output_dir"].value), None, link=True)


def train_and_compare(told: Told[SftConfig], *, dry_run: bool, verbose: bool) -> None:
    from heed.course import Kind, run_course
    from heed.training.fingerprint import fingerprint
    from heed.training.plan import make_plan
    from heed.training.run import begin, train

    kind = Kind(make_plan=make_plan, refuse=refuse_idle, fingerprint=fingerprint, begin=begin, train=train)
    run_course(told, kind, dry_run=dry_run, verbose=verbose)


def refuse_idle(plan: "Plan", settings: Settings) -> None:
    """Raises UserError for keys that have no effect with these rows, which nobody knew before they were read."""
    from heed.data.reading import splitting

    if plan.sft.compare_with_base and not plan.splits["test"]:
        raise UserError("compare_with_base: there are no test rows to answer; give some with data or split_shares")
    if plan.sft.prepared is None:
        named = {record.source_split for record in plan.reading.rows.records} - {None}
        how = splitting(plan.sft, named)["how"]
        config.refuse_unread(SftConfig, settings | {"split": replace(settings["data"], value=how)})
    samples = settings["sample_max_new_tokens"]
    if samples.set_by_user and samples.value and not plan.splits["validation"]:
        raise UserError(
            f"{samples.source}: sample_max_new_tokens: {samples.value}, and there is no validation row to answer; "
            "leave it out, or set it to 0"
        )


def prepare(sft: SftConfig, *, dry_run: bool) -> None:
    """`--prepare`: once, on one machine without a GPU, what any number of runs then map into memory."""
    from heed.training.plan import prepare
    from heed.workers import what_is_here_stays

    if dry_run:
        raise UserError("--prepare --dry-run: one writes a set, the other nothing; leave one out")
    if sft.prepared is None:
        raise UserError("--prepare: say with prepared: FOLDER where the tokenized set is to be written")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("--prepare: start it as one process, without a launcher; num_proc says how many tokenize")
    what_is_here_stays()
    prepare(sft, print)


if __name__ == "__main__":
    run_script(main)
