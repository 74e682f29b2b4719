"""Examples to tensors: flat or padded batches whose targets come from lengths, never from comparing ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch

LossOn = Literal["response", "all"]
IGNORE = -100  # torch's cross_entropy passes over targets with this value
Example = Mapping[str, Any]
Batch = dict[str, Any]
# What the loss needs of a batch; the rest are the model's own arguments.
LOSS_KEYS = ("labels", "targets", "weights", "row_targets", "tokens")


def first_learned(example: Example, loss_on: LossOn) -> int:
    """The place of the first token that is learned. The first of a row has nothing before it to be predicted from."""
    return 1 if loss_on == "all" else max(1, len(example["prompt_ids"]))


def supervised_tokens(example: Example, loss_on: LossOn) -> int:
    return len(example["prompt_ids"]) + len(example["response_ids"]) - first_learned(example, loss_on)


@dataclass(frozen=True, kw_only=True)
class PaddingCollator:
    """Pads a batch on the right with EOS.

    A complete response ends in its own EOS, which is learned; the EOS behind it are padding, and their labels are
    -100. So are those of the prompt under `loss_on="response"`. Labels stand at the place of their own token, as
    everywhere in transformers.
    """

    pad_token_id: int
    loss_on: LossOn

    def for_evaluation(self) -> "PaddingCollator":
        return self

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Returns for the model: input_ids and attention_mask, int64 of shape (examples, longest example), and
        logits_to_keep, the columns from which some row's target is predicted.

        For the loss: labels (examples, longest example); targets and weights of the kept logits, flattened, with
        weight 0 where a row has no target in a kept column; row_targets, how many of them belong to each example;
        tokens, the number of real tokens.
        """
        lengths = [len(example["prompt_ids"]) + len(example["response_ids"]) for example in examples]
        shape = (len(examples), max(lengths))
        input_ids = torch.full(shape, self.pad_token_id)
        attention_mask = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, IGNORE)
        for row, (example, length) in enumerate(zip(examples, lengths, strict=True)):
            ids = torch.tensor([*example["prompt_ids"], *example["response_ids"]])
            input_ids[row, :length] = ids
            attention_mask[row, :length] = 1
            first = first_learned(example, self.loss_on)
            labels[row, first:length] = ids[first:]
        kept = (labels[:, 1:] != IGNORE).any(dim=0).nonzero().flatten()
        targets = labels[:, kept + 1].flatten()
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "logits_to_keep": kept,
            "labels": labels,
            "targets": targets,
            "weights": (targets != IGNORE).float(),
            "row_targets": (len(kept),) * len(examples),
            "tokens": torch.tensor(sum(lengths)),
        }


@dataclass(frozen=True, kw_only=True)
class FlatCollator:
    """Lays the examples of a batch end to end in one row: no padding, and the same loss and gradient.

    What all examples begin with (the template's preamble, at least) stands in the row once, since a causal model
    computes the same for it in each of them. That is exact only without dropout: `share_prefix` says whether to.
    Positions restart in every example, and `heed.attention` keeps the examples apart.
    """

    pad_token_id: int
    loss_on: LossOn
    share_prefix: bool
    varlen: bool = False
    """Whether attention runs through torch's varlen_attn, which wants the layout as tensors."""
    multiple: int = 1
    """Rows and targets are filled up to multiples of this (`grained`), so that few shapes occur (CUDA graphs)."""
    by_row: bool = False
    """Keep each example's targets together, so that its own loss can be told; else equal ones are merged."""

    def for_evaluation(self) -> "FlatCollator":
        """The same with each example's loss told apart. Evaluation has no dropout, so it can always share."""
        return replace(self, share_prefix=True, by_row=True, multiple=1)

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Returns for the model: input_ids, position_ids and attention_mask, int64 of shape (1, row length);
        logits_to_keep, the places from which a target is predicted; and the layout that `attention.flat_attention`
        reads.

        For the loss: targets and weights of the kept logits (a target in the shared prefix counts once for each
        example that learns it; filling counts 0); row_targets, how many targets each example has (by_row);
        tokens, the number of tokens the examples have.
        """
        rows = [[*example["prompt_ids"], *example["response_ids"]] for example in examples]
        firsts = [first_learned(example, self.loss_on) for example in examples]
        prefix = shared_prefix(rows) if self.share_prefix else 0
        lengths = [len(row) - prefix for row in rows]
        starts = np.cumsum([prefix, *lengths[:-1]]).tolist()
        filling = self.filling(prefix + sum(lengths), len(rows))

        input_ids = rows[0][:prefix] + [token for row in rows for token in row[prefix:]]
        input_ids += [self.pad_token_id] * sum(filling)
        places = [np.arange(prefix), *(np.arange(prefix, len(row)) for row in rows), np.zeros(sum(filling), np.int64)]
        kept, targets, weights = self.learned(rows, firsts, starts, prefix)
        spare = grained(len(targets), self.multiple) - len(targets) if filling else 0
        row = torch.tensor([input_ids])
        batch: Batch = {
            "input_ids": row,
            "position_ids": torch.from_numpy(np.concatenate(places))[None],
            # Never looked at; but without a mask some models search for padding, which waits for the device.
            "attention_mask": torch.ones_like(row),
            "logits_to_keep": torch.from_numpy(np.concatenate([kept, np.zeros(spare, dtype=np.int64)])),
            "targets": torch.from_numpy(np.concatenate([targets, np.zeros(spare, dtype=np.int64)])),
            "weights": torch.from_numpy(np.concatenate([weights, np.zeros(spare, dtype=np.float32)])),
            "tokens": torch.tensor(sum(map(len, rows))),
        }
        if self.by_row:
            batch["row_targets"] = tuple(len(row) - first for row, first in zip(rows, firsts, strict=True))
        return batch | self.layout(prefix, lengths + filling)

    def filling(self, used: int, examples: int) -> list[int]:
        """Lengths of further examples that teach nothing: they fill the row, and the number of examples, up to a shape
        that occurs often. None without `multiple`, and none for a long row."""
        if self.multiple == 1 or used > MOST_FILLED:
            return []
        count = EXAMPLES - examples % EXAMPLES  # one at least, and none of them empty
        return [len(part) for part in np.array_split(np.arange(grained(used + count, self.multiple) - used), count)]

    def learned(
        self, rows: Sequence[Sequence[int]], firsts: Sequence[int], starts: Sequence[int], prefix: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where each target is predicted from, the targets, and how many examples each counts for.

        The last token of the prefix predicts the first token of every example's own part: it is kept once for each.
        """
        kept, targets, weights = [], [], []
        if prefix and not self.by_row:
            common = np.arange(1, prefix)
            counts = (np.asarray(firsts)[:, None] <= common).sum(axis=0)
            common = common[counts > 0]
            kept.append(common - 1)
            targets.append(np.asarray(rows[0], dtype=np.int64)[common])
            weights.append(counts[counts > 0].astype(np.float32))
        for row, first, start in zip(rows, firsts, starts, strict=True):
            own = np.arange(first if self.by_row else max(first, prefix), len(row))
            sources = own - 1
            kept.append(np.where(sources < prefix, sources, sources - prefix + start))
            targets.append(np.asarray(row, dtype=np.int64)[own])
            weights.append(np.ones(len(own), dtype=np.float32))
        return np.concatenate(kept), np.concatenate(targets), np.concatenate(weights)

    def layout(self, prefix: int, lengths: Sequence[int]) -> Batch:
        """Where the segments of the row are: first the shared prefix, if any, then one for each example."""
        segments = [prefix, *lengths] if prefix else list(lengths)
        if not self.varlen:
            return {"segment_lengths": tuple(segments), "prefix_length": prefix}
        keys = [prefix, *(prefix + length for length in lengths)] if prefix else segments
        layout: Batch = {
            "cu_seq_lens_q": torch.from_numpy(np.cumsum([0, *segments]).astype(np.int32)),
            "cu_seq_lens_k": torch.from_numpy(np.cumsum([0, *keys]).astype(np.int32)),
            "max_length_q": grained(int(max(segments)), self.multiple),
            "max_length_k": grained(int(max(keys)), self.multiple),
        }
        if prefix:
            shared, ends = np.arange(prefix), np.cumsum(segments)
            own = [part for start, end in pairwise(ends) for part in (shared, np.arange(start, end))]
            layout["kv_index"] = torch.from_numpy(np.concatenate([shared, *own]))
        return layout


# Longer rows are left as they are: their kernels take longer than launching them, so nobody wants a graph. At about
# 10 us a launch and 400 TFLOP/s the two are even near this length, in GPT-2 small as in medium (an estimate).
MOST_FILLED = 4096
EXAMPLES = 8  # with `multiple`, the number of examples in a row is filled up to a multiple of this


def grained(number: int, multiple: int) -> int:
    """`number` rounded up: to a multiple of `multiple`, or more coarsely where it is large, by a sixteenth at most."""
    grain = max(multiple, 2 ** max(0, number.bit_length() - 5)) if multiple > 1 else 1
    return -(-number // grain) * grain


def shared_prefix(rows: Sequence[list[int]]) -> int:
    """How many tokens all rows begin with, short of the shortest row's last: every example keeps a part of its own."""
    if len(rows) < 2:
        return 0
    # The smallest and the largest in lexicographic order differ first where any two do.
    low, high = min(rows), max(rows)
    most = min(map(len, rows)) - 1
    return next((place for place in range(most) if low[place] != high[place]), most)
