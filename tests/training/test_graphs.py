"""Steps from graphs, as far as a machine without CUDA can show: everything but the capture itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from heed.tokens.batches import FlatCollator
from heed.training import graphs
from heed.training.graphs import StepGraphs
from heed.training.speed import SpeedChoice
from heed.training.trainer import HeedTrainer
from world.small_world import MODELS, plain_varlen_attn
from world.training import arguments, examples

Step = Callable[[], torch.Tensor]


def record_plainly(step: Step) -> graphs.Replay:
    """A stand-in for CUDA's capture: nothing runs while it is recorded, a replay works on the buffers it was given."""
    loss = torch.zeros(())

    def replay() -> torch.Tensor:
        return loss.copy_(step())

    return replay


def record_wrongly(step: Step) -> graphs.Replay:
    return lambda: step() * 2


def refuse_to_record(step: Step) -> graphs.Replay:
    raise RuntimeError("operation not permitted when stream is capturing")


def train(
    folder: Path, monkeypatch: pytest.MonkeyPatch, record: graphs.Record | None, accumulation: int = 1
) -> tuple[list[float], torch.Tensor, list[str], Any]:
    """Losses, final weights, what was said, and the graphs of 12 steps in float64 over rows of few shapes."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", plain_varlen_attn)
    if record is not None:
        monkeypatch.setattr(StepGraphs.__init__, "__defaults__", (record,))
    said: list[str] = []
    held: list[Any] = []

    class Look(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            held.append(trainer.graphs)

    trainer = HeedTrainer(
        model=MODELS["gpt2"]().double(),
        args=arguments(
            folder,
            max_steps=12,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=accumulation,
            max_grad_norm=1.0,
        ),
        train_dataset=examples(16),
        data_collator=FlatCollator(pad_token_id=0, loss_on="response", share_prefix=True, varlen=True, multiple=64),
        speed=SpeedChoice("graph" if record else "eager", "test"),
        say=said.append,
        callbacks=[Look()],
    )
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    weights = torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])
    return losses, weights, said, held[-1]


@pytest.mark.parametrize("accumulation", [1, 3])
def test_steps_from_graphs_are_the_eager_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulation: int
) -> None:
    """Gradients go into fixed buffers, although Trainer drops them and some steps run eagerly in between."""
    eager, wanted, _, _ = train(tmp_path, monkeypatch, None, accumulation)
    losses, weights, said, held = train(tmp_path, monkeypatch, record_plainly, accumulation)
    assert losses == pytest.approx(eager, abs=1e-6)  # Trainer logs in float32
    assert (weights - wanted).norm() / wanted.norm() < 1e-12
    assert said == []
    assert 1 < len(held.recorded) < len(held.seen)  # shapes seen once were never captured


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (refuse_to_record, "operation not permitted when stream is capturing"),
        (record_wrongly, "a replayed step differs from an eager one by 1.0e+00"),
    ],
)
def test_a_capture_that_fails_or_differs_is_reported_and_never_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: graphs.Record, reason: str
) -> None:
    eager, wanted, _, _ = train(tmp_path, monkeypatch, None)
    losses, weights, said, _ = train(tmp_path, monkeypatch, record)
    assert losses == eager and torch.equal(weights, wanted)
    assert said == [f"speed     WARNING: CUDA graphs failed, steps run eagerly from here on: {reason}"]


def test_further_shapes_run_eagerly_when_enough_graphs_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, wanted, _, _ = train(tmp_path, monkeypatch, None)
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 1)
    losses, weights, said, held = train(tmp_path, monkeypatch, record_plainly)
    assert losses == pytest.approx(eager, abs=1e-6)  # Trainer logs in float32
    assert (weights - wanted).norm() / wanted.norm() < 1e-12
    assert said == ["speed     1 graphs are kept; further shapes of batches run eagerly"]
    assert len(held.recorded) == 1


def test_long_rows_run_eagerly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    eager, wanted, _, _ = train(tmp_path, monkeypatch, None)
    monkeypatch.setattr(graphs, "MOST_TOKENS", 10)
    losses, weights, said, held = train(tmp_path, monkeypatch, record_plainly)
    assert losses == eager and torch.equal(weights, wanted)
    assert said == [] and not held.recorded
