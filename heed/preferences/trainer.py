"""The wall between Heed and TRL: the one module that imports it.

TRL owns the loss, the reference and their metrics. Heed owns ids, order, checkpoints, and how an evaluation is
averaged. What is overridden here are TRL 1.16's own methods; requirements.txt pins it.
"""

import dataclasses
import re
import shutil
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput
from trl import DPOConfig, DPOTrainer

from heed.errors import UserError, reason_of
from heed.tokens.order import RowBatches, row_batches
from heed.training.checkpointing import show_learned
from heed.training.finite import spoilt_if_infinite
from heed.training.safe import SafeTrainer

__all__ = ["DPOConfig", "PreferenceTrainer", "make_trainer", "offered_losses"]

REFERENCE = "ref"  # what TRL calls the copy of an adapter that it compares with
OF_PAIRS = ("rewards/", "logps/")  # metrics that are means over pairs


def offered_losses() -> list[str]:
    """The names of the losses that this TRL has, as its own help lists them."""
    [field] = (each for each in dataclasses.fields(DPOConfig) if each.name == "loss_type")
    _, _, listed = field.metadata["help"].partition("Possible values are:")
    return re.findall(r"'(\w+)'", listed.partition(". If")[0])


def make_trainer(*, args: DPOConfig, **kwargs: Any) -> "PreferenceTrainer":
    """Raises UserError for settings that TRL refuses."""
    # TRL reads what transformers 5.23 calls deprecated, which no user can change.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    try:
        return PreferenceTrainer(args=args, **kwargs)
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"TRL: {reason_of(error)}") from error


class PreferenceTrainer(SafeTrainer, DPOTrainer):
    """TRL's DPOTrainer on ids that Heed has made."""

    def __init__(self, *, fresh_adapter: bool, **kwargs: Any) -> None:
        """The reference of a `fresh_adapter` is the model without it; of one that is tuned further, its copy."""
        super().__init__(**kwargs)
        if fresh_adapter:
            self.model.delete_adapter(REFERENCE)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """The ids are those of training and generation already."""
        return dataset

    def _send_telemetry(self) -> None:
        """Nothing is told to anybody."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The card of a run is written at its end, from what is known then."""

    # ---- batches

    def order_rows(self) -> RowBatches:
        return row_batches(self.args, self.train_dataset, None, padded=True, even=True)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], None]:
        # A resumed run may have taken its last step already; Trainer would take one more.
        return [] if self.control.should_training_stop else list(islice(epoch_iterator, num_batches)), None

    # ---- the loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        loss: Any = super().compute_loss(model, inputs)
        return spoilt_if_infinite(loss)

    @torch.no_grad()
    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The mean over all pairs, whatever the batch size: TRL averages batch means, as if the last were full.

        Every process computes all of it, so the number of processes changes nothing; pairs held out are few.
        """
        dataset: Any = dataloader.dataset
        model = self.accelerator.unwrap_model(self.model).to(self.args.device)
        model.eval()
        show_learned(self.optimizer)
        losses, sizes = [], []
        self._metrics["eval"].clear()
        for start in range(0, len(dataset), self.args.eval_batch_size):
            places = range(start, min(start + self.args.eval_batch_size, len(dataset)))
            batch = self._prepare_inputs(self.data_collator([dataset[place] for place in places]))
            with self.compute_loss_context_manager():
                losses.append(float(self.compute_loss(model, batch)))
            sizes.append(len(places))
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        found = {"loss": losses} | {n: each for n, each in self._metrics["eval"].items() if n.startswith(OF_PAIRS)}
        metrics = {name: float(np.average(values, weights=sizes)) for name, values in found.items()}
        self._metrics["eval"].clear()
        metrics |= {"rows": len(dataset), "tokens": sum(dataset["response_tokens"])}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(predictions=np.empty(0), label_ids=None, metrics=metrics, num_samples=len(dataset))

    # ---- counts, and what is summed up between two logs

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self.state.num_input_tokens_seen = int(self._total_train_tokens)
        logs["num_input_tokens_seen"] = self.state.num_input_tokens_seen
        for metrics in self._metrics.values():
            metrics.pop("num_tokens", None)
        super().log(logs, start_time)

    def unlogged(self) -> dict[str, Any]:
        self.state.num_input_tokens_seen = int(self._total_train_tokens)
        return super().unlogged() | {"metrics": dict(self._metrics["train"])}

    def sum_on(self, unlogged: dict[str, Any]) -> None:
        super().sum_on(unlogged)
        self._metrics["train"].update(unlogged["metrics"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        self._total_train_tokens = self.state.num_input_tokens_seen

    # ---- what is saved

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Not a documented hook. The copy of the adapter is made again from the model that was tuned further."""
        super()._save(output_dir, state_dict)
        shutil.rmtree(Path(output_dir or str(self.args.output_dir)) / REFERENCE, ignore_errors=True)
