"""What a run needs of any Trainer: rows in a known order, finite steps, whole checkpoints, logs without nonsense."""

from typing import Any

from torch.utils.data import DataLoader

from heed.training.checkpointing import WholeCheckpoints
from heed.training.finite import FiniteSteps


class SafeTrainer(FiniteSteps, WholeCheckpoints):
    """A mixin: `class MyTrainer(SafeTrainer, TheirTrainer)`, which says with `order_rows` how its rows are dealt."""

    eval_dataset: Any
    resumed = False

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        self.resumed = resume_from_checkpoint is not None
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Only carries the dataset to `evaluation_loop`, which makes the batches itself."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        return DataLoader(self.eval_dataset[dataset] if isinstance(dataset, str) else dataset, collate_fn=list)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        without_negative_times(logs)
        if self.resumed:
            logs.pop("train_loss", None)  # Trainer's mean is over the steps since the last start only
        super().log(logs, start_time)


def without_negative_times(logs: dict[str, float]) -> None:
    """A clock may be set back while Trainer measures by it: then there is no time and no speed to log."""
    for name in [name for name in logs if name.endswith("_runtime") and logs[name] < 0]:
        for end in ("runtime", "samples_per_second", "steps_per_second"):
            logs.pop(name.removesuffix("runtime") + end, None)
