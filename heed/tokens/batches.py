"""Examples to tensors: flat or padded batches whose targets come from spans, never from comparing ids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from heed.tokens import tree
from heed.tokens.examples import Example, LossOn, learned_places
from heed.tokens.tree import Tree

IGNORE = -100  # torch's cross_entropy ignores targets with this value
Batch = dict[str, Any]
# What the loss needs of a batch; the rest are the model's own arguments.
LOSS_KEYS = ("labels", "targets", "weights", "row_targets", "tokens")


@dataclass(frozen=True, kw_only=True)
class PaddingCollator:
    """Pads a batch on the right with EOS.

    A complete answer ends in the token that stops, which is learned; any EOS after the last answer is padding, labelled
    -100 like everything that is only read. A label is at its own token's place, as everywhere in transformers.
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
        lengths = [len(example["input_ids"]) for example in examples]
        shape = (len(examples), max(lengths))
        input_ids = torch.full(shape, self.pad_token_id)
        attention_mask = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, IGNORE)
        for row, (example, length) in enumerate(zip(examples, lengths, strict=True)):
            ids = torch.tensor(example["input_ids"], dtype=torch.long)
            input_ids[row, :length] = ids
            attention_mask[row, :length] = 1
            places = torch.from_numpy(learned_places(example, self.loss_on))
            labels[row, places] = ids[places]
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

    A beginning that several examples share is in the row once, at every depth (`tree`), since a causal model computes
    the same for it in each of them. That is exact only without dropout: `share_prefix` says whether to. Positions
    restart in every example, and `heed.models.attention` keeps the examples apart.
    """

    pad_token_id: int
    loss_on: LossOn
    share_prefix: bool
    varlen: bool = False
    """Whether attention runs through torch's varlen_attn, which needs the layout as tensors."""
    multiple: int = 1
    """Rows and targets are filled up to multiples of this (`grained`), so that few shapes occur (CUDA graphs)."""
    by_row: bool = False
    """Keep each example's targets together, so that each has its own loss; otherwise equal ones are merged."""

    def for_evaluation(self) -> "FlatCollator":
        """The same with a loss for each example. Evaluation has no dropout, so it can always share."""
        return replace(self, share_prefix=True, by_row=True, multiple=1)

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Returns for the model: input_ids, position_ids and attention_mask, int64 of shape (1, row length);
        logits_to_keep, the places from which a target is predicted; and the layout that `attention.flat_attention`
        reads.

        For the loss: targets and weights of the kept logits (a target that several examples learn at one place counts
        once for each; filling counts 0); row_targets, how many targets each example has (by_row); tokens, the number
        of tokens the examples have.
        """
        rows = [np.asarray(example["input_ids"], dtype=np.int64) for example in examples]
        lists = [example["input_ids"] for example in examples]
        laid = tree.shared(lists) if self.share_prefix else tree.apart(lists)
        used = sum(map(len, laid.segments))
        filling = self.filling(used, len(laid.segments))

        spare = np.full(sum(filling), self.pad_token_id, dtype=np.int64)
        input_ids = np.concatenate([*(rows[part.row][part.begin : part.end] for part in laid.segments), spare])
        places = np.concatenate([*(np.arange(part.begin, part.end) for part in laid.segments), np.zeros_like(spare)])
        kept, targets, weights, row_targets = self.targets(examples, laid)
        unused = grained(len(targets), self.multiple) - len(targets) if filling else 0
        row = torch.from_numpy(input_ids)[None]
        batch: Batch = {
            "input_ids": row,
            "position_ids": torch.from_numpy(places)[None],
            # Never read, but without a mask some models search for padding, which waits for the device.
            "attention_mask": torch.ones_like(row),
            "logits_to_keep": torch.from_numpy(np.pad(kept, (0, unused))),
            "targets": torch.from_numpy(np.pad(input_ids[targets], (0, unused))),
            "weights": torch.from_numpy(np.pad(weights.astype(np.float32), (0, unused))),
            "tokens": torch.tensor(sum(map(len, rows))),
        }
        if self.by_row:
            batch["row_targets"] = row_targets
        return batch | self.layout(laid, filling)

    def filling(self, used: int, segments: int) -> list[int]:
        """Lengths of extra segments, which teach nothing: they fill the row and its number of segments up to a shape
        that occurs often. None without `multiple`, and none for a long row."""
        if self.multiple == 1 or used > MOST_FILLED:
            return []
        count = SEGMENTS - segments % SEGMENTS  # one at least, and none of them empty
        return [len(part) for part in np.array_split(np.arange(grained(used + count, self.multiple) - used), count)]

    def targets(self, examples: Sequence[Example], laid: Tree) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
        """For each target its places in the row, of the token it is predicted from and its own; how many examples it
        counts for; and how many targets each example has.

        The last token of a shared beginning predicts the next one of every example that continues from there.
        """
        starts = np.cumsum([0, *map(len, laid.segments)])
        sources, targets = [], []
        for example, path in zip(examples, laid.paths, strict=True):
            places = np.concatenate([np.arange(starts[part], starts[part + 1]) for part in path])
            learned = learned_places(example, self.loss_on)
            sources.append(places[learned - 1])
            targets.append(places[learned])
        row_targets = tuple(map(len, targets))
        kept, wanted = np.concatenate(sources), np.concatenate(targets)
        if self.by_row:
            return kept, wanted, np.ones(len(wanted)), row_targets
        wanted, first, counts = np.unique(wanted, return_index=True, return_counts=True)
        return kept[first], wanted, counts, row_targets

    def layout(self, laid: Tree, filling: Sequence[int]) -> Batch:
        """Where the segments of the row are, and what comes before each of them."""
        lengths = [*map(len, laid.segments), *filling]
        parents = [part.parent for part in laid.segments] + [None] * len(filling)
        shares = any(parent is not None for parent in parents)
        if not self.varlen:
            layout: Batch = {"segment_lengths": tuple(lengths)}
            return layout | ({"segment_parents": tuple(parents)} if shares else {})
        starts = np.cumsum([0, *lengths])
        own = [np.arange(start, start + length) for start, length in zip(starts, lengths, strict=False)]
        keys = [np.concatenate([own[part] for part in laid.path(number)]) for number in range(len(laid.segments))]
        keys += own[len(laid.segments) :]
        if shares and filling:  # the last segment, which teaches nothing, reads enough to fill up the keys too
            gathered = sum(map(len, keys))
            keys[-1] = np.pad(keys[-1], (grained(gathered, self.multiple) - gathered, 0))
        key_lengths = [len(each) for each in keys]
        layout = {
            "cu_seq_lens_q": torch.from_numpy(starts.astype(np.int32)),
            "cu_seq_lens_k": torch.from_numpy(np.cumsum([0, *key_lengths]).astype(np.int32)),
            "max_length_q": grained(max(lengths), self.multiple),
            "max_length_k": grained(max(key_lengths), self.multiple),
        }
        return layout | ({"kv_index": torch.from_numpy(np.concatenate(keys))} if shares else {})


# Longer rows are left as they are: their kernels take longer than launching them, so a graph gains nothing. At about
# 10 us a launch and 400 TFLOP/s the two break even near this length, in GPT-2 small and medium (an estimate).
MOST_FILLED = 4096
SEGMENTS = 8  # with `multiple`, the number of segments in a row is filled up to a multiple of this


def grained(number: int, multiple: int) -> int:
    """`number` rounded up: to a multiple of `multiple`, or more coarsely where it is large, by a sixteenth at most."""
    grain = max(multiple, 2 ** max(0, number.bit_length() - 5)) if multiple > 1 else 1
    return -(-number // grain) * grain
