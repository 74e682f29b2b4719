"""transformers' Trainer, made fast, with a loss and an evaluation that mean the same at any batch size."""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property
from itertools import islice
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType

from heed import processes
from heed.models.attention import flat_rows
from heed.models.faster import compiled_blocks, fused_gelu, last_perceptron_where_scored, tied_gradient_in_place
from heed.models.head import ScoringHead, scoring_head
from heed.models.likelihood import target_nll
from heed.models.memory import BatchSize, KeptMemory
from heed.models.products import onednn_products
from heed.runs.recorder import RowLosses
from heed.tokens.batches import Batch, FlatCollator
from heed.tokens.examples import row_lengths
from heed.tokens.order import RowBatches, row_batches
from heed.training.earlier import Earlier
from heed.training.evaluating import RowEvaluation
from heed.training.finite import spoilt_if_infinite
from heed.training.graphs import StepGraphs
from heed.training.safe import SafeTrainer
from heed.training.speed import SpeedChoice

EAGER = SpeedChoice("eager", "the plain way")


def token_mean_loss(nll: torch.Tensor, weights: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
    """The sum over supervised tokens divided by their number in the global batch (`num_items_in_batch`).

    They are counted over all micro-batches and processes of one optimizer step, so accumulation and world size cannot
    change the loss. (A mean of means would: huggingface/transformers#35203.)
    """
    return spoilt_if_infinite((nll * weights).sum() / num_items_in_batch)


class HeedTrainer(SafeTrainer, RowEvaluation):
    """Touches documented hooks only, except where a comment says why.

    `data_collator` decides how batches look (`batches.FlatCollator`, `batches.PaddingCollator`); with
    `tokens_per_batch` a micro-batch is as many rows as fit into that many tokens, otherwise
    `per_device_train_batch_size` rows. Between log steps nothing here or in Trainer waits for the device.
    """

    model: Any
    train_dataset: Any
    eval_dataset: Any
    data_collator: Any

    def __init__(
        self,
        *,
        tokens_per_batch: int | None = None,
        speed: SpeedChoice = EAGER,
        row_losses: RowLosses | None = None,
        evaluated_too: Mapping[str, Any] = MappingProxyType({}),
        earlier: Earlier | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(compute_loss_func=token_mean_loss, **kwargs)  # tells Trainer: the loss is scaled
        self.tokens_per_batch, self.speed, self.row_losses = tokens_per_batch, speed, row_losses
        self.evaluated_too, self.earlier = evaluated_too, earlier
        self.eval_collator = self.data_collator.for_evaluation()
        self.eos_token_id: int = self.data_collator.pad_token_id  # padding is EOS
        self.eval_rows = BatchSize(
            self.args.eval_batch_size, key="per_device_eval_batch_size", relief="lower max_length", say=self.say
        )
        self.tokens_since_stored: torch.Tensor | int = 0
        self.graphs: StepGraphs | None = None
        self.head: ScoringHead | None = None
        self.while_training = ExitStack()

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trainer's training, with the model made fast while it lasts."""
        with self.while_training:
            self.while_training.enter_context(fused_gelu(self.model))
            if self.args.device.type == "cpu":
                if not any(isinstance(each, KeptMemory) for each in self.callback_handler.callbacks):
                    self.add_callback(KeptMemory())
                # Not world_size: torchrun wraps a single process too, as the last machine of an elastic run is.
                if self.accelerator.distributed_type == DistributedType.NO:
                    self.while_training.enter_context(tied_gradient_in_place(self.model))
                self.while_training.enter_context(last_perceptron_where_scored(self.model))
                plain = self.accelerator.distributed_type in processes.PLAIN
                if plain and self.speed.mode == "eager":
                    self.while_training.enter_context(onednn_products(self.model))
                if plain and self.head is None:
                    self.head = self.while_training.enter_context(scoring_head(self.model))
                    self.while_training.callback(setattr, self, "head", None)
            if self.speed.mode == "compile":
                self.while_training.enter_context(compiled_blocks(self.model))
            if self.speed.mode == "graph":
                self.graphs = StepGraphs(list(self.model.parameters()), self.forward_backward, self.say)
            return super().train(resume_from_checkpoint, *args, **kwargs)

    # ---- batches

    def order_rows(self) -> RowBatches:
        padded = not isinstance(self.data_collator, FlatCollator)
        return row_batches(self.args, self.train_dataset, self.tokens_per_batch, padded=padded)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], torch.Tensor | None]:
        """The micro-batches of one optimizer step and the number of supervised tokens over all processes.

        Counted on the device and left there: nothing waits.
        """
        # A resumed run may have taken its last step already; Trainer would take one more.
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

    def learned_tokens(self) -> np.ndarray:
        if self.eval_collator.loss_on == "all":
            return row_lengths(self.train_dataset) - 1
        return super().learned_tokens()

    # ---- the loss

    def training_step(
        self, model: torch.nn.Module, inputs: Batch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        with self.rows_as_collated():
            if self.graphs is not None and isinstance(num_items_in_batch, torch.Tensor):
                model.train()
                if callable(switch := getattr(self.optimizer, "train", None)):  # as Trainer does before an eager step
                    switch()
                loss = self.graphs.run(inputs, num_items_in_batch)
                if loss is not None:
                    return loss
            return super().training_step(model, inputs, num_items_in_batch)

    def forward_backward(self, batch: Batch, num_items_in_batch: torch.Tensor) -> torch.Tensor:
        """A training step without what Trainer does around it: what a graph records."""
        loss: torch.Tensor = self.compute_loss(self.model_wrapped, batch, num_items_in_batch=num_items_in_batch)
        self.accelerator.backward(loss)
        return loss.detach()

    @contextmanager
    def rehearsing(self) -> Iterator[None]:
        """The losses of rows computed inside are not recorded: they belong to no step."""
        row_losses, self.row_losses = self.row_losses, None
        try:
            yield
        finally:
            self.row_losses = row_losses

    def rows_as_collated(self) -> AbstractContextManager[None]:
        """Outside it the model is as transformers made it, so that it can generate."""
        return flat_rows(self.model.config) if isinstance(self.data_collator, FlatCollator) else nullcontext()

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        items = 1 if num_items_in_batch is None else num_items_in_batch
        if self.head is None:
            nll = target_nll(model, inputs)
            loss = token_mean_loss(nll, inputs["weights"], items)
        else:
            loss, nll = self.head.loss(model, inputs, items)
            loss = spoilt_if_infinite(loss)
        if self.row_losses is not None:
            self.row_losses.note(nll, inputs["row_targets"])
        loss = loss * self.accelerator.num_processes  # gradients are averaged over processes, the loss is a sum
        return (loss, nll) if return_outputs else loss

    # ---- counts

    @cached_property
    def matmul_parameters(self) -> int:
        return int(self.model.num_parameters(exclude_embeddings=True))

    def floating_point_ops(self, inputs: Batch) -> int:
        """Trainer's estimate, without walking through the model's parameters after every micro-batch."""
        return 6 * inputs["input_ids"].numel() * self.matmul_parameters

    def store_flos(self) -> None:
        """Called wherever the state is about to be logged or saved; updates the tokens seen as well."""
        super().store_flos()
        self.state.num_input_tokens_seen += int(self.tokens_since_stored)
        self.tokens_since_stored = 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self.store_flos()
        logs["num_input_tokens_seen"] = self.state.num_input_tokens_seen
        if start_time is not None and (seconds := time.time() - start_time) > 0:
            seen = self.state.num_input_tokens_seen - self._initial_num_input_tokens_seen
            logs["train_tokens_per_second"] = round(seen / seconds, 3)
        super().log(logs, start_time)
