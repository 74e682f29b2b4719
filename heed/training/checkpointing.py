"""Checkpoints of any transformers Trainer, whole or absent: a crash, a kill or a full disk spares earlier ones."""

import shutil
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainingArguments

from heed import processes
from heed.errors import Stopped, UserError, reason_of
from heed.files import run_folder
from heed.runs import checkpoints
from heed.runs.checkpoints import STAGING
from heed.saying import Say
from heed.training.signals import GracefulStop

# What TrainingArguments set in each parameter group of an optimizer.
FROM_ARGUMENTS = ("lr", "initial_lr", "weight_decay", "betas", "eps")


class WholeCheckpoints(Trainer):
    """A mixin: `class MyTrainer(WholeCheckpoints, TheirTrainer)`.

    Trainer writes each checkpoint into a staging folder. When all processes have written, the first one seals it with
    the hash of every file, gives it its name, and only then deletes older ones. No method here is a documented hook;
    each says what it fixes.
    """

    model: Any

    def __init__(
        self,
        *,
        args: TrainingArguments,
        stop: GracefulStop | None = None,
        facts: Mapping[str, Any] | None = None,
        complete: Callable[[Path], None] = lambda folder: None,
        say: Say = print,
        **kwargs: Any,
    ) -> None:
        """`facts` go into the manifest of every checkpoint; `complete` is given its folder before that is written."""
        args = copy(args)
        # Trainer would delete before it knows that the new checkpoint is whole.
        self.keep_checkpoints, args.save_total_limit = args.save_total_limit, None
        self.facts, self.complete, self.say = dict(facts or {}), complete, say
        self.staging = False
        super().__init__(args=args, **kwargs)
        self.stop = stop
        if stop is not None:
            self.add_callback(stop)

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trainer's training. Raises UserError for a checkpoint with more than tensors."""
        try:
            result = super().train(resume_from_checkpoint, *args, **kwargs)
            show_learned(self.optimizer)
            return result
        except UnpicklingError as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"the checkpoint contains more than tensors, so it is not loaded: {reason}") from error
        except Stopped:  # whoever keeps a file open closes it
            self.callback_handler.on_train_end(self.args, self.state, self.control)
            raise

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Only a model that is being saved can be the best one, and only if it is not saved because of a signal.

        Trainer also counts evaluations between two checkpoints, remembers a step that has no checkpoint as the best,
        and then loads an older, worse one at the end.
        """
        planned = self.control.should_save and not (self.stop is not None and self.stop.unplanned)
        return planned and super()._determine_best_metric(metrics, trial)

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return str(Path(folder) / STAGING) if self.staging else folder

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Raises UserError in all processes when one of them fails; earlier checkpoints are left as they are."""
        run = Path(str(self.args.output_dir))
        staged = run / STAGING / f"checkpoint-{self.state.global_step}"
        best = self.state.best_global_step
        if self.args.should_save:
            shutil.rmtree(run / STAGING, ignore_errors=True)
        processes.largest(0)  # nobody writes before the folder is empty

        def write() -> None:
            show_learned(self.optimizer)
            super(WholeCheckpoints, self)._save_checkpoint(model, trial)

        def finish() -> None:
            self.know_best(best)
            if self.args.should_save:
                self.state.save_to_json(str(staged / "trainer_state.json"))
                self.seal(staged)
                checkpoints.rotate(run, keep=self.keep_checkpoints, best=best)
                shutil.rmtree(run / STAGING)

        self.staging = True
        # With a best step Trainer makes all processes wait midway, even for one that has failed.
        self.state.best_global_step = None
        try:
            for part in (write, finish):
                problems = processes.gathered(attempt(part))
                problem = next(filter(None, problems), "")
                if problem:
                    raise UserError(self.not_written(staged, problem))
        finally:
            self.staging = False
            self.know_best(best)

    def know_best(self, step: int | None) -> None:
        """Trainer looks for the best checkpoint beside the one being written, which is still in the staging folder."""
        self.state.best_global_step = step
        path = Path(str(self.args.output_dir)) / f"checkpoint-{step}"
        if step == self.state.global_step or path.is_dir():
            self.state.best_model_checkpoint = str(path)

    def seal(self, staged: Path) -> None:
        self.complete(staged)
        if not self.args.save_only_model:
            missing = [name for name in self.random_state_files() if not (staged / name).is_file()]
            if missing:
                raise OSError(f"{missing[0]} did not arrive; all nodes must share output_dir")
        facts = {
            "step": self.state.global_step,
            "processes": self.args.world_size,
            "resumable": not self.args.save_only_model,
            "written": run_folder.now(),
            "versions": run_folder.versions(),
        }
        checkpoints.write_manifest(staged, facts | self.facts)
        checkpoints.publish(staged, staged.parent.parent / staged.name)

    def random_state_files(self) -> list[str]:
        world = self.args.world_size
        return ["rng_state.pth"] if world == 1 else [f"rng_state_{process}.pth" for process in range(world)]

    def not_written(self, staged: Path, problem: str) -> str:
        run = staged.parent.parent
        free = shutil.disk_usage(run).free
        if self.args.should_save:
            shutil.rmtree(run / STAGING, ignore_errors=True)
        found = [path.name for path in checkpoints.checkpoints(run)]
        kept = f"{found[-1]} is whole" if found else "there is no earlier one"
        return (
            f"{staged.name} could not be written to {run} ({free / 2**20:,.1f} MiB were free): {problem}; {kept}. Free "
            "what is short, and the same command continues from there"
        )

    def _save_rng_state(self, output_dir: str) -> None:
        """Also saves the loss since the last log, so that the next loss logged after resuming covers the same steps."""
        super()._save_rng_state(output_dir)
        run_folder.write_json(Path(output_dir) / self.unlogged_file, self.unlogged())

    def unlogged(self) -> dict[str, Any]:
        """What was summed up since the last log."""
        return {"loss": float(self._tr_loss), "since": self._globalstep_last_logged}

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Called in a resumed run before its first step."""
        super()._load_rng_state(checkpoint)
        path = Path(str(checkpoint)) / self.unlogged_file
        if checkpoint is not None and path.is_file():
            self.sum_on(run_folder.read_json(path))

    def sum_on(self, unlogged: dict[str, Any]) -> None:
        """Continue from what `unlogged` said."""
        self._tr_loss += unlogged["loss"]
        self._globalstep_last_logged = unlogged["since"]

    @property
    def unlogged_file(self) -> str:
        return f"unlogged_{self.args.process_index}_of_{self.args.world_size}.json"

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Then set what the arguments say: the checkpoint must not overrule a learning rate changed on purpose.

        Progress that optimizers keep beside these (schedule-free ones their steps) stays the checkpoint's."""
        groups = [{name: group[name] for name in FROM_ARGUMENTS if name in group} for group in self.param_groups]
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or not isinstance(self.lr_scheduler, LambdaLR):
            return
        for group, fresh in zip(self.param_groups, groups, strict=True):
            if group["initial_lr"] != fresh["initial_lr"]:
                fresh["lr"] = group["lr"] / group["initial_lr"] * fresh["initial_lr"]
            else:
                fresh.pop("lr")
            group.update(fresh)
        self.lr_scheduler.base_lrs = [group["initial_lr"] for group in self.param_groups]
        self.lr_scheduler._last_lr = [group["lr"] for group in self.param_groups]  # what is logged

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        optimizer: Any = self.optimizer
        groups: list[dict[str, Any]] = optimizer.param_groups
        return groups

    def _load_best_model(self) -> None:
        """Keep the last model instead, and say so, when the best one's files are not as they were written."""
        best = str(self.state.best_model_checkpoint)

        def flaw() -> str:
            try:
                checkpoints.verify(Path(best))
            except UserError as error:
                return str(error)
            return ""

        problem = processes.from_first(flaw)
        if problem:
            self.say(f"WARNING: the best model cannot be loaded, so the last one is kept: {problem}")
            self.state.best_model_checkpoint = self.state.best_global_step = self.state.best_metric = None
            return
        show_learned(self.optimizer)  # before the load: it computes with the present weights
        super()._load_best_model()

    # ---- the final model

    def save_whole(self, folder: Path) -> None:
        """Save the model as one folder that from_pretrained reads, even when each process has a part of it."""
        if self.is_fsdp_enabled:  # checkpoints are shards; Trainer would write no model, and say nothing
            self.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        self.save_model(str(folder))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Not a documented hook. Gathered weights contain a tied one twice, as two tensors; it is saved once."""
        if state_dict is not None:
            names = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
            twice = names - {name for name, _ in self.model.named_parameters()}
            state_dict = {name: tensor for name, tensor in state_dict.items() if name not in twice}
        super()._save(output_dir, state_dict)

    def gathered_weights(self) -> dict[str, torch.Tensor]:
        """All weights by name when processes have parts of them; empty when each has the whole model.

        Called by all processes; the first one gets them.
        """
        if self.accelerator.distributed_type in processes.PLAIN:
            return {}
        found: dict[str, torch.Tensor] = self.accelerator.get_state_dict(self.model_wrapped)
        return found


def show_learned(optimizer: Any) -> None:
    """Switch a schedule-free optimizer from the weights it trains to those it has learned, to evaluate or save them.

    The next step switches back (Trainer.training_step). Trainer itself switches only before it evaluates, and so saves
    the wrong weights in a run without evaluations.
    """
    if callable(switch := getattr(optimizer, "eval", None)):
        switch()


def attempt(function: Callable[[], None]) -> str:
    """What went wrong; empty when nothing did."""
    try:
        function()
    except (OSError, RuntimeError, MemoryError, SafetensorError) as error:
        return f"{type(error).__name__}: {reason_of(error)}"
    return ""
