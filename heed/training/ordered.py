"""Batches in an order that is a function of seed and epoch, dealt out to the processes by Heed itself."""

from functools import cached_property
from typing import Any

import numpy as np
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import Trainer

from heed.runs.recorder import StepRows, step_rows
from heed.tokens.examples import column
from heed.tokens.order import RowBatches


class OrderedBatches(Trainer):
    """A mixin. The training set has row_id, tokens and response_tokens among its columns."""

    train_dataset: Any
    row_batches: RowBatches

    def order_rows(self) -> RowBatches:
        raise NotImplementedError

    def get_train_dataloader(self) -> DataLoader:
        """Batches in an order that is a function of seed and epoch; this process's own share, on its device."""
        args, dataset = self.args, self.train_dataset
        self.row_batches = self.order_rows()
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

    def rows_of_step(self, step: int) -> StepRows:
        """What an optimizer step learns from, over all processes."""
        return step_rows(step, self.row_batches.rows_of_step(step), *self.row_facts)

    @cached_property
    def row_facts(self) -> tuple[np.ndarray, np.ndarray]:
        """Row id and number of supervised tokens of every example of the training set."""
        return column(self.train_dataset, "row_id"), self.learned_tokens()

    def learned_tokens(self) -> np.ndarray:
        return column(self.train_dataset, "response_tokens")
