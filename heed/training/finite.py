"""A loss or gradient that is not finite never reaches the weights, and nothing waits for the device to find out."""

from typing import Any

import torch

from heed.errors import UserError


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
