"""What all processes of a run decide together, without waiting for a device."""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from heed.errors import UserError

Value = TypeVar("Value")


@cache
def on_cpu() -> Any:
    """A group for small messages that go over the network only: no device is asked, and no training step waits.

    Apart from the group that gradients go through, so that messages cannot get in between.
    """
    return dist.new_group(backend="gloo")


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
