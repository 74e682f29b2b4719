"""The same function of a model, computed faster."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation

from heed.models.attention import FLAT_FAMILIES


@contextmanager
def computed_by(module: torch.nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let another function be a module's forward pass for a while."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


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
def tied_gradient_in_place(model: PreTrainedModel) -> Iterator[None]:
    """Add an embedding's gradient to that of the output head it is tied to, row by row and in place.

    Otherwise every step zeroes a table of the whole vocabulary, fills a few hundred rows, and adds it to the other. For
    one process only: others wait for all of a weight's gradient before they send it.
    """
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    tied = head is not None and head.weight is embedding.weight and embedding.weight.requires_grad
    kind = type(embedding)
    if not tied or kind is not torch.nn.Embedding:  # Gemma's scales what it looked up
        yield
        return
    plain = embedding.forward

    def forward(input_ids: torch.Tensor) -> torch.Tensor:
        rows = plain(input_ids)
        if not torch.is_grad_enabled():
            return rows
        rows = rows.detach().requires_grad_()
        rows.register_hook(lambda gradient: add_rows(embedding, input_ids, gradient))
        return rows

    with computed_by(embedding, forward):
        yield


def add_rows(embedding: torch.nn.Embedding, input_ids: torch.Tensor, gradient: torch.Tensor) -> None:
    """What autograd does at last, when the head's gradient is there already."""
    if embedding.padding_idx is not None:
        gradient = gradient.masked_fill((input_ids == embedding.padding_idx)[..., None], 0)
    table = embedding.weight
    if table.grad is None:
        table.grad = torch.zeros_like(table)
    table.grad.index_add_(0, input_ids.flatten(), gradient.flatten(0, -2).to(table.dtype))


@contextmanager
def last_perceptron_where_scored(model: PreTrainedModel) -> Iterator[None]:
    """Leave out of the last layer's perceptron the places that no logits are made from (`logits_to_keep`).

    It works on each place alone, and what it adds to a place is read by nothing but the head. For CPUs only, whose
    memory holds the places: others would wait for them.
    """
    perceptron = getattr(blocks(model)[-1], "mlp", None)
    if perceptron is None or model.config.model_type not in FLAT_FAMILIES:
        yield
        return
    plain = perceptron.forward
    kept: list[torch.Tensor | None] = [None]

    def note(module: torch.nn.Module, given: Any, named: dict[str, Any]) -> None:
        places = named.get("logits_to_keep")
        kept[0] = torch.from_numpy(np.unique(places.numpy())) if isinstance(places, torch.Tensor) else None

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        places = kept[0]
        if places is None:
            return plain(hidden)
        made = plain(hidden[:, places])
        return made.new_zeros(*hidden.shape[:2], made.shape[2]).index_copy(1, places, made)

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with computed_by(perceptron, forward):
            yield
    finally:
        hook.remove()
