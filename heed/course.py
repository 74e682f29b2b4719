"""The course of any training: plan, begin, train, compare, push. Given again, it does what is left undone."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainingArguments

from heed import __version__, config
from heed.config import EvalConfig, Settings
from heed.config.training import RunKeys
from heed.files import run_folder
from heed.hub.outbox import command, waiting
from heed.models.identity import read_ahead
from heed.runs.sameness import Fingerprint
from heed.runs.start import check_folder
from heed.runs.state import add_facts
from heed.saying import Detail, Say, count
from heed.training.arguments import Told
from heed.training.run import begun, check_processes, meet, train_to_the_end
from heed.training.safe import SafeTrainer

if TYPE_CHECKING:  # imported below by runs that push or compare: no other start waits for a card and a report
    from heed.hub.training import Pushes


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What differs between trainings on examples and on preferences. A plan has a `preview`."""

    make_plan: Callable[[Any, Any, Say], Any]
    refuse: Callable[[Any, Settings], None]
    """Raises UserError for keys that have no effect, or cannot be followed, with this plan."""
    fingerprint: Callable[[Any], Fingerprint]
    begin: Callable[[Any, Settings, Path], dict[str, Any]]
    train: Callable[..., SafeTrainer]


def run_course(told: Told[Any], kind: Kind, *, dry_run: bool, verbose: bool) -> None:
    ours: RunKeys = told.ours
    config.refuse_unread(type(ours), told.settings)
    args, say = meet(told, verbose=verbose)
    folder = Path(str(args.output_dir))
    if not dry_run:
        check_folder(folder, resume=ours.resume, overwrite=ours.overwrite_output_dir)
        read_ahead(str(told.settings["model_name_or_path"].value))
    say(f"Heed {__version__}: {count(args.world_size, 'process', 'processes')} on {args.device.type}")
    say(Detail(f"          {told.precision}"))
    pushes = open_pushes(ours, args, say)
    plan = kind.make_plan(ours, args, say)
    comparison = comparison_with_base(ours, folder)
    kind.refuse(plan, told.settings)
    if dry_run:
        say("")
        say(plan.preview)
        say("\ndry run: nothing was trained, nothing was written")
        return

    facts = kind.fingerprint(plan)
    check_processes(ours, facts)
    with begun(ours, args, facts, say) as found:
        if found.done:
            left = comparison is not None and not is_compared(folder)
            rest = "trained, and not compared yet" if left else "finished; overwrite_output_dir: true starts over"
            say(f"done      {folder} is {rest}")
        else:
            queued = pushes.settings.queued if pushes is not None else 0
            watching = [pushes] if pushes is not None else []
            train_to_the_end(kind, plan, told.settings, found, facts, watching, queued, say)
    del plan  # the models that answer need the memory
    if args.process_index == 0:
        finish_the_rest(folder, comparison, pushes, trained=not found.done, say=say)


def comparison_with_base(run: RunKeys, folder: Path) -> EvalConfig | None:
    """The config of eval_responses.py at the end."""
    if not run.compare_with_base:
        return None
    if run.forgetting is not None:
        from heed.evaluation.forgetting import read_texts

        read_texts(Path(run.forgetting), lambda text: None)  # now, not after hours of training
    max_new_tokens = run.compare_max_new_tokens
    return EvalConfig(model_name_or_path=str(folder), compare_with_base=True, max_new_tokens=max_new_tokens)


def finish_the_rest(
    folder: Path, comparison: EvalConfig | None, pushes: "Pushes | None", *, trained: bool, say: Say
) -> None:
    """The comparison, and last the push, so that the card has the comparison; unless an earlier start has done them."""
    compares = comparison is not None and (trained or not is_compared(folder))
    try:
        if comparison is not None and compares:
            from heed.evaluation.run import evaluate

            evaluate(comparison, say=say)
    finally:
        if pushes is not None and (trained or compares or not is_queued(folder, pushes)):
            pushes.finish()
            add_facts(folder, queued_for=pushes.address)
        elif waiting(folder):
            say(f"          not all of it is on the Hub yet: {command(folder)}")


def is_compared(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (run_folder.COMPARISON_FILE, run_folder.REPORT_FILE))


def is_queued(folder: Path, pushes: "Pushes") -> bool:
    return bool(run_folder.read_json(folder / run_folder.RUN_FILE).get("queued_for") == pushes.address)


def open_pushes(run: RunKeys, args: TrainingArguments, say: Say) -> "Pushes | None":
    """None for a run that is not pushed, and for all processes but the first."""
    if not run.push_to_hub:
        return None
    from heed.hub.training import Pushes, hub_settings

    settings = hub_settings(run, args)
    if args.process_index > 0:
        return None
    pushes = Pushes(Path(str(args.output_dir)), settings, say)
    pushes.outbox.check()
    return pushes
