"""HeedTrainer: transformers' Trainer with a loss and an evaluation that mean the same at any batch size."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from heed.batches import IGNORE


def token_nll(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of every next token, in nats: shape (rows, length - 1), 0 where nothing is supervised.

    `logits` at a place score the token of the next place, so labels are shifted here, once. In float32 at least.
    """
    scores = logits[:, :-1].float() if logits.dtype in (torch.float16, torch.bfloat16) else logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        scores.transpose(1, 2), labels[:, 1:], ignore_index=IGNORE, reduction="none"
    )


def token_mean_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
    """The sum over supervised tokens divided by their number in the global batch (`num_items_in_batch`).

    Trainer counts them over all micro-batches and processes of one optimizer step, so accumulation and world size
    cannot change the loss. (A mean of means would: huggingface/transformers#35203.)
    """
    return token_nll(outputs.logits, labels).sum() / num_items_in_batch


class HeedTrainer(Trainer):
    """Touches documented hooks only, except where a comment says why.

    The loss is given to Trainer as `compute_loss_func`, so that it counts tokens and scales for processes as usual.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(compute_loss_func=token_mean_loss, **kwargs)

    @torch.no_grad()
    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The loss per supervised token over the whole set, with the number of rows and tokens it covers.

        Trainer's own loop averages batch means, so its eval_loss depends on the batch size
        (huggingface/transformers#39241). Here each row gives a sum and a count; rows that padding the last batch
        doubles on several processes are left out by gather_for_metrics. No logits outlive their batch.
        """
        model = self._evaluation_model()
        model.eval()
        totals = torch.zeros(3, dtype=torch.float64)
        for inputs in dataloader:
            inputs = self._prepare_inputs(inputs)
            labels = inputs.pop("labels")
            with self.compute_loss_context_manager():
                logits = model(**inputs).logits
            sums = token_nll(logits, labels).sum(dim=1)
            supervised = (labels[:, 1:] != IGNORE).sum(dim=1).to(sums.dtype)
            rows = torch.stack([sums, supervised, torch.ones_like(sums)], dim=1)
            # In float64 on the CPU: not every device has it, and thousands of rows are added up.
            totals += self.accelerator.gather_for_metrics(rows).cpu().double().sum(dim=0)
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        nll, tokens, count = totals.tolist()
        metrics = {
            f"{metric_key_prefix}_loss": nll / tokens if tokens else float("nan"),
            f"{metric_key_prefix}_rows": int(count),
            f"{metric_key_prefix}_tokens": int(tokens),
        }
        no_predictions = np.empty(0)
        return EvalLoopOutput(predictions=no_predictions, label_ids=None, metrics=metrics, num_samples=int(count))

    def _evaluation_model(self) -> torch.nn.Module:
        """The model as training wraps it; evaluated before any training it is only put on its device."""
        if self.model_wrapped is not self.model or self.is_in_train:
            return self.model_wrapped
        return self.accelerator.prepare_model(self.model, evaluation_mode=True)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Only a model that is being saved can be the best one.

        Not a documented hook. Trainer also counts evaluations between two checkpoints, remembers a step that has no
        checkpoint as the best, and then loads an older, worse one at the end.
        """
        return self.control.should_save and super()._determine_best_metric(metrics, trial)
