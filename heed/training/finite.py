"""A loss or gradient that is not finite never reaches the weights, and nothing waits for the device to find out."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType

from heed import processes
from heed.errors import UserError
from heed.runs import checkpoints
from heed.training.ordered import OrderedBatches


class NotFinite(UserError):
    """Raised after the step it names; if `kept`, neither that step nor a later one has changed the weights."""

    def __init__(self, step: int, *, kept: bool = True) -> None:
        weights = (
            "the weights were not changed by it or after it"
            if kept
            else "the engine had updated the weights before it was known, so go back to a checkpoint before it"
        )
        super().__init__(
            f"step {step}: the loss or its gradient is not finite (NaN or infinite); {weights}. "
            "Lower learning_rate, raise warmup_steps, set max_grad_norm, or try bf16: false"
        )
        self.step = step


def spoilt_if_infinite(loss: torch.Tensor) -> torch.Tensor:
    """`loss`, and NaN if it is not finite."""
    # A factor of exactly 1, but NaN where the loss is not finite: an infinite loss may have a finite gradient, which
    # one process would pass on to all, and the guard looks at gradients only.
    return loss * (1 + 0 * loss.detach())


class FiniteGuard:
    """Remembers on the device the first step whose gradient was not finite, and holds back updates from there on."""

    def __init__(self, device: torch.device, *, keeps: bool = True) -> None:
        """`keeps` is False for an engine that updates the weights itself before it reports the norm (DeepSpeed)."""
        self.keeps = keeps
        self.first = torch.zeros((), dtype=torch.float32, device=device)
        """The number of that step; 0 while there is none."""

    def watch(self, grad_norm: torch.Tensor | float, optimizer: Any, step: int) -> None:
        """Called before every update, with the norm of the whole gradient.

        torch's fused optimizers skip an update when their tensor found_inf, meant for loss scaling, says so. For others
        the guard waits for the device, which on CPUs costs nothing.
        """
        inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        norm = torch.as_tensor(grad_norm, device=self.first.device)
        self.first = torch.where((self.first == 0) & ~torch.isfinite(norm), float(step), self.first)
        if getattr(inner, "_step_supports_amp_scaling", False):
            inner.found_inf = (self.first > 0).float()
        else:
            self.check()

    def check(self) -> None:
        """Waits for the device. Raises NotFinite if a step was not finite."""
        step = int(self.first)
        if step:
            raise NotFinite(step, kept=self.keeps)


class FiniteSteps(OrderedBatches):
    """A mixin: the run ends at a step that is not finite, with a sentence that names its rows."""

    @cached_property
    def guard(self) -> FiniteGuard:
        keeps = self.accelerator.distributed_type != DistributedType.DEEPSPEED
        return FiniteGuard(self.args.device, keeps=keeps)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().train(*args, **kwargs)
        except NotFinite as error:
            raise UserError(f"{error}. {self.where(error.step)}") from error

    def where(self, step: int) -> str:
        """The rows of a step that went wrong, and where the run can continue from."""
        rows = ", ".join(map(str, self.rows_of_step(step).rows))
        found = [path.name for path in checkpoints.checkpoints(Path(str(self.args.output_dir)))]
        return f"Its rows: {rows}. The last checkpoint before it: {found[-1] if found else 'none'}"

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """Not a documented hook, but the one place that has the norm of the whole gradient before it is used.

        A norm that is not finite keeps this and every later update from the weights, without waiting for the device.
        (fp16 needs no guard: its loss scaler skips such steps.)
        """
        if grad_norm is None and self.accelerator.distributed_type in processes.PLAIN:
            # Trainer would clip to infinity: it multiplies every gradient by one.
            grad_norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if not self.args.fp16:
            self.guard.watch(grad_norm, self.optimizer, self.state.global_step + 1)
        return grad_norm

    def store_flos(self) -> None:
        """Called wherever the state is about to be logged or saved."""
        self.guard.check()
        super().store_flos()
