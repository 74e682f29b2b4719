"""HeedTrainer: transformers' Trainer with a loss and an evaluation that mean the same at any batch size, and fast."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import copy
from functools import cached_property
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import DistributedType, gather_object
from safetensors import SafetensorError
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from heed import processes
from heed.errors import Stopped, UserError
from heed.files import run_folder
from heed.models.attention import flat_rows
from heed.models.faster import compiled_blocks, fused_gelu, sparse_embedding_gradient
from heed.models.likelihood import row_scores, target_nll
from heed.models.memory import BatchSize, KeptMemory, forward_bytes, free_memory, rows_that_fit
from heed.runs import checkpoints
from heed.runs.checkpoints import STAGING
from heed.runs.recorder import RowLosses, StepRows, step_rows
from heed.saying import Say
from heed.tokens.batches import Batch, FlatCollator, supervised_tokens
from heed.tokens.examples import column, row_lengths
from heed.tokens.order import RowBatches, row_batches
from heed.training.finite import FiniteGuard, NotFinite
from heed.training.graphs import StepGraphs
from heed.training.signals import GracefulStop
from heed.training.speed import SpeedChoice

EAGER = SpeedChoice("eager", "the plain way")
PLAIN = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)  # gradients are whole tensors


def token_mean_loss(nll: torch.Tensor, weights: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
    """The sum over supervised tokens divided by their number in the global batch (`num_items_in_batch`).

    They are counted over all micro-batches and processes of one optimizer step, so accumulation and world size cannot
    change the loss. (A mean of means would: huggingface/transformers#35203.)
    """
    loss = (nll * weights).sum() / num_items_in_batch
    # A factor of exactly 1, but NaN where the loss is not finite: an infinite loss may have a finite gradient, which
    # one process would pass on to all, and the guard looks at gradients only.
    return loss * (1 + 0 * loss.detach())


class HeedTrainer(Trainer):
    """Touches documented hooks only, except where a comment says why.

    `data_collator` decides how batches look (`batches.FlatCollator`, `batches.PaddingCollator`); with
    `tokens_per_batch` a micro-batch is as many rows as have at most that many tokens, else
    `per_device_train_batch_size` rows. Between log steps nothing here or in Trainer waits for the device.
    """

    model: Any
    train_dataset: Any
    eval_dataset: Any
    data_collator: Any
    row_batches: RowBatches

    def __init__(
        self,
        *,
        tokens_per_batch: int | None = None,
        speed: SpeedChoice = EAGER,
        stop: GracefulStop | None = None,
        row_losses: RowLosses | None = None,
        facts: Mapping[str, Any] | None = None,
        complete: Callable[[Path], None] = lambda folder: None,
        say: Say = print,
        **kwargs: Any,
    ) -> None:
        """`facts` go into the manifest of every checkpoint; `complete` is given its folder before that is written."""
        args = copy(kwargs.pop("args"))
        # Trainer would delete before it knows that the new checkpoint is whole.
        self.keep_checkpoints, args.save_total_limit = args.save_total_limit, None
        super().__init__(args=args, compute_loss_func=token_mean_loss, **kwargs)  # tells Trainer: the loss is scaled
        self.tokens_per_batch = tokens_per_batch
        self.stop, self.row_losses = stop, row_losses
        self.facts, self.complete = dict(facts or {}), complete
        self.staging = self.resumed = False
        if stop is not None:
            self.add_callback(stop)
        self.speed, self.say = speed, say
        self.eval_collator = self.data_collator.for_evaluation()
        self.eos_token_id: int = self.data_collator.pad_token_id  # padding is EOS
        self.eval_rows = BatchSize(
            self.args.eval_batch_size, key="per_device_eval_batch_size", relief="lower max_length", say=say
        )
        self.tokens_since_stored: torch.Tensor | int = 0
        self.guard = FiniteGuard(self.args.device, keeps=self.accelerator.distributed_type != DistributedType.DEEPSPEED)
        self.graphs: StepGraphs | None = None
        self.while_training = ExitStack()

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trainer's training, with the model made fast for as long as it lasts."""
        with self.while_training:
            self.while_training.enter_context(fused_gelu(self.model))
            if self.args.device.type == "cpu":
                if not any(isinstance(each, KeptMemory) for each in self.callback_handler.callbacks):
                    self.add_callback(KeptMemory())
                # Not world_size: torchrun wraps a single process too, as the last machine of an elastic run is.
                if self.accelerator.distributed_type == DistributedType.NO:
                    self.while_training.enter_context(sparse_embedding_gradient(self.model))
            if self.speed.mode == "compile":
                self.while_training.enter_context(compiled_blocks(self.model))
            if self.speed.mode == "graph":
                self.graphs = StepGraphs(list(self.model.parameters()), self.forward_backward, self.say)
            self.resumed = resume_from_checkpoint is not None
            try:
                return super().train(resume_from_checkpoint, *args, **kwargs)
            except NotFinite as error:
                raise UserError(f"{error}. {self.where(error.step)}") from error
            except UnpicklingError as error:
                reason = str(error).strip().splitlines()[0]
                raise UserError(f"the checkpoint holds more than tensors, so it is not loaded: {reason}") from error
            except Stopped:  # whoever keeps a file open closes it
                self.callback_handler.on_train_end(self.args, self.state, self.control)
                raise

    def where(self, step: int) -> str:
        """What a step that went wrong had learned from, and from where the run can go on."""
        rows = ", ".join(map(str, self.rows_of_step(step).rows))
        found = [path.name for path in checkpoints.checkpoints(Path(str(self.args.output_dir)))]
        return f"Its rows: {rows}. The last checkpoint before it: {found[-1] if found else 'none'}"

    # ---- batches

    def get_train_dataloader(self) -> DataLoader:
        """Batches in an order that is a function of seed and epoch; this process's own share, on its device."""
        args, dataset = self.args, self.train_dataset
        padded = not isinstance(self.data_collator, FlatCollator)
        self.row_batches = row_batches(args, row_lengths(dataset), self.tokens_per_batch, padded=padded)
        loader = DataLoader(
            dataset,
            batch_sampler=self.row_batches,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
        )
        # Not accelerator.prepare: it would deal out to the processes what RowBatches has dealt out already.
        return prepare_data_loader(
            loader,
            device=args.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            non_blocking=args.dataloader_pin_memory,
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], torch.Tensor | None]:
        """The micro-batches of one optimizer step and the number of supervised tokens in all processes' together.

        Counted on the device and left there: nothing waits.
        """
        # A run that is gone on with may have had its last step already; Trainer would make one more.
        batches = [] if self.control.should_training_stop else list(islice(epoch_iterator, num_batches))
        if not batches:
            return batches, None
        counts = torch.stack(
            [sum(batch["weights"].sum() for batch in batches).long(), sum(batch["tokens"] for batch in batches)]
        )
        if self.args.world_size > 1:
            counts = self.accelerator.gather(counts[None]).sum(dim=0)
        self.tokens_since_stored = self.tokens_since_stored + counts[1]
        return batches, counts[0].clamp(min=1)

    def rows_of_step(self, step: int) -> StepRows:
        """What an optimizer step learns from, over all processes."""
        return step_rows(step, self.row_batches.rows_of_step(step), *self.row_facts)

    @cached_property
    def row_facts(self) -> tuple[np.ndarray, np.ndarray]:
        """Row id and number of supervised tokens of every example of the training set."""
        dataset = self.train_dataset
        learned = column(dataset, "response_tokens")
        if self.eval_collator.loss_on == "all":
            learned = row_lengths(dataset) - 1
        return column(dataset, "row_id"), learned

    # ---- the loss

    def training_step(
        self, model: torch.nn.Module, inputs: Batch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        with self.rows_as_collated():
            if self.graphs is not None and isinstance(num_items_in_batch, torch.Tensor):
                model.train()
                loss = self.graphs.run(inputs, num_items_in_batch)
                if loss is not None:
                    return loss
            return super().training_step(model, inputs, num_items_in_batch)

    def forward_backward(self, batch: Batch, num_items_in_batch: torch.Tensor) -> torch.Tensor:
        """A training step without what Trainer does around it: what a graph holds."""
        loss: torch.Tensor = self.compute_loss(self.model_wrapped, batch, num_items_in_batch=num_items_in_batch)
        self.accelerator.backward(loss)
        return loss.detach()

    @contextmanager
    def rehearsing(self) -> Iterator[None]:
        """Nothing of what is done inside is remembered as a step: the losses of its rows."""
        row_losses, self.row_losses = self.row_losses, None
        try:
            yield
        finally:
            self.row_losses = row_losses

    def rows_as_collated(self) -> AbstractContextManager[None]:
        """Outside of it the model is as transformers made it, so that it can generate."""
        return flat_rows(self.model.config) if isinstance(self.data_collator, FlatCollator) else nullcontext()

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        nll = target_nll(model, inputs)
        if self.row_losses is not None:
            self.row_losses.note(nll, inputs["row_targets"])
        loss = token_mean_loss(nll, inputs["weights"], 1 if num_items_in_batch is None else num_items_in_batch)
        loss = loss * self.accelerator.num_processes  # gradients are averaged over processes, the loss is a sum
        return (loss, nll) if return_outputs else loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """Not a documented hook, but the one place that has the norm of the whole gradient before it is used.

        A norm that is not finite keeps this and every later update from the weights, without waiting for the device.
        (fp16 has a guard of its own: its loss scaler skips such steps and goes on.)
        """
        if grad_norm is None and self.accelerator.distributed_type in PLAIN:
            # Trainer would clip to infinity: it multiplies every gradient by one.
            grad_norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if not self.args.fp16:
            self.guard.watch(grad_norm, self.optimizer, self.state.global_step + 1)
        return grad_norm

    # ---- counts

    @cached_property
    def matmul_parameters(self) -> int:
        return int(self.model.num_parameters(exclude_embeddings=True))

    def floating_point_ops(self, inputs: Batch) -> int:
        """Trainer's estimate, without walking through the model's parameters after every micro-batch."""
        return 6 * inputs["input_ids"].numel() * self.matmul_parameters

    def store_flos(self) -> None:
        """Called wherever the state is about to be logged or saved; the tokens seen are brought up to date as well."""
        self.guard.check()
        super().store_flos()
        self.state.num_input_tokens_seen += int(self.tokens_since_stored)
        self.tokens_since_stored = 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self.store_flos()
        logs["num_input_tokens_seen"] = self.state.num_input_tokens_seen
        if start_time is not None:
            seen = self.state.num_input_tokens_seen - self._initial_num_input_tokens_seen
            logs["train_tokens_per_second"] = round(seen / (time.time() - start_time), 3)
        if self.resumed:
            logs.pop("train_loss", None)  # Trainer's mean is over the steps since the last start only
        super().log(logs, start_time)

    # ---- evaluation

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Only the carrier of the dataset to `evaluation_loop`, which makes the batches itself."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        return DataLoader(self.eval_dataset[dataset] if isinstance(dataset, str) else dataset, collate_fn=list)

    @torch.no_grad()
    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The loss per supervised token over the whole set, and how sure the model is of where answers end.

        Trainer's own loop averages batch means, so its eval_loss depends on the batch size
        (huggingface/transformers#39241). Here each row gives a sum and a count, whichever process it falls to. Logits
        are computed where there are targets, and none outlive their batch; all numbers come from these.
        `p_eos` (the mean probability of EOS where the reference ends) and `premature_eos` (the share of rows whose
        likeliest token is EOS somewhere before) leave rows out whose response was cut; `cut_rows` are these.
        """
        model = self._evaluation_model()
        model.eval()
        dataset: Any = dataloader.dataset
        world, rank = self.args.world_size, self.args.process_index
        mine = list(range(rank, len(dataset), world))
        counted = len(mine)
        mine += [0] * (-(-len(dataset) // world) - counted)  # some engines need as many forward passes of everyone

        loss_on = self.eval_collator.loss_on

        def score(part: Sequence[int]) -> torch.Tensor:
            examples = [dataset[index] for index in part]
            batch = self._prepare_inputs(self.eval_collator(examples))
            # Compiling for evaluation as well would take longer than it saves.
            with self.compute_loss_context_manager(), self.rows_as_collated(), torch.compiler.set_stance("force_eager"):
                return row_scores(model, batch, examples, loss_on=loss_on, eos_token_id=self.eos_token_id)

        self.size_evaluation(dataset)
        found = []
        for _, scores in self.eval_rows.batches(mine, score):
            found.append(scores)
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        own = torch.cat(found)[:counted]
        learned = sum(supervised_tokens(dataset[index], loss_on) for index in mine[:counted])
        totals = (*own.sum(dim=0).tolist(), learned, counted)
        nll, ended, p_eos, premature, tokens, count = (sum(each) for each in zip(*gather_object([totals]), strict=True))
        metrics = {
            "loss": nll / tokens if tokens else float("nan"),
            **({"p_eos": p_eos / ended, "premature_eos": premature / ended} if ended else {}),
            "rows": int(count),
            "tokens": int(tokens),
            "cut_rows": int(count - ended),
        }
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        no_predictions = np.empty(0)
        return EvalLoopOutput(predictions=no_predictions, label_ids=None, metrics=metrics, num_samples=int(count))

    def size_evaluation(self, dataset: Any) -> None:
        """Take fewer rows at once than asked for when their forward pass would not fit into half of the memory."""
        scored = (
            column(dataset, "response_tokens") if self.eval_collator.loss_on == "response" else row_lengths(dataset)
        )
        needed = forward_bytes(
            self.model.config, tokens=int(row_lengths(dataset).max()), scored=int(scored.max()), itemsize=4
        )
        free = free_memory(self.args.device)
        fitting = rows_that_fit(free, needed, most=self.eval_rows.rows)
        if fitting < self.eval_rows.rows:
            self.say(
                f"evaluation takes {fitting} rows at once, not {self.eval_rows.rows}: one takes up to "
                f"{needed / 2**20:.1f} MiB, and {free / 2**20:,.0f} MiB are free"
            )
            self.eval_rows.rows = fitting

    def _evaluation_model(self) -> torch.nn.Module:
        """The model as training wraps it; evaluated before any training it is only put on its device.

        DDP's wrapper is left aside: a process that halves its batch must not wait in it for the others.
        """
        if self.model_wrapped is not self.model or self.is_in_train:
            return self.model if self.accelerator.distributed_type in PLAIN else self.model_wrapped
        return self.accelerator.prepare_model(self.model, evaluation_mode=True)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Only a model that is being saved can be the best one, and only if it is not saved because of a signal.

        Not a documented hook. Trainer also counts evaluations between two checkpoints, remembers a step that has no
        checkpoint as the best, and then loads an older, worse one at the end.
        """
        planned = self.control.should_save and not (self.stop is not None and self.stop.unplanned)
        return planned and super()._determine_best_metric(metrics, trial)

    # ---- the final model

    def save_whole(self, folder: Path) -> None:
        """The model as one folder that from_pretrained reads, also when each process holds a part of it."""
        if self.is_fsdp_enabled:  # checkpoints are shards; Trainer would write no model, and say nothing
            self.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        self.save_model(str(folder))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Not a documented hook. What was gathered holds a tied weight twice, as two tensors; it is saved once."""
        if state_dict is not None:
            names = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
            twice = names - {name for name, _ in self.model.named_parameters()}
            state_dict = {name: tensor for name, tensor in state_dict.items() if name not in twice}
        super()._save(output_dir, state_dict)

    def gathered_weights(self) -> dict[str, torch.Tensor]:
        """All weights by name where processes hold parts of them; nothing where each has the whole model.

        Called by all processes; the first one gets them.
        """
        if self.accelerator.distributed_type in PLAIN:
            return {}
        found: dict[str, torch.Tensor] = self.accelerator.get_state_dict(self.model_wrapped)
        return found

    # ---- checkpoints: Trainer's own files, none of them documented hooks, made whole or absent

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return str(Path(folder) / STAGING) if self.staging else folder

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Trainer writes into a folder aside; when all processes have, the first one seals and renames it.

        Raises UserError in all processes when one of them fails; earlier checkpoints are untouched then.
        """
        run = Path(str(self.args.output_dir))
        staged = run / STAGING / f"checkpoint-{self.state.global_step}"
        best = self.state.best_global_step
        if self.args.should_save:
            shutil.rmtree(run / STAGING, ignore_errors=True)
        processes.largest(0)  # nobody writes before the folder is empty

        def write() -> None:
            super(HeedTrainer, self)._save_checkpoint(model, trial)

        def finish() -> None:
            self.know_best(best)
            if self.args.should_save:
                self.state.save_to_json(str(staged / "trainer_state.json"))
                self.seal(staged)
                checkpoints.rotate(run, keep=self.keep_checkpoints, best=best)
                shutil.rmtree(run / STAGING)

        self.staging = True
        # With a best step Trainer lets all processes wait in the middle, and the others would wait for a failed one.
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
        """Trainer looks for the best checkpoint beside the one it writes, which is not where it will be."""
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
            "some space, and the same command goes on from there"
        )

    def _save_rng_state(self, output_dir: str) -> None:
        """With it goes the loss since the last log, so that the next logged loss covers the steps it would have."""
        super()._save_rng_state(output_dir)
        unlogged = {"loss": float(self._tr_loss), "since": self._globalstep_last_logged}
        run_folder.write_json(Path(output_dir) / self.unlogged_file, unlogged)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Called in a resumed run before its first step."""
        super()._load_rng_state(checkpoint)
        path = Path(str(checkpoint)) / self.unlogged_file
        if checkpoint is not None and path.is_file():
            unlogged = run_folder.read_json(path)
            self._tr_loss += unlogged["loss"]
            self._globalstep_last_logged = unlogged["since"]

    @property
    def unlogged_file(self) -> str:
        return f"unlogged_{self.args.process_index}_of_{self.args.world_size}.json"

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Then set what the arguments say: a learning rate that was changed on purpose must not be overruled by the
        old one in the checkpoint. What was not changed is set to what it is."""
        groups = [{name: value for name, value in group.items() if name != "params"} for group in self.param_groups]
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
        """The last model is kept instead, and said to be, when the best one's files are not as they were written."""
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
        super()._load_best_model()


def attempt(function: Callable[[], None]) -> str:
    """What went wrong; an empty text when nothing did."""
    try:
        function()
    except (OSError, RuntimeError, SafetensorError) as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""
