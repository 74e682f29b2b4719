"""What all processes of a run decide together, without waiting for a device."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate.utils import DistributedType

from heed.errors import UserError, reason_of

PLAIN = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)  # gradients are whole tensors

Value = TypeVar("Value")


@cache
def on_cpu() -> Any:
    """A group for small messages that go over the network only: no device is asked, and no training step waits.

    Apart from the group that gradients go through, so that messages cannot get in between.
    """
    return dist.new_group(backend="gloo")


@cache
def patient() -> Any:
    """The same for those who wait while others work; a process that dies is noticed by its closed connection."""
    return dist.new_group(backend="gloo", timeout=timedelta(days=1))


def several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def largest(number: int) -> int:
    """The largest of all processes' numbers; called by all of them."""
    if not several():
        return number
    found = torch.tensor(number, dtype=torch.int64)
    dist.all_reduce(found, op=dist.ReduceOp.MAX, group=on_cpu())
    return int(found)


def gathered(value: Value) -> list[Value]:
    """All processes' values, by process; called by all of them."""
    if not several():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value, group=on_cpu())
    return values


def from_first(make: Callable[[], Value]) -> Value:
    """What the first process makes, in all of them. A UserError it raises is raised in all of them."""
    if not several():
        return make()
    made: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            made[0] = make()
        except UserError as error:
            made[1] = str(error)
    dist.broadcast_object_list(made, src=0, group=on_cpu())
    if made[1] is not None:
        raise UserError(made[1])
    value: Value = made[0]
    return value


@contextmanager
def in_turns() -> Iterator[None]:
    """What the first process of all makes, the first of each machine finds if they share a disk, and the rest find.

    However long it takes: the time limit of a collective (ddp_timeout) is not for work.
    """
    if not several():
        yield
        return
    turn = 0 if dist.get_rank() == 0 else 1 if os.environ.get("LOCAL_RANK", "0") == "0" else 2
    for _ in range(turn):
        dist.barrier(group=patient())
    try:
        yield
    finally:
        for _ in range(2 - turn):
            dist.barrier(group=patient())


def check_launch(wanted: int | None) -> None:
    """Raises UserError when the launcher's environment is not that of one process in a whole, or of `wanted` processes.

    `accelerate launch --cpu --num_processes 2`, for one, starts a single process and says nothing.
    """
    world, rank = os.environ.get("WORLD_SIZE"), os.environ.get("RANK")
    if (world is None) != (rank is None):
        found, missing = ("WORLD_SIZE", "RANK") if rank is None else ("RANK", "WORLD_SIZE")
        raise UserError(f"the environment has {found} but no {missing}; start with torchrun or `accelerate launch`")
    if world is None and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        raise UserError(
            f"srun started {os.environ['SLURM_STEP_NUM_TASKS']} copies that know nothing of each other; have it start "
            "one torchrun on each machine, as configs/slurm/sft.sbatch does"
        )
    count = int(world or "1")
    if rank is not None and not 0 <= int(rank) < count:
        raise UserError(f"the launcher gave this process rank {rank} of {count}; ranks go from 0 to {count - 1}")
    if wanted is not None and wanted != count:
        raise UserError(
            f"processes: {wanted}, but the launcher started {count}; with `accelerate launch` on CPUs take "
            "configs/accelerate/cpu_2proc.yaml or torchrun, since --cpu --num_processes starts one"
        )


def meet_on_cpu(seconds: int) -> None:
    """On CPUs TrainingArguments leaves ddp_timeout out, so the processes meet before."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timedelta(seconds=seconds))


def check_alike(facts: Mapping[str, Any]) -> None:
    """Raises UserError, in all processes, when one of them is about to train something else.

    Each process finds its rows and weights by itself; another data file or library on one machine would go unseen.
    """
    everyone = gathered((socket.gethostname(), dict(facts)))
    host, first = everyone[0]
    for process, (other, theirs) in enumerate(everyone):
        differ = [name for name in {**first, **theirs} if first.get(name) != theirs.get(name)]
        if differ:
            name = differ[0]
            raise UserError(
                f"process {process} on {other} differs from process 0 on {host} in {', '.join(differ)} ({name}: "
                f"{theirs.get(name)} there, {first.get(name)} here); all machines need the same files and packages"
            )


def not_found_message(error: Exception, seconds: int) -> str:
    place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    return (
        f"process {os.environ.get('RANK')} of {os.environ.get('WORLD_SIZE')} did not find the others at {place} within "
        f"{seconds} s ({reason_of(error)}). A machine's own name may be another address on the others: start torchrun "
        "there with --local-addr ADDRESS, and with --rdzv-conf is_host=1 on the first machine, is_host=0 on the rest"
    )
