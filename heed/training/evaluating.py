"""An evaluation that is the same number at any batch size and on any number of processes."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from heed import processes
from heed.models.likelihood import row_scores
from heed.models.memory import BatchSize, forward_bytes, free_memory, rows_that_fit
from heed.saying import Detail, Say
from heed.tokens.batches import FlatCollator, PaddingCollator
from heed.tokens.examples import column, row_lengths, supervised_tokens
from heed.training.checkpointing import show_learned
from heed.training.earlier import Earlier


class RowEvaluation(Trainer):
    """A mixin: each row gives a sum and a count, whichever batch and process it falls to.

    The trainer must have `eval_collator`, `eval_rows`, `eos_token_id` and `rows_as_collated`.
    """

    model: Any
    eval_dataset: Any
    evaluated_too: Mapping[str, Any]
    """Validation sets that do not steer, by their names."""
    eval_collator: FlatCollator | PaddingCollator
    eval_rows: BatchSize
    eos_token_id: int
    earlier: Earlier | None = None
    say: Say

    def rows_as_collated(self) -> AbstractContextManager[None]:
        raise NotImplementedError

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Of every validation set where none is given: the first is `eval_loss`, which steers, others `eval_NAME_loss`.

        Each is logged by itself.
        """
        metrics = self.measured(eval_dataset, ignore_keys, metric_key_prefix)
        for name, dataset in self.evaluated_too.items() if eval_dataset is None else ():
            metrics |= self.measured(dataset, ignore_keys, f"{metric_key_prefix}_{name}")
        return metrics

    def measured(self, dataset: Any, ignore_keys: list[str] | None, prefix: str) -> dict[str, float]:
        """Before the first step what an earlier start has measured, where there was one."""
        earlier = self.earlier if self.state.global_step == 0 else None
        metrics = earlier.known(prefix) if earlier is not None else None
        if metrics is not None:
            self.say(Detail("          as an earlier start of the same training measured it:"))
            self.log(metrics)
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            return metrics
        metrics = super().evaluate(dataset, ignore_keys, prefix)
        if earlier is not None:
            earlier.keep(prefix, metrics, metrics.get(f"{prefix}_runtime", 0.0))
        return metrics

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
        (huggingface/transformers#39241). Logits are computed only where there are targets, and none outlive their
        batch.
        `p_eos` (the mean probability of EOS where a span ends) and `premature_eos` (the share of spans where EOS is the
        likeliest token somewhere earlier) leave out cut spans, at most the last of each row; `cut_rows` counts those
        rows.
        """
        model = self._evaluation_model()
        model.eval()
        show_learned(self.optimizer)
        dataset: Any = dataloader.dataset
        world, rank = self.args.world_size, self.args.process_index
        mine = list(range(rank, len(dataset), world))
        counted = len(mine)
        mine += [0] * (-(-len(dataset) // world) - counted)  # some engines need equally many forward passes everywhere

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
        examples = [dataset[index] for index in mine[:counted]]
        learned = sum(supervised_tokens(example, loss_on) for example in examples)
        spans = sum(len(example["spans"]) for example in examples)
        totals = (*own.sum(dim=0).tolist(), learned, spans, counted)
        everyone = zip(*gather_object([totals]), strict=True)
        nll, ended, p_eos, premature, _, tokens, spans, count = (sum(each) for each in everyone)
        metrics = {
            "loss": nll / tokens if tokens else float("nan"),
            **({"p_eos": p_eos / ended, "premature_eos": premature / ended} if ended else {}),
            "rows": int(count),
            "tokens": int(tokens),
            "cut_rows": int(spans - ended),
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
        """The model as training wraps it; before any training it is only put on its device.

        Without DDP's wrapper, in which a process that halves its batch would wait for the others.
        """
        if self.model_wrapped is not self.model or self.is_in_train:
            return self.model if self.accelerator.distributed_type in processes.PLAIN else self.model_wrapped
        return self.accelerator.prepare_model(self.model, evaluation_mode=True)
