"""A preference training from plan to proof."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heed.config import Settings
from heed.config.dpo import DPO_DEFAULTS, DPO_REFUSED, DpoConfig
from heed.config.reader import CommandLine
from heed.config.settings import Setting
from heed.errors import UserError
from heed.files import run_folder
from heed.runs.sameness import Fingerprint
from heed.training.arguments import Told, read_keys
from heed.training.run import make_callbacks, of_any_run, see_through, write_settings

if TYPE_CHECKING:  # heavy: imported below, once the command line is known to be good
    from transformers import TrainerCallback

    from heed.preferences.plan import PreferencePlan
    from heed.preferences.trainer import PreferenceTrainer
    from heed.runs.start import Start
    from heed.saying import Say
    from heed.training.signals import StopSignals

# Keys of DPOConfig that the weights depend on, besides those of every training.
ARGUMENTS = (
    "loss_type",
    "loss_weights",
    "beta",
    "label_smoothing",
    "ld_alpha",
    "f_divergence_type",
    "f_alpha_divergence_coef",
    "use_weighting",
    "discopop_tau",
    "disable_dropout",
    "router_aux_loss_coef",
)


def read_config(command_line: CommandLine) -> Told[DpoConfig]:
    """What train_dpo.py was told. Raises UserError for keys that are unknown, wrong, or at odds with each other."""
    from heed.preferences.trainer import DPOConfig, offered_losses

    told = read_keys(command_line, DpoConfig, DPOConfig, defaults=DPO_DEFAULTS, refused=DPO_REFUSED)
    told.training["max_length"] = Setting(value=None, source="Heed's own max_length cuts nothing")
    losses, offered = told.settings.get("loss_type"), offered_losses()
    unknown = [name for name in (losses.value if losses else ()) if name not in offered]
    if losses and unknown:
        raise UserError(f"{losses.source}: loss_type: TRL has no {unknown[0]}; it has {', '.join(offered)}")
    dropout = told.settings["lora_dropout"]
    if dropout.set_by_user and dropout.value and told.settings["disable_dropout"].value:
        raise UserError(f"{dropout.source}: lora_dropout has no effect with disable_dropout: true, TRL's default")
    return told


def fingerprint(plan: "PreferencePlan") -> Fingerprint:
    """What decides the numbers of the run, one value for each key."""
    from heed.models.identity import weights_sha256
    from heed.training.fingerprint import global_batch, of_any_training

    dpo, args = plan.dpo, plan.args
    rows = plan.encoded["train"]
    found = {
        "data": plan.pairs.sha256,
        "train_rows": hashlib.sha256(json.dumps(rows["row_id"][:]).encode()).hexdigest()[:16],
        # It is also the reference, which is in no checkpoint, so it can never change in a run.
        "model.frozen": weights_sha256(dpo.model_name_or_path, dpo.model_revision),
        "global_batch": global_batch(args, None),
        **{name: getattr(args, name) for name in ARGUMENTS},
        "dtype": dpo.dtype,
        "max_length": dpo.max_length,
        "on_long_row": dpo.on_long_row,
    }
    return of_any_training(found, dpo, args, plan.prompt, plan.model)


def train(
    plan: "PreferencePlan",
    found: "Start",
    facts: Fingerprint,
    callbacks: "Sequence[TrainerCallback]",
    signals: "StopSignals",
    queued: int,
    say: "Say",
) -> "PreferenceTrainer":
    """Run the training; afterwards the trainer has the best saved model, or the last one if none was scored."""
    from heed.preferences.trainer import make_trainer
    from heed.training.callbacks import complete_checkpoint
    from heed.training.signals import GracefulStop

    args, folder = plan.args, Path(str(plan.args.output_dir))
    trainer = make_trainer(
        fresh_adapter=plan.fresh_adapter,
        model=plan.model,
        ref_model=plan.reference,
        args=args,
        train_dataset=plan.encoded["train"],
        eval_dataset=plan.encoded["validation"] if args.eval_strategy != "no" else None,
        processing_class=plan.tokenizer,
        callbacks=[*make_callbacks(plan.dpo, args, folder, say), *callbacks],
        stop=GracefulStop(signals),
        facts={"fingerprint": facts},
        complete=lambda staged: complete_checkpoint(staged, plan.contract),
        say=say,
    )
    see_through(trainer, found, [], queued, say)
    return trainer


def begin(plan: "PreferencePlan", settings: Settings, folder: Path) -> dict[str, Any]:
    """Write down what goes into the run, and return the part of it for run.json."""
    from heed.data.splits import row_ids

    dpo, pairs = plan.dpo, plan.pairs
    if plan.args.process_index == 0:
        write_settings(settings, folder)
        run_folder.write_json(folder / run_folder.SPLITS_FILE, row_ids(plan.splits))
        if pairs.rejected:
            lines = [dataclasses.asdict(each) for each in pairs.rejected]
            run_folder.write_lines(folder / run_folder.REJECTED_FILE, lines)
    return of_any_run(dpo, plan.args, plan.model) | {
        "versions": run_folder.versions() | {"trl": metadata.version("trl")},
        "prompt": plan.prompt.name,
        "data": {
            "source": dpo.pairs,
            "format": "pairs",
            "rows": len(pairs.pairs),
            "rejected": len(pairs.rejected),
            "ignored_fields": pairs.ignored_fields,
            "prepared": None,
            "rows_sha256": pairs.sha256,
            "files": pairs.files,
        },
        "audit": None,
        "splits": {name: len(records) for name, records in plan.splits.items()},
        "encoded": plan.counts,
    }
