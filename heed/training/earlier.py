"""What an earlier start of the same training measured before its first step, so that the next one need not wait for it.

The losses before step 1, and whether a step with the longest rows fits into memory, depend on rows, weights, arithmetic
and machine alone; with GPT-2 small on a CPU they take minutes. A start with another learning rate knows them too.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import torch
import torch.distributed as dist

from heed import __version__
from heed.errors import UserError
from heed.files import run_folder
from heed.files.hashes import json_sha256
from heed.hardware import describe
from heed.processes import from_first
from heed.runs.sameness import Fingerprint
from heed.tokens.examples import column

if TYPE_CHECKING:
    from heed.training.plan import Plan

VERSION = 1  # of what is measured and how
LONG = 2.0  # seconds; what took less is measured again
# What only the steps depend on, and what is only written down.
LATER = (
    *("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "weight_decay", "max_grad_norm"),
    *("adam_beta1", "adam_beta2", "adam_epsilon", "num_train_epochs", "max_steps", "data_seed", "optim_args"),
    *("output_dir", "run_name", "report_to", "logging_steps", "logging_strategy", "disable_tqdm", "eval_steps"),
    *("save_steps", "save_strategy", "save_total_limit", "save_only_model", "load_best_model_at_end"),
)


@dataclass(frozen=True)
class Earlier:
    """A file beside the kept ids; absent before the first start."""

    path: Path

    def known(self, name: str) -> dict[str, Any] | None:
        """Called by all processes, and the same for all."""
        return from_first(lambda: self.read().get(name))

    def keep(self, name: str, found: dict[str, Any], seconds: float) -> None:
        if seconds >= LONG and (not dist.is_initialized() or dist.get_rank() == 0):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            run_folder.write_json(self.path, self.read() | {name: found})

    def read(self) -> dict[str, Any]:
        """A damaged file counts as none."""
        try:
            found: dict[str, Any] = run_folder.read_json(self.path)
        except UserError:
            return {}
        return found


def earlier_start(plan: "Plan", facts: Fingerprint) -> Earlier:
    """Known by a hash of everything that a loss before step 1, or the memory of a step, depends on."""
    args = plan.args
    held_out = plan.encoded.get("validation")
    parts = [
        (VERSION, __version__, run_folder.versions(), describe(args.device), args.world_size, torch.get_num_threads()),
        {name: value for name, value in (facts | args.to_sanitized_dict()).items() if name not in LATER},
        (plan.samples, plan.speed.mode, plan.sft.attn_implementation, plan.validation_sets),
        column(held_out.dataset, "row_id").tolist() if held_out is not None else [],
    ]
    key = json_sha256(json.loads(json.dumps(parts, default=str)))
    return Earlier(Path(datasets.config.HF_DATASETS_CACHE) / "heed" / f"start-{key}.json")
