"""Greedy decoding: row by row as transformers does it, or in a batch that finished rows leave and others join."""

import copy
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from heed.models.loading import context_length
from heed.models.memory import BatchSize, attempt
from heed.tokens.tree import shared_prefix


class Finished(NamedTuple):
    """A row's index, and the ids of its answer, up to and including the stop id, or up to its limit."""

    row: int
    ids: list[int]
    seconds: float


def decode_one_by_one(
    model: Any,
    prompts_ids: Sequence[Sequence[int]],
    *,
    limits: Sequence[int],
    stop_token_ids: Sequence[int],
    pad_token_id: int,
    size: BatchSize,
) -> Iterator[Finished]:
    """What `model.generate` answers to each prompt alone: what the other engines are measured by.

    `seconds` is the row's own time.
    """
    for index, ids in enumerate(prompts_ids):
        began = time.perf_counter()
        written = decode_alone(
            model, ids, limit=limits[index], stop_token_ids=stop_token_ids, pad_token_id=pad_token_id
        )
        yield Finished(index, written, time.perf_counter() - began)


def decode_alone(
    model: Any, ids: Sequence[int], *, limit: int, stop_token_ids: Sequence[int], pad_token_id: int, **options: Any
) -> list[int]:
    """What `model.generate` writes after `ids`, greedily.

    The model's own generation_config is put aside, since `generate` would take from it whatever it is not given: a
    repetition penalty, for one, changes greedy answers.
    """
    owner = model if isinstance(model, PreTrainedModel) else model.get_base_model()
    own, owner.generation_config = owner.generation_config, GenerationConfig()
    input_ids = torch.tensor([list(ids)], device=model.device)
    try:
        output = model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            do_sample=False,
            num_beams=1,
            use_cache=True,
            max_new_tokens=limit,
            eos_token_id=list(stop_token_ids),
            pad_token_id=pad_token_id,
            **options,
        )
    finally:
        owner.generation_config = own
    written: list[int] = output[0, len(ids) :].tolist()
    return written


@torch.no_grad()
def decode_batch(
    model: Any,
    prompts_ids: Sequence[Sequence[int]],
    *,
    limits: Sequence[int],
    stop_token_ids: Sequence[int],
    pad_token_id: int,
    size: BatchSize,
) -> Iterator[Finished]:
    """The same answers, `size.rows` rows at once, shortest prompts first; each as it is finished.

    What all prompts begin with, such as the preamble of Alpaca's prompt, is read once. `seconds` is a row's share: the
    time of each step, divided among the rows in it. When memory runs out, `size` is halved, and the rows that were in
    work start again.
    """

    def empty() -> Batch:
        return Batch(model, prompts_ids, limits=limits, stop_token_ids=stop_token_ids, pad_token_id=pad_token_id)

    waiting = deque(sorted(range(len(prompts_ids)), key=lambda index: len(prompts_ids[index])))
    batch = empty()
    while waiting or batch.rows:
        joining = [waiting.popleft() for _ in range(min(batch.room(size.rows), len(waiting)))]
        if attempt(batch.advance, joining):
            yield from batch.finished()
            continue
        unfinished = [*batch.rows, *joining]
        batch = empty()  # its memory is free now
        size.halve(len(unfinished))
        waiting.extendleft(reversed(unfinished))


class Batch:
    """Rows in work: their keys and values, padded to one width before the prompt's own part.

    Padding is masked and position ids do not count it, so that a row's answer does not depend on its neighbours. Where
    all layers keep all keys and values, rows can join, needless padding is cut out, and what all prompts begin with is
    read once and copied. Where some keep less (sliding windows), padding would count in the window: rows are read
    whole, and join an empty batch only.
    """

    def __init__(
        self,
        model: Any,
        prompts_ids: Sequence[Sequence[int]],
        *,
        limits: Sequence[int],
        stop_token_ids: Sequence[int],
        pad_token_id: int,
    ) -> None:
        self.model = model
        self.prompts_ids = prompts_ids
        self.limits = limits
        self.stop_token_ids = frozenset(stop_token_ids)
        self.pad_token_id = pad_token_id
        self.last_position = context_length(model) - 1
        self.scored = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}
        self.beginning = DynamicCache(config=model.config)
        self.keeps_all = all(type(layer) is DynamicLayer for layer in self.beginning.layers)
        self.common = shared_prefix([list(ids) for ids in prompts_ids]) if self.keeps_all else 0
        self.cache: Any
        self.mask: torch.Tensor
        self.newest: torch.Tensor
        self.places: list[int | None] = []
        """For each row of the tensors its index, or None once it is finished."""
        self.ids: dict[int, list[int]] = {}
        self.seconds: dict[int, float] = {}

    @property
    def rows(self) -> list[int]:
        """Indices of the rows that are not finished."""
        return [index for index in self.places if index is not None]

    def room(self, most: int) -> int:
        """How many rows may join now: none for as long as an eighth is not free, since each reading costs a step."""
        free = most - len(self.places)
        if self.places and not self.keeps_all:
            return 0
        return free if free * 8 >= most else 0

    def advance(self, joining: Sequence[int]) -> None:
        """Read the prompts of the rows that join, or else write one more id for each row in work."""
        began = time.perf_counter()
        if joining:
            self._read(joining)
        else:
            self._write()
        rows = joining or self.rows
        for index, token_id in zip(rows, self._newest(len(rows)), strict=True):
            self.ids.setdefault(index, []).append(token_id)
        took = (time.perf_counter() - began) / len(rows)
        for index in rows:
            self.seconds[index] = self.seconds.get(index, 0.0) + took

    def finished(self) -> list[Finished]:
        """The rows that ended with their newest id; they leave once they are an eighth of all."""
        done = []
        for place, index in enumerate(self.places):
            if index is not None and self._has_ended(index):
                done.append(Finished(index, self.ids.pop(index), self.seconds.pop(index)))
                self.places[place] = None
        if self.places.count(None) * 8 >= len(self.places):
            self._leave()
        return done

    def _has_ended(self, index: int) -> bool:
        ids = self.ids[index]
        return ids[-1] in self.stop_token_ids or len(ids) >= self.limits[index]

    def _newest(self, count: int) -> list[int]:
        """The ids just written for the last `count` rows that are not finished."""
        newest: list[int] = self.newest.tolist()
        return [token_id for token_id, index in zip(newest, self.places, strict=True) if index is not None][-count:]

    def _read(self, joining: Sequence[int]) -> None:
        own = [self.prompts_ids[index][self.common :] for index in joining]
        width = max(map(len, own))
        input_ids = torch.full((len(own), width), self.pad_token_id)
        mask = torch.ones(len(own), self.common + width, dtype=torch.long)
        for row, ids in enumerate(own):
            input_ids[row, width - len(ids) :] = torch.tensor(list(ids))
            mask[row, self.common : self.common + width - len(ids)] = 0
        input_ids, mask = input_ids.to(self.model.device), mask.to(self.model.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, self.common :]
        cache = self._begun(len(own))
        newest = self._forward(input_ids, mask, positions, cache)
        if self.places:
            wide = max(mask.shape[1], self.mask.shape[1])
            for ours, theirs in zip(self.cache.layers, cache.layers, strict=True):
                for name in ("keys", "values"):
                    both = [pad_left(getattr(layer, name), wide, dim=2) for layer in (ours, theirs)]
                    setattr(ours, name, torch.cat(both))
            mask = torch.cat([pad_left(self.mask, wide, dim=1), pad_left(mask, wide, dim=1)])
            newest = torch.cat([self.newest, newest])
        else:
            self.cache = cache
        self.mask, self.newest = mask, newest
        self.places += joining

    def _begun(self, rows: int) -> DynamicCache:
        """What all prompts begin with, as each of `rows` new rows needs it."""
        if self.common and not self.beginning.get_seq_length():
            input_ids = torch.tensor([self.prompts_ids[0][: self.common]], device=self.model.device)
            positions = torch.arange(self.common, device=self.model.device)[None]
            self._forward(input_ids, torch.ones_like(input_ids), positions, self.beginning)
        cache = copy.deepcopy(self.beginning)
        cache.batch_repeat_interleave(rows)
        return cache

    def _write(self) -> None:
        mask = torch.cat([self.mask, self.mask.new_ones(len(self.places), 1)], dim=1)
        # A row that has finished, and not left yet, may be at the end of the context.
        positions = (mask.sum(1, keepdim=True) - 1).clamp(max=self.last_position)
        self.newest = self._forward(self.newest[:, None], mask, positions, self.cache)
        self.mask = mask

    def _forward(
        self, input_ids: torch.Tensor, mask: torch.Tensor, position_ids: torch.Tensor, cache: DynamicCache
    ) -> torch.Tensor:
        output = self.model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            **self.scored,
        )
        newest: torch.Tensor = output.logits[:, -1].argmax(-1)
        return newest

    def _leave(self) -> None:
        staying = [place for place, index in enumerate(self.places) if index is not None]
        if not staying:
            self.places = []
            del self.cache, self.mask, self.newest
            return
        chosen = torch.tensor(staying, device=self.mask.device)
        self.mask, self.newest = self.mask[chosen], self.newest[chosen]
        self.cache.batch_select_indices(chosen)
        if self.keeps_all:
            needed = self.mask.any(0)
            self.mask = self.mask[:, needed]
            for layer in self.cache.layers:
                layer.keys, layer.values = layer.keys[:, :, needed], layer.values[:, :, needed]
        self.places = [self.places[place] for place in staying]


def pad_left(tensor: torch.Tensor, width: int, *, dim: int) -> torch.Tensor:
    """`tensor` with zeros before it, so that it is `width` long in one dimension."""
    missing = width - tensor.shape[dim]
    behind = (0, 0) * (tensor.dim() - dim - 1)
    return torch.nn.functional.pad(tensor, (*behind, missing, 0))
