import pytest
import torch

from heed.training.finite import FiniteGuard, NotFinite

CPU = torch.device("cpu")


def watched(guard: FiniteGuard, *norms: float) -> torch.nn.Parameter:
    """A weight of 1 after a step of -1 for each norm."""
    weight = torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.AdamW([weight], lr=1.0, weight_decay=0.0, fused=True)
    for step, norm in enumerate(norms, 1):
        weight.grad = torch.ones(())
        guard.watch(norm, optimizer, step)
        optimizer.step()
    return weight


def test_neither_the_step_that_is_not_finite_nor_a_later_one_reaches_the_weights() -> None:
    guard = FiniteGuard(CPU)

    assert watched(guard, 1.0, float("nan"), 1.0).item() == pytest.approx(0.0, abs=1e-6)  # one step of three
    with pytest.raises(NotFinite, match=r"step 2: .* the weights were not changed by it or after it"):
        guard.check()


def test_no_promise_is_made_for_an_engine_that_updates_by_itself() -> None:
    guard = FiniteGuard(CPU, keeps=False)
    watched(guard, float("inf"))

    with pytest.raises(NotFinite, match=r"step 1: .* go back to a checkpoint before it"):
        guard.check()
