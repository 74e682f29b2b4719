"""The same function of a model, computed faster."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation


@contextmanager
def compiled_blocks(model: torch.nn.Module) -> Iterator[None]:
    """Compile each block of the model, once for all of them, and leave the rest as it is.

    Row lengths may change from step to step: the compiled code is made for any (dynamic=True).
    """
    found = blocks(model)
    for block in found:
        block.compile(dynamic=True)
    try:
        yield
    finally:
        for block in found:
            block._compiled_call_impl = None  # torch has no public way back


def blocks(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The layers of a transformer: the longest list of modules in it."""
    lists = [list(module) for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return max(lists, key=len)


@contextmanager
def fused_gelu(model: torch.nn.Module) -> Iterator[None]:
    """GPT-2's gelu_new is eight operations that keep four activations; torch has the same function as one.

    For a while only: what is saved, and what generates later, is the model as transformers made it.
    """
    fused = torch.nn.GELU(approximate="tanh")
    places = [
        (module, name, child)
        for module in model.modules()
        for name, child in module.named_children()
        if isinstance(child, NewGELUActivation)
    ]
    for module, name, _ in places:
        setattr(module, name, fused)
    try:
        yield
    finally:
        for module, name, child in places:
            setattr(module, name, child)


@contextmanager
def sparse_embedding_gradient(model: PreTrainedModel) -> Iterator[None]:
    """Add an embedding's gradient to that of the output head it is tied to row by row.

    Otherwise every step zeroes a table of the whole vocabulary, fills a few hundred rows, and adds it to the other.
    Only for tied weights, whose gradient stays dense, and for one process, since DDP would send sparse gradients.
    """
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    tied = head is not None and head.weight is embedding.weight and embedding.weight.requires_grad
    before = embedding.sparse
    embedding.sparse = bool(tied)
    try:
        yield
    finally:
        embedding.sparse = before
