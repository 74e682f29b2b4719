"""Greedy decoding: row by row as transformers does it, or in a batch that finished rows leave and others join."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from heed.answers.rows import Rows
from heed.models.faster import fused_gelu
from heed.models.memory import BatchSize, attempt
from heed.models.products import onednn_products
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
    with onednn_products(model), fused_gelu(model):
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
        self.scored = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}
        layers = DynamicCache(config=model.config).layers
        self.keeps_all = all(type(layer) is DynamicLayer for layer in layers)
        self.common = shared_prefix([list(ids) for ids in prompts_ids]) if self.keeps_all else 0
        self.beginning = self._empty()
        self.cache = self._empty()
        self.width = 0
        """Columns of the cache, common ones included."""
        self.rows: list[int] = []
        """The index of each row of the cache."""
        self.ids: dict[int, list[int]] = {}
        self.seconds: dict[int, float] = {}

    def room(self, most: int) -> int:
        """How many rows may join now: none for as long as an eighth is not free, since each reading costs a step."""
        free = most - len(self.rows)
        if self.rows and not self.keeps_all:
            return 0
        return free if free * 8 >= most else 0

    def advance(self, joining: Sequence[int]) -> None:
        """Read the prompts of the rows that join, or else write one more id for each row in work."""
        began = time.perf_counter()
        newest = self._read(joining) if joining else self._write()
        rows = joining or self.rows
        for index, token_id in zip(rows, newest, strict=True):
            self.ids.setdefault(index, []).append(token_id)
        took = (time.perf_counter() - began) / len(rows)
        for index in rows:
            self.seconds[index] = self.seconds.get(index, 0.0) + took

    def finished(self) -> list[Finished]:
        """The rows that ended with their newest id; they leave."""
        ended = [index for index in self.rows if self._has_ended(index)]
        if ended:
            self._leave(frozenset(ended))
        return [Finished(index, self.ids.pop(index), self.seconds.pop(index)) for index in ended]

    def _has_ended(self, index: int) -> bool:
        ids = self.ids[index]
        return ids[-1] in self.stop_token_ids or len(ids) >= self.limits[index]

    def _read(self, joining: Sequence[int]) -> list[int]:
        own = [self.prompts_ids[index][self.common :] for index in joining]
        wide = max(map(len, own))
        input_ids = [[self.pad_token_id] * (wide - len(ids)) + list(ids) for ids in own]
        cache = self._begun(len(own))
        newest = self._forward(input_ids, list(map(len, own)), self.common + wide, cache)
        if self.rows:
            for ours, theirs in zip(self.cache.layers, cache.layers, strict=True):
                ours.join(theirs, self.common)
        else:
            self.cache = cache
        self.width = max(self.width, self.common + wide)
        self.rows += joining
        return newest

    def _begun(self, rows: int) -> DynamicCache:
        """What all prompts begin with, as each of `rows` new rows needs it."""
        cache = self._empty()
        if self.common:
            if not self.beginning.get_seq_length():
                self._forward([list(self.prompts_ids[0][: self.common])], [0], self.common, self.beginning)
            for new, begun in zip(cache.layers, self.beginning.layers, strict=True):
                new.update(*(each.expand(rows, -1, -1, -1) for each in begun.in_use()))
        return cache

    def _empty(self) -> Any:
        cache: Any = DynamicCache(config=self.model.config)
        if self.keeps_all:
            cache.layers = [Rows() for _ in cache.layers]
        return cache

    def _write(self) -> list[int]:
        self.width += 1
        return self._forward([self.ids[index][-1:] for index in self.rows], self._own(), self.width, self.cache)

    def _own(self) -> list[int]:
        """How many columns each row has of its own once its newest id is read."""
        return [len(self.prompts_ids[index]) - self.common + len(self.ids[index]) for index in self.rows]

    def _forward(self, input_ids: list[list[int]], own: list[int], width: int, cache: DynamicCache) -> list[int]:
        """Read the last of `width` columns: the id that each row writes next. Its `own` columns are the last, too."""
        device = self.model.device
        columns, starts = torch.arange(width, device=device), width - torch.tensor(own, device=device)[:, None]
        output = self.model(
            input_ids=torch.tensor(input_ids, device=device),
            attention_mask=((columns < self.common) | (columns >= starts)).long(),
            position_ids=(columns[-len(input_ids[0]) :] - starts + self.common).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            **self.scored,
        )
        newest: list[int] = output.logits[:, -1].argmax(-1).tolist()
        return newest

    def _leave(self, ended: frozenset[int]) -> None:
        """The last rows take the places of those that ended; once padding is an eighth of the width, it is cut out."""
        staying = [place for place, index in enumerate(self.rows) if index not in ended]
        places = [place if self.rows[place] not in ended else staying.pop() for place in range(len(staying))]
        self.rows = [self.rows[place] for place in places]
        if not self.rows:
            self.cache, self.width = self._empty(), 0
            return
        self.cache.batch_select_indices(torch.tensor(places))
        padding = self.width - self.common - max(self._own()) + 1
        if self.keeps_all and padding * 8 >= self.width:
            for layer in self.cache.layers:
                layer.move(self.common + padding, -padding)
            self.width -= padding
