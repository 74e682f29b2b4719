"""Tune a model further on which of two answers people preferred, with TRL's DPOTrainer.

    python arena.py pairs --votes votes.jsonl --out pairs.jsonl
    python train_dpo.py --config configs/dpo.yaml
    accelerate launch train_dpo.py --config configs/dpo.yaml --beta 0.05
    python train_dpo.py --config configs/dpo.yaml --dry-run     everything up to step 0, and a look at three pairs
    python train_dpo.py --config configs/dpo.yaml --explain     each value and where it came from

A run that was killed or preempted continues when the same command is given again; one that is done says so.

Every name of trl.DPOConfig is a key too (beta, loss_type, learning_rate, max_steps, save_steps, ...).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from heed import config
from heed.commands import run_script
from heed.config import Settings
from heed.config.dpo import DPO_BEGINNERS, DPO_GROUPS, DpoConfig
from heed.errors import UserError

if TYPE_CHECKING:  # heavy: imported below, once the command line is known to be good
    from heed.preferences.plan import PreferencePlan


def main(arguments: Sequence[str]) -> None:
    if config.asks_for_help(arguments):
        word = config.searched_word(arguments)
        print(config.help_text(DpoConfig, __doc__ or "", word=word, groups=DPO_GROUPS, beginners=DPO_BEGINNERS))
        return
    command_line = config.parse_command_line(arguments, flags=("dry_run", "explain", "verbose"))
    from heed.course import Kind, run_course
    from heed.preferences.plan import make_plan
    from heed.preferences.run import begin, fingerprint, read_config, train

    told = read_config(command_line)
    if command_line.explain:
        print(config.explain(told.settings))
        return
    kind = Kind(make_plan=make_plan, refuse=refuse_idle, fingerprint=fingerprint, begin=begin, train=train)
    run_course(told, kind, dry_run=command_line.dry_run, verbose=command_line.verbose)


def refuse_idle(plan: "PreferencePlan", settings: Settings) -> None:
    """Raises UserError for a comparison that has no rows to be made on."""
    from heed.runs.finished import set_aside

    if not plan.dpo.compare_with_base:
        return
    if plan.run is None:
        raise UserError(
            f"compare_with_base: {plan.dpo.model_name_or_path} has no run folder here that knows its test rows; leave "
            "it out, and compare afterwards with eval_responses.py --data FILE --compare_with MODEL"
        )
    set_aside(plan.run, "test")


if __name__ == "__main__":
    run_script(main)
