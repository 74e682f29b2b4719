"""How many rows fit into memory at once: estimated beforehand, halved where that was too many."""

import ctypes
import gc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from transformers import TrainerCallback

from heed.errors import UserError, is_out_of_memory
from heed.saying import Say

Item = TypeVar("Item")
Result = TypeVar("Result")

# Limit and use of a control group, in its two versions.
CGROUP_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


class BatchSize:
    """How many rows go through a model at once: halved whenever memory runs out, and never raised again.

    `key` is what a user sets to choose the number, `relief` what helps when not even one row fits.
    """

    def __init__(self, rows: int, *, key: str, relief: str, say: Say = print) -> None:
        self.rows, self.key, self.relief, self.say = rows, key, relief, say

    def batches(
        self, items: Sequence[Item], function: Callable[[Sequence[Item]], Result]
    ) -> Iterator[tuple[Sequence[Item], Result]]:
        """`items` in batches, in order, each with what `function` makes of it.

        Items that memory ran out on are given to `function` again in smaller batches, so it may do nothing but return
        its result, and wait for no other process. Raises UserError when it runs out on a single one.
        """
        place = 0
        while place < len(items):
            batch = items[place : place + self.rows]
            made = attempt(function, batch)
            if not made:
                self.halve(len(batch))
                continue
            place += len(batch)
            yield batch, made.pop()

    def halve(self, tried: int) -> None:
        """Continue with half of what was `tried`. Raises UserError when that was a single row."""
        free_unused()
        if tried == 1:
            raise UserError(f"not enough memory for a single row; {self.relief}")
        self.rows = tried // 2
        self.say(
            f"not enough memory for {tried} rows at once; continuing with {self.rows} "
            f"({self.key}: {self.rows} starts there)"
        )


def attempt(function: Callable[[Sequence[Item]], Result], batch: Sequence[Item]) -> list[Result]:
    """The result alone in a list, or an empty list if memory ran out.

    The error ends here: its traceback would keep the tensors of the failed attempt alive.
    """
    try:
        return [function(batch)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return []


def free_unused() -> None:
    """Give back what nobody uses any more: cycles of Python objects, then the cache of torch's allocator."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


ACTIVATIONS = 24  # numbers a layer keeps at once for a token, in hidden sizes; mostly of its perceptron
SCORE_COPIES = 4  # of a token's scores, in float32: the model's own, and what is made of them


def forward_bytes(config: Any, *, tokens: int, scored: int, itemsize: int) -> int:
    """About what a forward pass without gradients takes for a row of `tokens`, whose logits are made at `scored`."""
    return ACTIVATIONS * config.hidden_size * tokens * itemsize + SCORE_COPIES * config.vocab_size * 4 * scored


def rows_that_fit(free: int, bytes_per_row: int, most: int) -> int:
    """As many rows as take half of the `free` bytes, but at least one; the other half is for what is not counted."""
    return max(1, min(most, free // 2 // bytes_per_row))


def free_memory(device: torch.device) -> int:
    """Bytes that a new tensor on `device` could have, those that torch's allocator caches included."""
    if device.type == "cuda":  # torch.accelerator has no get_memory_info in older versions
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type not in ("cpu", "mps"):
        free, _ = torch.accelerator.get_memory_info(device)
        return free + torch.accelerator.memory_reserved(device) - torch.accelerator.memory_allocated(device)
    return min([psutil.virtual_memory().available, *map(free_in_cgroup, cgroups())])


def cgroups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[Path]:
    """The control groups (containers, Slurm jobs) of this process that may limit its memory; none off Linux."""
    folders: list[Path] = []
    for line in own.read_text().splitlines() if own.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):  # version 2, version 1
            mount = root / controllers
            folder = mount / path.lstrip("/")
            # A container may see its own group as the root.
            folders += [each for each in (folder, *folder.parents) if each.is_relative_to(mount)]
    return [folder for folder in folders if any((folder / limit).is_file() for limit, _ in CGROUP_FILES)]


def free_in_cgroup(folder: Path) -> int:
    """What the limit leaves; pages of files that the kernel would drop count as free."""
    limit_file, used_file = next(names for names in CGROUP_FILES if (folder / names[0]).is_file())
    limit = (folder / limit_file).read_text().strip()
    if limit == "max":
        return psutil.virtual_memory().total
    used = int((folder / used_file).read_text())
    statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    droppable = int(statistics.get("total_inactive_file", statistics.get("inactive_file", 0)))
    return max(0, int(limit) - used + droppable)


class KeptMemory(TrainerCallback):
    """Lets glibc keep freed memory between the steps of a training on a CPU, and gives it back before it is too much.

    Activations, scores and gradients are freed and allocated again in every step. By default glibc gives the large ones
    back to the system, which then hands out zeroed pages one by one. Kept ones are cut up with time and rarely found
    whole again, so a training would grow from step to step: past the limit all that is free goes back at once. The
    setting is the process's, for good. Does nothing where there is no glibc.
    """

    GROWTH = 1.5  # how much more memory than its first steps took a training may use
    FIRST_STEPS = 5

    def __init__(self) -> None:
        try:
            self.libc: Any = ctypes.CDLL("libc.so.6")
            self.kept = bool(self.libc.mallopt(M_MMAP_MAX, 0) and self.libc.mallopt(M_TRIM_THRESHOLD, -1))
        except (OSError, AttributeError):
            self.kept = False
        self.steps = 0
        self.limit = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.kept:
            return
        self.steps += 1
        held = resident_memory()
        if self.steps <= self.FIRST_STEPS:
            spare = free_memory(torch.device("cpu")) / 2
            self.limit = max(self.limit, min(held * self.GROWTH, held + spare))
        elif held > self.limit:
            self.libc.malloc_trim(0)


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def resident_memory() -> int:
    """Bytes of memory that this process uses."""
    return int(psutil.Process().memory_info().rss)
