"""Faults that a training does to itself, at a place that a signal from outside could not be aimed at."""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

KILLED_AT = 4  # the step whose checkpoint is being written

# name -> (function that is wrapped, whether its work is done first, file that is cut in half)
POINTS: dict[str, tuple[str, bool, str | None]] = {
    "half of the weights": ("_save", True, "model.safetensors"),
    "the weights written": ("_save", True, None),
    "before the optimizer": ("_save_optimizer_and_scheduler", False, None),
    "half of the optimizer": ("_save_optimizer_and_scheduler", True, "optimizer.pt"),
    "half of the scheduler": ("_save_optimizer_and_scheduler", True, "scheduler.pt"),
    "the optimizer written": ("_save_optimizer_and_scheduler", True, None),
    "before the random states": ("_save_rng_state", False, None),
    "half of the random states": ("_save_rng_state", True, "rng_state.pth"),
    "before the trainer's state": ("save_to_json", False, None),
    "half of the trainer's state": ("save_to_json", True, "trainer_state.json"),
}
OWN_POINTS = ("before the manifest", "half of the manifest", "before the renaming", "before the rotation")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_stock_code(point: str) -> None:
    """Have this process killed while Trainer writes the checkpoint of step KILLED_AT."""
    from transformers import Trainer, TrainerState

    name, afterwards, half = POINTS[point]
    owner: Any = TrainerState if name == "save_to_json" else Trainer
    original = getattr(owner, name)

    def wrapped(self: Any, folder: Any = None, *rest: Any, **more: Any) -> Any:
        state = getattr(self, "state", self)
        place = Path(str(folder))
        if state.global_step != KILLED_AT or f"checkpoint-{KILLED_AT}" not in str(place):
            return original(self, folder, *rest, **more)
        if afterwards:
            original(self, folder, *rest, **more)
        if half is not None:
            cut_in_half(place if place.name == half else place / half)
        die()

    setattr(owner, name, wrapped)


def die_in_own_code(point: str) -> None:
    """The same, in what Heed does after Trainer has written."""
    from heed.runs import checkpoints

    name = {"manifest": "write_manifest", "renaming": "publish", "rotation": "rotate"}[point.split()[-1]]
    original: Callable[..., Any] = getattr(checkpoints, name)

    def wrapped(folder: Path, *rest: Any, **more: Any) -> Any:
        now = folder.name == f"checkpoint-{KILLED_AT}" or (folder / f"checkpoint-{KILLED_AT}").is_dir()
        if not now:
            return original(folder, *rest, **more)
        if point.startswith("half"):
            original(folder, *rest, **more)
            cut_in_half(folder / checkpoints.MANIFEST_FILE)
        die()

    setattr(checkpoints, name, wrapped)


def cut_in_half(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def not_a_number_at(step: int) -> None:
    """The loss of one step is NaN."""
    from transformers import Trainer

    original = Trainer.compute_loss

    def wrapped(self: Any, *arguments: Any, **more: Any) -> Any:
        loss: Any = original(self, *arguments, **more)
        return loss * float("nan") if self.state.global_step == step - 1 else loss

    Trainer.compute_loss = wrapped  # type: ignore[method-assign]
    from heed.training import trainer

    own, calls = trainer.token_mean_loss, count()

    def broken(nll: Any, weights: Any, num_items_in_batch: Any) -> Any:
        is_now = next(calls) == step  # the rehearsal was the first call
        return own(nll * float("nan") if is_now else nll, weights, num_items_in_batch)

    trainer.token_mean_loss = broken


def impatient() -> None:
    """Wait half a second for a locked folder."""
    from heed.files import lock

    lock.PATIENCE = 0.5


def at_step(step: int, act: Callable[[], None]) -> None:
    """Do something as that step begins."""
    from transformers.trainer_callback import CallbackHandler

    original = CallbackHandler.on_step_begin

    def wrapped(self: Any, args: Any, state: Any, control: Any) -> Any:
        if state.global_step == step - 1:
            act()
        return original(self, args, state, control)

    CallbackHandler.on_step_begin = wrapped  # type: ignore[method-assign, assignment]


def clock_set_back(seconds: float) -> None:
    clock, written = time.time, time.strftime
    time.time = lambda: clock() - seconds
    time.strftime = lambda form, *moment: written(form, *(moment or (time.localtime(time.time()),)))


def little_memory(room: int) -> None:
    """So many bytes beyond what this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + room
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


CHANGES = ("open", "os.rename", "os.remove")


def die_at_change(folder: Path, number: int, counted: Path) -> None:
    """Have this process killed before the change of that number to a file in `folder`; none is 0.

    How many there have been is in `counted`.
    """
    changes = 0

    def hook(event: str, given: tuple[Any, ...]) -> None:
        nonlocal changes
        if event not in CHANGES or not str(given[0]).startswith(str(folder)):
            return
        if event == "open" and not given[2] & (os.O_WRONLY | os.O_RDWR):
            return
        changes += 1
        counted.write_text(str(changes))
        if changes == number:
            die()

    sys.addaudithook(hook)
