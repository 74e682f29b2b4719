"""The matrix products of a model by oneDNN, where that is faster than MKL, which torch asks by itself."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch.nn.functional import linear
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from heed.hardware import cpu_name
from heed.models.faster import computed_by

FEWEST_ROWS = 4  # with one row, MKL is as fast or faster
SMALLEST = 128  # rows and columns of a weight: on less, calling from Python takes what oneDNN gains


@contextmanager
def onednn_products(model: PreTrainedModel) -> Iterator[None]:
    """Let oneDNN multiply in a model's linear layers and its output head, for a while.

    Without AVX-512 only in the head: MKL is as fast with the layers there.
    """
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    modules: Iterable[Any] = model.modules() if wide else [model.get_output_embeddings()]
    with ExitStack() as changed:
        for module in modules:
            large = type(module) in (torch.nn.Linear, Conv1D) and min(module.weight.shape) >= SMALLEST
            if large and faster_by_onednn(module.weight):
                changed.enter_context(computed_by(module, partial(layer, module, module.forward)))
        yield


def layer(module: Any, plain: Any, hidden: torch.Tensor) -> torch.Tensor:
    """What a linear layer returns."""
    if hidden.numel() < FEWEST_ROWS * hidden.shape[-1] or torch.is_autocast_enabled("cpu"):
        return plain(hidden)
    turned = type(module) is Conv1D
    if torch.is_grad_enabled():
        return Product.apply(hidden, module.weight, module.bias, turned)
    return multiplied(hidden, module.weight.T if turned else module.weight, module.bias)


class Product(torch.autograd.Function):
    """A linear layer. Its three products are oneDNN's, but for a weight's gradient that has more rows than columns."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, turned: bool
    ) -> torch.Tensor:
        """`weight` is (outputs, inputs), or `turned` (inputs, outputs), as GPT-2 has it."""
        ctx.save_for_backward(hidden, weight)
        ctx.turned = turned
        return multiplied(hidden, weight.T if turned else weight, bias)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        for_hidden = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            for_hidden = multiplied(upstream, weight if ctx.turned else weight.T)
        if ctx.needs_input_grad[1]:
            sides = hidden.flatten(0, -2), upstream.flatten(0, -2)
            rows, columns = sides if ctx.turned else reversed(sides)
            wide = columns.shape[1] > rows.shape[1]  # MKL is faster with the rest
            for_weight = multiplied(rows.T, columns.T) if wide else rows.T @ columns
        if ctx.needs_input_grad[2]:
            for_bias = upstream.flatten(0, -2).sum(0)
        return for_hidden, for_weight, for_bias, None


def product(hidden: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """`hidden @ table.T`, without a gradient, by whichever is faster."""
    return multiplied(hidden, table) if faster_by_onednn(table) else hidden @ table.T


def multiplied(hidden: torch.Tensor, table: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`hidden @ table.T + bias` by oneDNN, without a gradient."""
    return torch.ops.mkldnn._linear_pointwise(hidden, table, bias, "none", [], "")


def faster_by_onednn(weight: torch.Tensor) -> bool:
    """Whether oneDNN was seen to be faster with such a weight: float32 on an AMD CPU.

    MKL is Intel's, and on its own CPUs nothing was measured.
    """
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and "AMD" in cpu_name() and onednn_works()


@cache
def onednn_works() -> bool:
    """By trying: torch makes the operation for code that it compiles, and promises it to nobody else.

    oneDNN keeps code for each of 1,024 shapes, half a megabyte. A step has some twenty, and the next batch has others.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    rows, table = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([[1.0, 0.5]])
    try:
        return torch.equal(multiplied(rows, table), linear(rows, table))
    except (AttributeError, RuntimeError, TypeError):
        return False
