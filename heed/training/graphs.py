"""Forward and backward of a training step as one CUDA graph for each shape: replayed, not launched kernel by kernel.

A small model's step on a fast GPU is bound by the thousand kernels the host launches. A graph launches them at once,
but it replays fixed addresses and fixed shapes. So batches are filled up to a few shapes (`FlatCollator.multiple`) and
copied into fixed buffers, and gradients are added into fixed buffers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from heed.errors import reason_of
from heed.saying import Say
from heed.tokens.batches import MOST_FILLED, Batch

Step = Callable[[Batch, torch.Tensor], torch.Tensor]  # (batch, num_items_in_batch) -> loss; adds to the gradients
Replay = Callable[[], torch.Tensor]
Record = Callable[[Callable[[], torch.Tensor]], Replay]
MOST_GRAPHS = 64  # a graph takes megabytes of the host's and the device's memory besides the shared pool
MOST_TOKENS = MOST_FILLED * 9 // 8  # of a row that is captured; filling adds less than an eighth
# How far a replay may be from the same step run eagerly, in bf16 with kernels that add in any order.
TOLERANCE = 0.05


class CudaRecorder:
    """Captures a step as CUDA wants it: warmed up on a side stream, then recorded without being run.

    All graphs share one pool of memory, since no two are replayed at once and nothing of one is used after the next.
    https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    def __init__(self) -> None:
        self.pool: Any = None

    def __call__(self, step: Callable[[], torch.Tensor]) -> Replay:
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # thread_local: a thread that pins the next batch's memory meanwhile must not end the capture.
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            loss = step()

        def replay() -> torch.Tensor:
            graph.replay()
            return loss

        return replay


@dataclass(frozen=True)
class Recorded:
    batch: Batch
    num_items: torch.Tensor
    replay: Replay


class StepGraphs:
    """Runs training steps from graphs, one for each shape; where it cannot, it says so and the step runs eagerly.

    The first graph is compared with an eager step on the same batch, loss and gradient, before any is used.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        step: Step,
        say: Say,
        record: Record | None = None,
    ) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.step, self.say = step, say
        self.record = record or CudaRecorder()
        self.recorded: dict[tuple[Any, ...], Recorded] = {}
        self.seen: set[tuple[Any, ...]] = set()
        self.gradients: list[torch.Tensor] = []
        self.given_up = False
        self.full = False

    def run(self, batch: Batch, num_items: torch.Tensor) -> torch.Tensor | None:
        """The loss of the batch, its gradient added to the parameters'; None when the step must run eagerly.

        A shape is captured when it occurs for the second time, since capturing costs a few steps. Long rows run
        eagerly: there the GPU is slower than the host anyway.
        """
        if self.given_up or batch["input_ids"].numel() > MOST_TOKENS:
            return None
        shape = shape_of(batch)
        if shape not in self.recorded:
            if shape not in self.seen:
                self.seen.add(shape)
                return None
            if len(self.recorded) >= MOST_GRAPHS:
                if not self.full:
                    self.say(f"speed     {MOST_GRAPHS} graphs are kept; further shapes of batches run eagerly")
                self.full = True
                return None
            if not self.capture(shape, batch, num_items):
                return None
        self.adopt_gradients()
        found = self.recorded[shape]
        fill(found, batch, num_items)
        return found.replay().clone()

    def capture(self, shape: tuple[Any, ...], batch: Batch, num_items: torch.Tensor) -> bool:
        """Whether there is now a correct graph for this shape; otherwise graphs are given up, with a warning."""
        if not self.gradients:
            self.gradients = [torch.zeros_like(parameter) for parameter in self.parameters]
        before = [parameter.grad for parameter in self.parameters]
        buffers = {name: value.clone() if torch.is_tensor(value) else value for name, value in batch.items()}
        items = num_items.clone()
        try:
            self.set_gradients(self.gradients)
            replay = self.record(lambda: self.step(buffers, items))
            recorded = Recorded(buffers, items, replay)
            difference = 0.0 if self.recorded else self.difference(recorded, batch, num_items)
        except RuntimeError as error:
            return self.give_up(reason_of(error))
        finally:
            self.set_gradients(before)
        if not difference <= TOLERANCE:
            return self.give_up(f"a replayed step differs from an eager one by {difference:.1e}")
        self.recorded[shape] = recorded
        return True

    def give_up(self, reason: str) -> bool:
        self.say(f"speed     WARNING: CUDA graphs failed, steps run eagerly from here on: {reason}")
        self.given_up = True
        self.recorded.clear()
        return False

    def difference(self, recorded: Recorded, batch: Batch, num_items: torch.Tensor) -> float:
        """How far a replay is from an eager step on the same batch: the larger of loss and gradient, relative."""
        self.set_gradients([None] * len(self.parameters))
        loss = self.step(batch, num_items)
        eager = [parameter.grad for parameter in self.parameters]
        self.set_gradients(self.gradients)
        torch._foreach_zero_(self.gradients)
        fill(recorded, batch, num_items)
        again = recorded.replay()
        wanted = [own for own in eager if own is not None]
        found = [own for own, there in zip(self.gradients, eager, strict=True) if there is not None]
        apart = torch.nn.utils.get_total_norm([a - b for a, b in zip(found, wanted, strict=True)])
        gradient = apart / torch.nn.utils.get_total_norm(wanted)
        return float(torch.maximum((again - loss).abs() / loss.abs(), gradient))

    def adopt_gradients(self) -> None:
        """Trainer drops gradients after a step, and an eager step makes new ones; a graph adds into its own."""
        dropped = [own for own, p in zip(self.gradients, self.parameters, strict=True) if p.grad is None]
        if dropped:
            torch._foreach_zero_(dropped)
        for own, parameter in zip(self.gradients, self.parameters, strict=True):
            if parameter.grad is not None and parameter.grad is not own:
                own.copy_(parameter.grad)
        self.set_gradients(self.gradients)

    def set_gradients(self, gradients: Sequence[torch.Tensor | None]) -> None:
        for parameter, own in zip(self.parameters, gradients, strict=True):
            parameter.grad = own


def shape_of(batch: Batch) -> tuple[Any, ...]:
    """What must be equal for two batches to be replayed by one graph."""
    return tuple((name, tuple(value.shape) if torch.is_tensor(value) else value) for name, value in batch.items())


def fill(recorded: Recorded, batch: Batch, num_items: torch.Tensor) -> None:
    for name, buffer in recorded.batch.items():
        if torch.is_tensor(buffer):
            buffer.copy_(batch[name])
    recorded.num_items.copy_(num_items)
