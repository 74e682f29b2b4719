"""What a run needs of any Trainer: rows in a known order, finite steps, whole checkpoints."""

from heed.training.checkpointing import WholeCheckpoints
from heed.training.finite import FiniteSteps


class SafeTrainer(FiniteSteps, WholeCheckpoints):
    """A mixin: `class MyTrainer(SafeTrainer, TheirTrainer)`, which says with `order_rows` how its rows are dealt."""
